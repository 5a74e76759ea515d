"""Passages of remembered text, read in front of what a language model continues: retrieval-augmented generation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from torch import nn

from residua.core import ArrayLike, Encoded, Ids, Neighbours, as_tensor
from residua.core.encoded import labels_of
from residua.core.logits import Softmax
from residua.encoding.options import Texts, Tokenizer
from residua.encoding.passages import NOTHING, TOKENS, Embedder, keys_of, passage_rows, source_of, states_encoder
from residua.encoding.text import encode_prompts, eos_token
from residua.encoding.windows import TokenBatch, Window
from residua.errors import InputError, ParameterError, StorageError
from residua.memory import Memory
from residua.readers import Reader
from residua.readers.neighbour import weigh

Said: TypeAlias = str | Sequence[int] | np.ndarray  # a text, or its tokens


@dataclass(frozen=True)
class Found:
    """The k passages that a context retrieves, the nearest first."""

    rows: np.ndarray  # int64 (k,): their row numbers in the memory
    names: list[str]  # of their documents
    texts: list[str]
    tokens: list[np.ndarray]  # int64 (t,) each
    distances: np.ndarray  # float32 (k,): plain Euclidean, of their keys to the context's
    shares: np.ndarray  # float64 (k,): η, which sum to 1

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Scored:
    """What a target of t tokens is worth after a context: natural logarithms of probabilities, float64."""

    token: np.ndarray  # (t,): RAG-Token
    sequence: np.ndarray  # (t,): RAG-Sequence, of each token given those before it
    alone: np.ndarray  # (t,): without any passage, by the reader where there is one
    each: np.ndarray  # (k, t): with each passage in front
    found: Found


class Passages:
    """A language model that reads the passages of a memory before it speaks (RAG, arXiv 2005.11401, section 2.1).

    With η(z|x) the shares of the k passages that the context x retrieves, kernel weights ``exp(-d²/sigma)`` of their
    distances that sum to 1, a target y has the probability ::

        RAG-Token     Π_i Σ_z η(z|x) p(y_i | z, x, y_<i)
        RAG-Sequence  Σ_z η(z|x) Π_i p(y_i | z, x, y_<i)

    The model without any passage is one more z (the null document of REALM, arXiv 2002.08909): its share is
    ``1 - lmbda``, and what a passage takes of its window it has for more of the context. ``lmbda=1`` is the paper's
    RAG, ``lmbda=0`` or ``k=0`` the model itself.

    Parameters
    ----------
    model, tokenizer : transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase
        A causal language model.
    memory : Memory
        Its rows are passages, as ``Passages.remember`` makes them.
    k : int, default 8
        How many are read. The model runs once for each, in one batch.
    lmbda : float in [0, 1], default 0.5
        The passages' share.
    sigma : float, optional
        A squared distance, as of ``KNNLM``. None: the squared median nearest-neighbour distance in the memory.
    window : int, optional
        Tokens the model sees at a time: passage, context and target; of the context the end that fits. By default the
        model's own maximum, at most 1024.
    encoder : callable, optional
        Where the memory was made with one: a list of n str to keys (n, d).
    reader : Reader, optional
        Answers where no passage is read, in the model's place: such as a ``KNNLM`` over a memory of tokens that the
        same model made. Both memories then have a say.

    Raises
    ------
    StorageError, ParameterError, SourceMismatchError, EncodeError

    Examples
    --------
    >>> import residua as rs, torch
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> class Letters:
    ...     bos_token_id = eos_token_id = 0
    ...     def __call__(self, texts, **options):
    ...         return {"input_ids": [[ord(letter) for letter in text] for text in texts]}
    ...     def decode(self, tokens):
    ...         return "".join(map(chr, tokens))
    ...     def get_vocab(self):
    ...         return {chr(i): i for i in range(128)}
    >>> sizes = {"vocab_size": 128, "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 64}
    >>> model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    >>> texts = [("add.py", "def add(x, y):"), ("os.py", "import os, sys")]
    >>> passages = rs.Passages.remember(model, Letters(), texts, length=16, k=2)
    >>> passages
    Passages(2 passages, k=2, lmbda=0.5, window=64)
    >>> passages.find("import os, sys").names
    ['os.py', 'add.py']
    >>> passages.score("import ", "os").token.shape
    (2,)
    """

    model: nn.Module
    tokenizer: Any
    memory: Memory
    k: int
    lmbda: float
    sigma: float | None
    encoder: Embedder | None
    reader: Reader | None
    window: int

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        memory: Memory,
        k: int = 8,
        lmbda: float = 0.5,
        sigma: float | None = None,
        *,
        window: int | None = None,
        encoder: Embedder | None = None,
        reader: Reader | None = None,
    ):
        if not isinstance(memory, Memory) or not memory.has_column(TOKENS) or "passages" not in memory.about:
            raise StorageError("these are no remembered passages; make a memory of them with rs.Passages.remember")
        if not (isinstance(lmbda, Real) and 0 <= lmbda <= 1):
            raise ParameterError(f"lmbda={lmbda!r}; expected the passages' share, between 0 and 1")
        if sigma is not None and not (isinstance(sigma, Real) and sigma > 0):
            raise ParameterError(f"sigma={sigma!r}; expected a positive squared distance")
        if (encoder is None) != (memory.source is not None):
            made = "with an encoder= of one's own" if memory.source is None else "by the model's own states"
            raise ParameterError(f"the keys of this memory were made {made}; queries need the same")
        if reader is not None and (not isinstance(reader, Reader) or reader.start() is not None):
            raise ParameterError(
                f"reader={reader!r}; expected one that answers each token by itself, as rs.KNNLM(memory)"
            )
        self.model, self.tokenizer, self.memory, self.encoder, self.reader = model, tokenizer, memory, encoder, reader
        self.k, self.lmbda, self.sigma = _whole("k", k, 0), float(lmbda), sigma
        self._embedder = states_encoder(model, tokenizer, memory.source.key if memory.source else None)
        if memory.source is not None:
            memory.source.require(source_of(self._embedder))
        self._speaker = self._embedder if reader is None else states_encoder(model, tokenizer, None, like=reader)
        limit = self._embedder.windowing.window
        self.window = limit if window is None else _whole("window", window, 2)
        if self.window > limit:
            raise ParameterError(f"window={window}; the model reads {limit} tokens at most")

    @classmethod
    def remember(
        cls,
        model: nn.Module,
        tokenizer: Tokenizer,
        texts: Texts,
        *,
        by: Iterable[str] | None = None,
        length: int | None = None,
        stride: int | None = None,
        key: str = "head",
        encoder: Embedder | None = None,
        index: str = "exact",
        **options: Any,
    ) -> Self:
        """Cut texts into passages, and remember each by its key.

        Parameters
        ----------
        model, tokenizer, texts
            As in ``rs.lm.remember``.
        by : iterable of str, optional
            What each text is found by, such as the question that it answers (QA-Memory, arXiv 2204.04581): a text is
            then one passage. By default a passage is found by what it says itself.
        length : int, default 64
            Tokens of a passage; with `by`, of the longest text.
        stride : int, optional
            From the beginning of a passage to that of the next, by default ``length // 2``.
        key : str, default "head"
            The layer whose states, averaged over the tokens, are the key; as in ``TextStream``.
        encoder : callable, optional
            Makes keys instead: a list of n str to an array (n, d).
        index : str, default "exact"
            As in ``Memory``.
        **options
            Those of the constructor.

        Returns
        -------
        Passages
            Its ``memory`` has one row for each passage. Its id is the document (a hash of its tokens), ``names`` says
            which, the column ``"tokens"`` holds the passage and ``"begin"`` says where in the document it begins, and
            the label is its first token.
        """
        embedder = states_encoder(model, tokenizer, key if encoder is None else None)
        documents = list(embedder.documents(texts))
        if length is None:
            length = 64 if by is None else max(len(one.tokens) for one in documents)
        length = _whole("length", length, 1)
        step = max(1, length // 2) if stride is None else _whole("stride", stride, 1)
        if step > length:
            raise ParameterError(f"stride={step}; expected at most length={length}: more would leave tokens out")
        about = {"passages": {"length": length, "stride": step, "whole": by is not None}}
        rows = passage_rows(documents, by, about["passages"], embedder, encoder)
        memory = Memory(rows, index=index, storage="none", about=about)
        return cls(model, tokenizer, memory, encoder=encoder, **options)

    def add(self, texts: Texts, *, by: Iterable[str] | None = None) -> np.ndarray:
        """Remember more texts, cut as the others; the id of each passage, int64 (m,). Parameters are those of
        ``remember``."""
        documents = list(self._embedder.documents(texts))
        cut = self.memory.about["passages"]
        return self.memory.add(passage_rows(documents, by, cut, self._embedder, self.encoder))

    def find(self, context: Said, *, exclude: Ids | None = None) -> Found:
        """The k passages nearest to a context's end (its last tokens, as many as a passage has; with `by`, all of it),
        without those of the documents `exclude`, ids int (m,)."""
        tokens = self._tokens(context)
        cut = self.memory.about["passages"]
        end = tokens if cut["whole"] else tokens[-cut["length"] :]
        if self.k == 0 or not len(end):
            return self.read([], [])
        key = keys_of([end[-self._embedder.windowing.window :]], self._embedder, self.encoder)
        near = self.memory.search(key, self.k, None if exclude is None else np.asarray(exclude).reshape(1, -1))
        there = near.found[0]
        return self.read(near.rows[0][there], near.distances[0][there])

    def read(self, rows: ArrayLike, distances: ArrayLike) -> Found:
        """Passages by their row numbers int (k,), however they were found; shares are by ascending `distances` (k,).

        ``InputError`` for a row that is not remembered (any more).
        """
        at, far = as_tensor(rows, torch.int64).reshape(-1), as_tensor(distances, torch.float32).reshape(-1)
        if not bool(torch.isin(at, self.memory.active_rows).all()):
            raise InputError(f"rows {at.tolist()} are not all remembered; expected row numbers, as find(...).rows")
        held, ids = self.memory.column(TOKENS)[at].cpu().numpy(), self.memory.column("id")[at].tolist()
        tokens = [row[row != NOTHING].astype(np.int64) for row in held]
        names = [self.memory.names.get(id, str(id)) for id in ids]
        texts = [str(self.tokenizer.decode(one)) for one in tokens]
        shares = np.empty(0)
        if len(at):
            sigma = self.memory.median_nn_distance() ** 2 if self.sigma is None else self.sigma
            shares = weigh(Neighbours(at[None], far[None]), sigma, "gaussian")[0].cpu().double().numpy()
            shares /= shares.sum()
        return Found(at.cpu().numpy(), names, texts, tokens, far.cpu().numpy(), shares)

    def score(self, context: Said, target: Said, *, found: Found | None = None, exclude: Ids | None = None) -> Scored:
        """The log-probability of each token of `target` after `context`.

        Parameters
        ----------
        context, target : str, or int array of tokens
        found : Found, optional
            Passages to read instead of those that ``find`` gives, with their shares.
        exclude : int array of shape (m,), optional
            Documents whose passages are not read.

        Raises
        ------
        InputError
            Where there is no target, or the window has no room for the longest passage and the target.
        """
        before, after = self._tokens(context), self._tokens(target)
        if not len(after):
            raise InputError("the target has no token; expected what comes after the context")
        found = self.find(before, exclude=exclude) if found is None else found
        rows = self._speaker.encode(TokenBatch(self._windows(found, before, after)))
        *each, alone = self._log_prob(rows, len(after)).reshape(len(found) + 1, len(after))
        shares, said = self._shares(found), np.stack([*each, alone])
        return Scored(token(shares, said), sequence(shares, said), alone, said[:-1], found)

    def generate(self, context: Said, max_new_tokens: int = 20) -> str:
        """The greedy continuation by RAG-Token, with the passages that the context retrieves; without the context."""
        before, made = self._tokens(context), list[int]()
        found, end = self.find(before), eos_token(self.tokenizer)
        shares = self._shares(found)
        for _ in range(max_new_tokens):
            so_far = np.append(before, np.array(made, np.int64))
            rows = self._speaker.encode(TokenBatch(self._windows(found, so_far, np.zeros(1, np.int64))))
            best = int((shares @ self._probabilities(rows)).argmax())
            if best == end:
                break
            made.append(best)
        return str(self.tokenizer.decode(made))

    def _shares(self, found: Found) -> np.ndarray:
        """Those of the passages, and of the model alone: they sum to 1."""
        return np.append(self.lmbda * found.shares, 1 - self.lmbda) if len(found) else np.ones(1)

    def _windows(self, found: Found, context: np.ndarray, target: np.ndarray) -> list[Window]:
        """The target after each passage and as much of the context as there is room for; last, without a passage."""
        prefix = self._speaker.windowing.prefix
        start = np.array([] if prefix is None else [prefix], np.int64)
        made = list[Window]()
        for number, passage in enumerate([*found.tokens, np.empty(0, np.int64)]):
            room = self.window - len(start) - len(passage) - len(target) + 1
            if room < min(1, len(context)):
                raise InputError(
                    f"a passage of {len(passage)} tokens and a target of {len(target)} leave no room for the context "
                    f"in a window of {self.window}; give a shorter target, or remember shorter passages"
                )
            before = np.concatenate([start, passage, context[max(0, len(context) - room) :]])
            if not len(before):
                raise InputError("there is no token before the target; give a context")
            tokens = np.concatenate([before, target[:-1]])
            made.append(Window(number, tokens, len(before) - 1, 0, target))
        return made

    def _log_prob(self, rows: Encoded, last: int) -> np.ndarray:
        """Log-probabilities (n,) of the rows' labels; the `last` of them, without a passage, are the reader's."""
        said = Softmax(rows.logits, 1.0).log_prob(as_tensor(labels_of(rows, "a target has"))).double().cpu().numpy()
        if self.reader is not None:
            heard = self.reader.predictions(rows[-last:], exclude=None)
            of_each = [now.log_prob(as_tensor(labels_of(part, "a target has"))) for part, now in heard]
            said[-last:] = torch.cat(of_each).double().cpu().numpy()
        return said

    def _probabilities(self, rows: Encoded) -> np.ndarray:
        """Of every token, (n, V); the last row's, without a passage, are the reader's."""
        said = rows.logits.probabilities().double().cpu().numpy()
        if self.reader is not None:
            said[-1] = self.reader.predict_proba(rows[-1:], exclude=None)[0]
        return said

    def _tokens(self, text: Said) -> np.ndarray:
        if isinstance(text, str):
            (given,) = encode_prompts(self.tokenizer, [text], True) if text else ([],)
        else:
            given = text
        tokens = np.asarray(given)
        if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
            given = f"tokens of shape {tokens.shape} and dtype {tokens.dtype}"
            raise InputError(f"got {given}; expected a str, or int (t,)")
        return tokens.astype(np.int64)

    def __repr__(self) -> str:
        return f"Passages({len(self.memory)} passages, k={self.k}, lmbda={self.lmbda:g}, window={self.window})"


def token(shares: np.ndarray, each: np.ndarray) -> np.ndarray:
    """RAG-Token: log Σ_z η_z p_z(y_i) of each token, (t,), of shares η (k,) and log-probabilities (k, t).

    >>> np.exp(token(np.array([0.5, 0.5]), np.log([[0.2, 0.4], [0.6, 0.8]]))).round(6).tolist()
    [0.4, 0.6]
    """
    with np.errstate(divide="ignore"):  # of a share of 0
        return np.logaddexp.reduce(np.log(shares)[:, None] + each, axis=0)


def sequence(shares: np.ndarray, each: np.ndarray) -> np.ndarray:
    """RAG-Sequence, of each token given those before it, (t,): they add up to log Σ_z η_z Π_i p_z(y_i).

    It is RAG-Token whose shares are corrected by Bayes' rule after each token.

    >>> np.exp(sequence(np.array([0.5, 0.5]), np.log([[0.2, 0.4], [0.6, 0.8]])).sum()).round(6).item()
    0.28
    """
    return np.diff(token(shares, each.cumsum(axis=1)), prepend=0.0)


def _whole(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ParameterError(f"{name}={value!r}; expected a whole number, {least} or more")
    return int(value)
