"""Any encoder-decoder model and pairs of texts become batches of ``Encoded``, one row per target token.

The memory of kNN-MT (Khandelwal et al. 2021, arXiv 2010.00710): keys are the decoder's states, on the whole source and
the target so far; labels are the target's tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from residua.encoding.text import column, document_id, encode_texts, iterable, report_empty
from residua.encoding.tokens import TokenEncoder, padded, position_limit
from residua.encoding.windows import WINDOW, TokenBatch, Window, batched
from residua.errors import EncodeError, InputError, ParameterError

_AT_ONCE = 256  # pairs per call of the tokenizer
_IGNORED = -100  # a label that is not one, by transformers' convention


@dataclass(frozen=True)
class PairWindow(Window):
    """One pair: `source` is the encoder's input, int64 (s,); `tokens` and `targets` are both the target's tokens."""

    source: np.ndarray


class PairEncoder(TokenEncoder):
    """An encoder-decoder language model (T5, BART, ...) and its tokenizer, ready to turn pairs into rows.

    A row is one target token, the closing eos included: its key is the decoder's state before it, its id the pair's
    (a hash of it), its column ``"offset"`` its place in the target.

    Parameters
    ----------
    model : transformers encoder-decoder model
        One that makes its decoder's input from labels (``prepare_decoder_input_ids_from_labels``).
    tokenizer : transformers tokenizer
        Called with its special tokens; an eos is added to a target that has none.
    key, logits
        As in ``TextEncoder``; ``"ffn"`` is in the decoder's last block.
    max_source, max_target : int, optional
        The most tokens of either side, by default the model's own limit, or 1024 when that is less. What is longer
        is cut, and counted in a warning.

    Raises
    ------
    EncodeError, KeyModuleError
        Not an encoder-decoder with a language-modelling head, or no such key module.
    ParameterError
        Lengths outside what the model allows.

    Examples
    --------
    >>> import torch
    >>> from transformers import T5Config, T5ForConditionalGeneration
    >>> class Letters:
    ...     eos_token_id = 1
    ...     def __call__(self, texts=None, text_target=None, **options):
    ...         return {"input_ids": [[ord(letter) for letter in text] for text in texts or text_target]}
    ...     def get_vocab(self):
    ...         return {chr(i): i for i in range(128)}
    >>> sizes = {"vocab_size": 128, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    >>> model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))
    >>> encoder = PairEncoder(model, Letters())
    >>> (batch,) = encoder.batches([("ein Haus", "a house"), ("ja", "yes")])
    >>> encoder.encode(batch), batch.offsets.tolist(), batch.labels.tolist()[-4:]
    (Encoded(12 rows, keys of 8, 128 outputs, classification), [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3], [121, 101, 115, 1])
    """

    def __init__(self, model, tokenizer, *, key="ffn", max_source=None, max_target=None, logits: bool = True):
        if not hasattr(model, "prepare_decoder_input_ids_from_labels"):
            raise EncodeError(
                f"the model is a {type(model).__name__}; expected a transformers encoder-decoder, such as T5"
            )
        limit = position_limit(model)
        self.max_source = _length("max_source", max_source, limit)
        self.max_target = _length("max_target", max_target, limit)
        super().__init__(model, tokenizer, key=key, logits=logits)

    def batches(
        self, texts, batch_size: int = 16, *, source_column: str = "source", target_column: str = "target"
    ) -> Iterator[TokenBatch]:
        """Pairs as batches of `batch_size` pairs, read lazily; no model runs.

        Parameters
        ----------
        texts : iterable of (source, target) or of dict
            Pairs of texts, or a dataset's rows.
        batch_size : int, default 16
            Pairs per forward pass.
        source_column, target_column : str
            The columns of a dataset's rows.

        Raises
        ------
        InputError
            Something is not a pair of texts, there is none, or tokens lie outside the model's vocabulary.

        Warns
        -----
        UserWarning
            At the end, when pairs were left out, a side being empty, or cut.
        """
        return batched(self._pairs(texts, source_column, target_column), batch_size)

    def _pairs(self, texts, source_column: str, target_column: str) -> Iterator[PairWindow]:
        number = empty = cut = 0
        for group in batched_pairs(texts, source_column, target_column):
            sources = encode_texts(self.tokenizer, [source for source, _ in group], add_special_tokens=True)
            targets = self._targets([target for _, target in group])
            for (source_text, target_text), source, target in zip(group, sources, targets):
                if source_text and target_text:
                    cut += len(source) > self.max_source or len(target) > self.max_target
                    source, target = _cut(source, self.max_source), _cut(target, self.max_target)
                    self._check_tokens(np.concatenate([source, target]), f"pair {number}")
                    document = document_id(source, target)
                    self.names[document] = str(number)
                    yield PairWindow(document, target, 0, 0, target, source)
                else:
                    empty += 1
                number += 1
        report_empty(empty, number)
        if cut:
            warnings.warn(
                f"{cut} of {number} pairs were cut to {self.max_source} source and {self.max_target} target tokens",
                UserWarning,
                stacklevel=2,
            )

    def _targets(self, texts: list[str]) -> list[list[int]]:
        targets = self.tokenizer(text_target=texts, verbose=False)["input_ids"]
        end = getattr(self.tokenizer, "eos_token_id", None)
        return [[*target, end] if end is not None and target[-1:] != [end] else target for target in targets]

    def _probe(self) -> list[Window]:
        tokens = np.arange(min(8, self.max_source, self.max_target)) % self.model.get_input_embeddings().weight.shape[0]
        # A source of another length: a key module in the encoder, which gives a vector per source token, is noticed.
        return [PairWindow(0, tokens, 0, 0, tokens, tokens[1:])]

    def _inputs(self, windows: list[PairWindow]) -> tuple[dict[str, Tensor], int]:
        fill = getattr(self.tokenizer, "pad_token_id", None) or 0
        source, mask = padded([window.source for window in windows], fill, self.device)
        labels, _ = padded([window.targets for window in windows], _IGNORED, self.device)
        inputs = {"input_ids": source, "decoder_input_ids": self.model.prepare_decoder_input_ids_from_labels(labels)}
        return inputs if mask is None else {**inputs, "attention_mask": mask}, labels.shape[1]


def batched_pairs(texts, source_column: str, target_column: str) -> Iterator[list[tuple[str, str]]]:
    """(source, target) texts, a few hundred at a time."""
    group = []
    for count, item in enumerate(iterable(texts, "an iterable of (source, target) pairs or of rows")):
        pair = item
        if isinstance(item, Mapping):
            pair = column(item, source_column, "source_column"), column(item, target_column, "target_column")
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise InputError(
                f"item {count} is {type(item).__name__}; expected a pair of texts (source, target), or a row"
            )
        group.append(tuple(pair))
        if len(group) == _AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _cut(tokens: list[int], length: int) -> np.ndarray:
    # The last token, which closes the text, stays.
    kept = tokens if len(tokens) <= length else [*tokens[: length - 1], tokens[-1]]
    return np.asarray(kept, dtype=np.int64)


def _length(name: str, value: int | None, limit: int | None) -> int:
    if value is None:
        return min(limit or WINDOW, WINDOW)
    if not isinstance(value, (int, np.integer)) or not 2 <= value <= (limit or value):
        raise ParameterError(f"{name}={value!r}; expected 2 to {limit or 'any number of'} tokens")
    return int(value)
