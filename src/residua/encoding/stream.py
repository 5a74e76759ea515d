"""Texts before a language model: batches of tokens, encoded anew each time that they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Unpack

from torch import Tensor, nn

from residua.core import Encoded, Names, Source
from residua.encoding.causal import TextEncoder, windowing_of
from residua.encoding.decoder import has_decoder
from residua.encoding.documents import Reading
from residua.encoding.fingerprint import source_of_module
from residua.encoding.language_model import LanguageEncoder, position_limit
from residua.encoding.options import Known, ReadingOptions, Text, Texts, Tokenizer, known_by
from residua.encoding.pairs import PairEncoder
from residua.encoding.text import Document, estimate_tokens
from residua.encoding.windows import TokenBatch, Windowing
from residua.errors import EncodeError, InputError, KeyModuleError, ParameterError
from residua.progress import progress_bar


class TextStream:
    """What ``rs.encode((model, tokenizer), texts)`` gives: an iterable of ``Encoded`` batches, in document order.

    Every token is a row once: its key is the model's state just before it, its label the token itself, its id the
    document (a hash of its tokens, so the same text has the same id wherever it is read), and its column ``"offset"``
    its place there. Only one batch exists at a time, and the whole can be iterated again wherever `texts` can.

    Parameters
    ----------
    model, tokenizer : transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase
        A causal language model, or an encoder-decoder one, whose `texts` are then pairs (source, target).
    texts : path, iterable of str, of (name, str), of os.PathLike or of dict, or table
        One text is one document: no context reaches from one to another. A str alone is the path of a file or folder,
        in a list it is a text. A list of messages (``{"role": ..., "content": ...}``) in it, or in a dataset's row, is
        a conversation, read by the tokenizer's chat template. A table is a data frame of any library, or a dict of
        columns; its texts, and those of a dataset's rows, are in `text_column`. What could be two things is an
        ``InputError``.
    key : str, optional
        ``"ffn"`` (the default), the input of the last feed-forward block, as both papers found best; ``"head"``, the
        input of the language modelling head; or any module, by dotted name, for its output (``:input`` for its input).
    window : int, optional
        Tokens the model sees at a time; by default its own maximum, at most 1024. ResMem's is 256, kNN-LM's 3072.
        Of pairs, the most tokens of either side.
    stride, min_context : int, optional
        By how much windows advance, and the context every token but a document's first ones has at least;
        ``min_context = window - stride``. By default a quarter of the window. Not for pairs, which are read whole.
    end_of_text : bool, default True
        The tokenizer's eos is a row after each text, so that generation with the memory ends where texts do. False for
        pieces of longer texts. Pairs always have it.
    split_special_tokens : bool, default True
        What looks like a special token in a text (``<|endoftext|>`` in a file) is text. Of pairs: it is a token.
    like, batch_size, progress
        As in ``rs.encode``; the two above are then those of what is encoded alike.
    logits : bool, default True
        False leaves the head out: enough for a memory of labels.
    text_column, name_column : str
        Columns of a table: of the texts, by default ``"text"``, and of their names, by default their numbers.
    glob : str, default "**/*"
        Which files of a folder. A file's name is its path inside the folder given, with ``/``; of several paths that
        follow each other, inside the folder that holds them all; or inside `root`.
    root : path, optional
        The folder that files' names begin at, for names as those of an earlier call.
    hidden : bool, default False
        Also the files of a folder that are hidden (``.git``), or ignored by git (``.gitignore``).
    errors : {"strict", "replace", "skip"}, default "strict"
        Of files that are no UTF-8 (or UTF-16 with a byte-order mark): refuse, read U+FFFD, or leave them out, and those
        that cannot be read, and count them in a warning. Binary files of a folder are left out and counted always.
    source_column, target_column : str
        Columns of a table of pairs, by default ``"source"`` and ``"target"``.

    Attributes
    ----------
    source, key, n_outputs : Source, str, int
        Whose keys they are, from which module, and the width V of the model's logits.
    names : Names, a dict of int to str
        The documents' names by id, filled while they are read; texts that are the same share an id.
    windowing, about : dict
        How texts were cut: ``window``, ``stride``, ``prefix`` and ``suffix`` (the tokens before and after each
        document), ``split_special_tokens``; of pairs, ``window``.
        And what the memory keeps of it, ``{"windowing": windowing}``.

    Raises
    ------
    EncodeError, KeyModuleError, ParameterError, SourceMismatchError

    Examples
    --------
    >>> import residua as rs, torch
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> class Letters:
    ...     bos_token_id = 0
    ...     def __call__(self, texts, **options):
    ...         return {"input_ids": [[ord(letter) for letter in text] for text in texts]}
    ...     def get_vocab(self):
    ...         return {chr(i): i for i in range(128)}
    >>> sizes = {"vocab_size": 128, "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 16}
    >>> model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    >>> stream = rs.encode((model, Letters()), [("first", "def f(x):"), ("second", "import os")])
    >>> stream
    TextStream(GPT2LMHeadModel, key 'transformer.h.0.mlp.c_fc:input', window 16, stride 12, prefix 0)
    >>> [len(batch) for batch in stream], [len(batch) for batch in stream], list(stream.names.values())
    ([18], [18], ['first', 'second'])
    """

    encoder: LanguageEncoder
    texts: Texts
    batch_size: int
    progress: bool | None
    reading: dict[str, Any]
    source: Source
    key: str
    n_outputs: int
    names: Names
    sizes: dict[int, int]
    windowing: dict[str, Any]
    about: dict[str, Any]

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        texts: Texts,
        *,
        key: str | None = None,
        window: int | None = None,
        stride: int | None = None,
        min_context: int | None = None,
        end_of_text: bool | None = None,
        split_special_tokens: bool | None = None,
        like: Known | None = None,
        batch_size: int | None = None,
        logits: bool = True,
        progress: bool | None = None,
        **reading: Unpack[ReadingOptions],
    ):
        cut: dict[str, Any] = {"window": window, "stride": stride, "min_context": min_context}
        cut |= {"end_of_text": end_of_text, "split_special_tokens": split_special_tokens}
        self.encoder = text_encoder(model, tokenizer, key=key, logits=logits, like=like, **cut)
        unknown = sorted(reading.keys() - set(self.encoder.reading))
        if unknown:
            raise ParameterError(f"unexpected {unknown[0]}=; these texts are read with {self.encoder.reading}")
        self.texts, self.batch_size, self.progress = texts, batch_size or 16, progress
        self.reading = dict(reading)
        self.source, self.key, self.n_outputs = self.encoder.source, self.encoder.key, self.encoder.n_outputs
        self.names, self.sizes, self.windowing = self.encoder.names, self.encoder.sizes, self.encoder.cut
        self.about = {"windowing": self.windowing}
        self._used_up = False

    def __iter__(self) -> Iterator[Encoded]:
        with progress_bar(self.progress, desc="encode", unit="token", unit_scale=True) as bar:
            bar.total = None if bar.disable else self.estimate_tokens()
            for batch in self.batches():
                yield self.encode(batch)
                bar.update(len(batch))

    def batches(self) -> Iterator[TokenBatch]:
        """Batches whose ``labels``, ``ids``, ``offsets`` and length are known, before the model has run.

        ``InputError`` for texts that cannot be read, now or again, or hold nothing to predict or unknown tokens; a
        warning at the end when some were left out or cut.
        """
        if self._used_up:
            what = f"the texts are a {type(self.texts).__name__}, which can be read once, and it was"
            raise InputError(f"{what}; pass a list, a path or a dataset to read them again")
        self._used_up = isinstance(self.texts, Iterator)
        yield from self.encoder.batches(self.texts, self.batch_size, **self.reading)

    def documents(self) -> Iterator[Document]:
        """The texts' names, ids and tokens, in order; no model runs. ``InputError`` for pairs of texts."""
        if not isinstance(self.encoder, TextEncoder):
            raise InputError("an encoder-decoder reads pairs, which are no documents with names")
        return self.encoder.documents(self.texts, **self.reading)

    def encode(self, batch: TokenBatch) -> Encoded:
        """One of ``batches``, by one forward pass of the model, which is left as it was."""
        return self.encoder.encode(batch)

    def estimate_tokens(self) -> int | None:
        """About how many rows there are; None where that is not known before the texts are read."""
        if isinstance(self.encoder, PairEncoder):
            return None
        ends = int(self.windowing["suffix"] is not None)
        return estimate_tokens(self.texts, self.encoder.tokenizer, Reading(**self.reading), ends)

    def __repr__(self) -> str:
        numbers = ((name, value) for name, value in self.windowing.items() if type(value) is int)
        cut = ", ".join(f"{name} {value}" for name, value in numbers)
        return f"TextStream({self.source.name}, key {self.key!r}, {cut})"


def last_row(model: tuple[nn.Module, Tokenizer], text: Text, *, like: Known | None = None) -> Encoded:
    """The state after a prompt, as the one row that ``rs.explain`` and a reader take, without label and id.

    `model` is a pair (language model, tokenizer), `text` what comes before the predicted token (for an
    encoder-decoder, the source and the target so far); `like` is that of ``TextStream``.
    """
    encoder = text_encoder(*model, like=like)
    row = encoder.encode(encoder.last_row(text))[-1]
    row.labels = row.ids = None
    return row


def prompt(model: tuple[nn.Module, Tokenizer], text: Text, *, like: Known | None = None) -> dict[str, Tensor]:
    """What ``generate`` takes to go on from a prompt: ``input_ids`` and ``attention_mask``, int64 (1, t).

    The model then sees what it saw at the beginning of a document that was encoded like `like`, and what ``last_row``
    sees: the token before a document, which a tokenizer by itself may not put there, and no special token in the text.
    Parameters are those of ``last_row``; for an encoder-decoder, `text` is a source.
    """
    return text_encoder(*model, like=like).prompt(text)


def text_encoder(
    model: nn.Module,
    tokenizer: Tokenizer,
    *,
    key: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    min_context: int | None = None,
    end_of_text: bool | None = None,
    split_special_tokens: bool | None = None,
    logits: bool = True,
    like: Known | None = None,
) -> LanguageEncoder:
    """A ``PairEncoder`` for an encoder-decoder, else a ``TextEncoder``; parameters are those of ``TextStream``."""
    if not callable(tokenizer):
        what = f"got a {type(model).__name__} with a {type(tokenizer).__name__}"
        raise EncodeError(f"{what}; expected a pair (language model, tokenizer)")
    encoder: LanguageEncoder
    known = known_by(like)
    windowing = known.windowing if known else {}
    key = key or (known.source.key if known else "ffn")
    longest = window  # of a target
    if window is None and stride is None and min_context is None:
        window, stride = windowing.get("window"), windowing.get("stride")
        longest = windowing.get("max_target", window)
    try:
        if has_decoder(model):
            if stride is not None or min_context is not None:
                raise ParameterError("stride= and min_context= cut long texts; an encoder-decoder reads pairs whole")
            if end_of_text is False or split_special_tokens:
                raise ParameterError("end_of_text= and split_special_tokens= are not for an encoder-decoder's pairs")
            encoder = PairEncoder(model, tokenizer, key=key, max_source=window, max_target=longest, logits=logits)
        else:
            choices = {"end_of_text": end_of_text, "split_special_tokens": split_special_tokens}
            around = windowing_of(tokenizer, windowing, **choices)
            cut = Windowing.of(window, stride, min_context, limit=position_limit(model), **around)
            encoder = TextEncoder(model, tokenizer, key=key, windowing=cut, logits=logits)
    except KeyModuleError:
        if known:  # another model, most likely
            known.source.require(source_of_module(model, known.source.key, known.source.extra))
        raise
    if known:
        known.source.require(encoder.source)
    return encoder
