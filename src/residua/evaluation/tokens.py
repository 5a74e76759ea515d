"""Did the memory help a language model, on text it has not seen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from tqdm import tqdm

from residua.core import Encoded, Softmax, batches
from residua.core.logits import as_tensor
from residua.errors import InputError, LabelError, ParameterError
from residua.evaluation.significance import blocks, check_resampling
from residua.evaluation.token_result import TokenEvaluation
from residua.readers import Reader

COUNTS = ("tokens", "base_loss", "memory_loss", "base_right", "memory_right", "corrected", "broken")


def evaluate_tokens(
    reader: Reader,
    test: Encoded | Iterable[Encoded],
    *,
    exclude_own: bool = False,
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
    progress: bool | None = None,
) -> TokenEvaluation:
    """Compare a reader with the language model it corrects, token by token.

    Parameters
    ----------
    reader : Reader
        ``rs.KNNLM``, ``rs.ResMem`` or ``rs.ContinuousCache`` over a memory of tokens.
    test : Encoded or iterable of Encoded
        Token batches in document order, such as ``rs.lm.encode`` gives. Their ids say which document a token is of.
    exclude_own : bool, default False
        Leave the remembered rows of a token's own document out of its neighbours.
    confidence : float in (0, 1), default 0.95
        Of the intervals, which resample documents, since the tokens of one are not independent.
    n_bootstrap : int, default 2000
    seed : int, default 0
    progress : bool, optional
        A bar; by default only on a terminal, after two seconds.

    Returns
    -------
    TokenEvaluation
        Perplexity and next-token accuracy of both, TPR, FPR and gain (ResMem, eq. 9-10), tokens per second.

    Raises
    ------
    LabelError, InputError
        Rows without next tokens or without document ids; no rows.
    ParameterError
        `reader` is no reader, or confidence or n_bootstrap is out of its range.
    """
    if not isinstance(reader, Reader):
        raise ParameterError(f"got a {type(reader).__name__} where a reader is expected, such as rs.KNNLM(memory)")
    check_resampling(confidence, n_bootstrap)
    clock = Clock()
    documents, sums = [], []
    hidden = None if progress is None else not progress
    with tqdm(desc="evaluate", unit="token", disable=hidden, delay=0 if progress else 2, leave=False) as bar:
        for ids, points in clock.reading(_points(reader, clock.encoding(batches(test)), exclude_own)):
            found, where = np.unique(ids, return_inverse=True)
            documents.append(found)
            sums.append(np.stack([np.bincount(where, points[name], len(found)) for name in COUNTS], axis=1))
            bar.update(len(ids))
    if not documents:
        raise InputError("the data hold no rows; expected at least one token to predict")
    own, where = np.unique(np.concatenate(documents), return_inverse=True)
    table = np.zeros((len(own), len(COUNTS)))
    np.add.at(table, where, np.concatenate(sums))
    return _result(reader, table, clock, confidence, n_bootstrap, seed)


class Clock:
    """Where the time of an evaluation goes: the model's, spent in the iterable it comes from, and the memory's."""

    def __init__(self):
        self.encode = self.total = 0.0

    def encoding(self, data: Iterable) -> Iterator:
        """`data`, with the time that making it takes."""
        data = iter(data)
        while True:
            start = time.perf_counter()
            item = next(data, None)
            self.encode += time.perf_counter() - start
            if item is None:
                return
            yield item

    def reading(self, data: Iterator) -> Iterator:
        """`data`, with the time of everything that making it takes."""
        while True:
            start = time.perf_counter()
            item = next(data, None)
            self.total += time.perf_counter() - start
            if item is None:
                return
            yield item


def _points(reader: Reader, data: Iterator[Encoded], exclude_own: bool) -> Iterator[tuple[np.ndarray, dict]]:
    """Document ids and each token's measures, batch by batch."""
    stream = reader.stream()
    for batch in data:
        reader.check(batch)
        if batch.labels is None:
            raise LabelError("these rows have no next tokens; evaluation compares predictions with the truth")
        if batch.ids is None:
            raise InputError("these rows do not say which document they are of (ids); encode them with rs.lm.encode")
        if not len(batch):
            continue
        device = reader.memory.device
        truth, documents = as_tensor(batch.labels).to(device), as_tensor(batch.ids).to(device)
        own = batch.ids if exclude_own else None
        now = stream.score(as_tensor(batch.keys), batch.logits, documents=documents, tokens=truth, exclude_ids=own)
        # The model as it is, whatever temperature the reader was tuned to.
        known = now.temperature == 1 and now.logits is batch.logits
        base = now.softmax if known else Softmax(batch.logits)
        base_right = base.best.token.to(device) == truth
        right = now.argmax().to(device) == truth
        points = {
            "tokens": np.ones(len(batch)),
            "base_loss": -base.log_prob(truth.to(base.partition.device)),
            "memory_loss": -now.log_prob(truth),
            "base_right": base_right,
            "memory_right": right,
            "corrected": right & ~base_right,
            "broken": base_right & ~right,
        }
        yield batch.ids, {name: np.asarray(torch.as_tensor(value).double().cpu()) for name, value in points.items()}


def _result(
    reader: Reader, table: np.ndarray, clock: Clock, confidence: float, n_bootstrap: int, seed: int
) -> TokenEvaluation:
    """The whole from each document's sums (documents, COUNTS)."""
    whole = _ratios(table.sum(axis=0, keepdims=True))
    tokens = int(table[:, 0].sum())
    intervals = {name: None for name in whole}
    if len(table) > 1:  # one document says nothing about others
        rng = np.random.default_rng(seed)
        drawn = [
            _ratios(rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=count) @ table)
            for count in blocks(n_bootstrap, len(table))
        ]
        edges = [(1 - confidence) / 2, (1 + confidence) / 2]
        for name in whole:
            low, high = np.quantile(np.concatenate([part[name] for part in drawn]), edges)
            intervals[name] = (float(low), float(high))
    value = {name: float(found[0]) for name, found in whole.items()}
    return TokenEvaluation(
        reader=type(reader).__name__,
        params=reader.to_json()["params"],
        n=tokens,
        documents=len(table),
        perplexity_base=value["perplexity_base"],
        perplexity_memory=value["perplexity_memory"],
        perplexity_ratio=value["perplexity_ratio"],
        perplexity_ratio_interval=intervals["perplexity_ratio"],
        base=value["base"],
        memory=value["memory"],
        tpr=value["tpr"],
        fpr=value["fpr"],
        gain=value["gain"],
        gain_interval=intervals["gain"],
        confidence=confidence,
        tokens_per_second_base=tokens / clock.encode if clock.encode > 0 else None,
        tokens_per_second_memory=tokens / clock.total if clock.total > 0 else None,
    )


def _ratios(sums: np.ndarray) -> dict[str, np.ndarray]:
    """What is reported, from sums (b, COUNTS), each (b,)."""
    tokens, base_loss, memory_loss, base_right, memory_right, corrected, broken = sums.T
    return {
        "perplexity_base": np.exp(base_loss / tokens),
        "perplexity_memory": np.exp(memory_loss / tokens),
        "perplexity_ratio": np.exp((memory_loss - base_loss) / tokens),
        "base": base_right / tokens,
        "memory": memory_right / tokens,
        "tpr": corrected / tokens,
        "fpr": broken / tokens,
        "gain": (corrected - broken) / tokens,
    }
