"""Language models: the same verbs on text.

A row of a memory of tokens is one token of a text: its key is the model's inner state just before it, its label the
token itself, its id the document, and its column ``offset`` the place in it.

>>> import residua as rs
>>> sorted(name for name in rs.lm.__all__)
['encode', 'evaluate', 'explain', 'remember']
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from residua.core import Encoded
from residua.encoding import PairEncoder, TextEncoder, TokenBatch, text_encoder
from residua.encoding.fingerprint import source_of_module
from residua.encoding.text import foretold
from residua.encoding.windows import windows
from residua.errors import EmptyMemoryError, InputError, KeyModuleError, ParameterError
from residua.evaluation import TokenEvaluation, evaluate_tokens
from residua.explanation import TokenExplanation
from residua.explanation.tokens import explain_token
from residua.index.installed import faiss_installed
from residua.memory import Memory
from residua.memory.stream import build
from residua.readers import Reader

__all__ = ["encode", "evaluate", "explain", "remember"]


def remember(
    model,
    tokenizer,
    texts,
    out: str | os.PathLike | None = None,
    *,
    window: int | None = None,
    stride: int | None = None,
    min_context: int | None = None,
    key: str = "ffn",
    storage: str = "none",
    m: int = 128,
    temperature: float = 1.0,
    index: str = "auto",
    index_params: dict | None = None,
    overfetch: float = 4,
    key_dtype: str = "float16",
    keep_keys: bool = True,
    about: dict | None = None,
    batch_size: int = 16,
    overwrite: bool = False,
    progress: bool = True,
    **reading,
) -> Memory:
    """Remember every token of some texts, with one forward pass of the model.

    With `out` the memory is built on disk as the text streams by: it may be killed at any moment, and the same call
    goes on where it was and gives the same memory. Without `out` it is built in RAM.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model, or an encoder-decoder one, whose `texts` are then pairs (source, target).
    tokenizer : transformers.PreTrainedTokenizerBase
        The model's.
    texts : path, or iterable of str, of (name, str), of paths, or of dict
        A folder is read recursively; the rows of a ``datasets.Dataset`` have their text in ``text_column="text"``.
        One text is one document: no context reaches from one to another.
    out : path, optional
        The folder to write.
    window : int, optional
        Tokens the model sees at a time; by default its own maximum, at most 1024. ResMem's is 256, kNN-LM's 3072.
    stride, min_context : int, optional
        By how much windows advance, and the context every token but a document's first ones has at least;
        ``min_context = window - stride``. By default a quarter of the window.
    key : str, default "ffn"
        The input of the last feed-forward block, as both papers found best; ``"head"``, the input of the language
        modelling head; or any module, by dotted name, for its output (``:input`` for its input).
    storage : {"none", "top-m", "head", "full"}, default "none"
        kNN-LM and the cache read labels alone; ResMem needs what the model said: its `m` = 128 largest residuals at
        one `temperature`, or all of it, recomputed from the key (``key="head"``) or kept.
    index, index_params, overfetch : optional
        As in ``rs.Memory``, but ``"auto"`` is ``"knnlm-fast"`` (exact below 10 000 tokens, and without FAISS);
        ``"knnlm"`` is the paper's recipe, sized down where the memory is small.
    key_dtype : {"float16", "bfloat16", "float32"}, default "float16"
        How keys are kept.
    keep_keys : bool, default True
        False keeps only the index's codes of them: a fraction of the disk, but distances are the index's own.
    about : dict, optional
        More to keep with the memory, in JSON types, such as the model's name (``memory.about``).
    batch_size : int, default 16
        Windows per forward pass.
    overwrite : bool, default False
        Whether `out` may hold a memory already.
    progress : bool, default True
    **reading
        How texts are read: ``text_column``, ``glob``, ``errors`` (of undecodable bytes).

    Returns
    -------
    Memory
        Its ids are documents (``memory.names`` says which), so ``memory.forget(id)`` forgets a whole one.

    Raises
    ------
    InputError
        No text, undecodable bytes, or a tokenizer that is not the model's.
    ParameterError
        Options that do not fit each other, the model, or the unfinished build in `out`.
    KeyModuleError
        No such key module, or no output embeddings for ``key="head"``.
    MemoryFileError
        `out` holds something else, or cannot be written; what was done is kept.

    Examples
    --------
    ::

        memory = rs.lm.remember(model, tokenizer, "src/", out="mem/", window=256)
        reader = rs.tune(rs.KNNLM(memory), rs.lm.encode(model, tokenizer, "validation/", like=memory))
        print(rs.lm.evaluate(model, tokenizer, "test/", reader))
        with rs.attach(model, reader):
            model.generate(**tokenizer("def ", return_tensors="pt"))
    """
    encoder = text_encoder(
        model,
        tokenizer,
        key=key,
        window=window,
        stride=stride,
        min_context=min_context,
        logits=storage != "none",
    )
    if index == "auto":
        index = "knnlm-fast" if faiss_installed() else "exact"
    options = {"index": index, "index_params": index_params, "overfetch": overfetch, "storage": storage, "m": m}
    options |= {"temperature": temperature, "key_dtype": key_dtype}
    options["about"] = {**(about or {}), "windowing": _cut(encoder)}
    stream = encoder.batches(texts, batch_size=batch_size, **reading)
    with encoder:
        if out is not None:
            options |= {"keep_keys": keep_keys, "overwrite": overwrite, "progress": progress}
            if isinstance(encoder, TextEncoder):
                options["total"] = foretold(texts, tokenizer, **reading)
            return build(stream, encoder.encode, out, names=encoder.names, **options)
        memory = Memory((encoder.encode(batch) for batch in stream), **options)
        memory.names = dict(encoder.names)
    if not keep_keys:
        memory.drop_keys()
    return memory


def encode(
    model,
    tokenizer,
    texts,
    *,
    like: Memory | Reader | None = None,
    window: int | None = None,
    stride: int | None = None,
    min_context: int | None = None,
    key: str | None = None,
    batch_size: int = 16,
    **reading,
) -> Iterator[Encoded]:
    """Batches of tokens with their keys and the model's logits, in document order, made as they are asked for.

    What ``rs.tune`` and ``rs.explain`` take for a memory of tokens; only one batch's logits exist at a time.

    Parameters
    ----------
    model, tokenizer, texts, window, stride, min_context, batch_size, **reading
        As in ``remember``.
    like : Memory or Reader, optional
        Encode as this memory was: same windows, same key, and the same model and tokenizer, or
        ``SourceMismatchError``.
    key : str, optional
        Without `like`: as in ``remember``.

    Yields
    ------
    Encoded
        Labels are next tokens; ids are documents, the same number for the same text wherever it is read; column
        ``offset``.
    """
    memory = getattr(like, "memory", like)
    if memory is not None:
        if memory.source is None:
            raise ParameterError("like= was built from bare arrays and does not know its model or windows")
        key = key or memory.source.key
    cut = {"window": window, "stride": stride, "min_context": min_context}
    if memory is not None and not any(cut.values()):
        cut = _windowing(memory)
    try:
        encoder = text_encoder(model, tokenizer, key=key or "ffn", logits=True, **cut)
    except KeyModuleError:
        if memory is not None:  # another model, most likely
            memory.source.require(source_of_module(model, memory.source.key, memory.source.extra))
        raise
    if memory is not None:
        memory.source.require(encoder.source)

    def batches() -> Iterator[Encoded]:
        with encoder:
            for batch in encoder.batches(texts, batch_size=batch_size, **reading):
                yield encoder.encode(batch)

    return batches()


def evaluate(
    model,
    tokenizer,
    texts: Iterable,
    reader: Reader,
    *,
    window: int | None = None,
    stride: int | None = None,
    min_context: int | None = None,
    batch_size: int = 16,
    exclude_own: bool = True,
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
    progress: bool | None = None,
    **reading,
) -> TokenEvaluation:
    """Perplexity and next-token accuracy of a model with and without its memory, on texts it should not have seen.

    Parameters
    ----------
    model, tokenizer, texts, batch_size, **reading
        As in ``remember``.
    reader : Reader
        What ``rs.tune`` gave, or ``rs.KNNLM(memory)``, ``rs.ResMem(memory)``, ``rs.ContinuousCache(...)``.
    window, stride, min_context : int, optional
        By default the memory's own.
    exclude_own : bool, default True
        A document that is in the memory does not see its own rows.
    confidence, n_bootstrap, seed
        Of the intervals, which resample documents.
    progress : bool, optional

    Returns
    -------
    TokenEvaluation

    Raises
    ------
    SourceMismatchError
        The memory is another model's, layer's or tokenizer's.
    EmptyMemoryError
        Nothing is remembered.
    InputError, ParameterError
        As in ``remember``.
    """
    if not isinstance(reader, Reader):
        raise ParameterError(f"got a {type(reader).__name__} where a reader is expected, such as rs.KNNLM(memory)")
    if not len(reader.memory):
        raise EmptyMemoryError("the memory is empty, so there is nothing to evaluate; add rows to it first")
    batches = encode(
        model,
        tokenizer,
        texts,
        like=reader.memory,
        window=window,
        stride=stride,
        min_context=min_context,
        batch_size=batch_size,
        **reading,
    )
    return evaluate_tokens(
        reader,
        batches,
        exclude_own=exclude_own,
        confidence=confidence,
        n_bootstrap=n_bootstrap,
        seed=seed,
        progress=progress,
    )


def explain(model, tokenizer, text, reader: Reader, *, context: int = 12, exclude_ids=None) -> TokenExplanation:
    """Why the model and its memory predict what they do after `text`.

    Parameters
    ----------
    model, tokenizer
        Those that made the memory.
    text : str, or pair (source, target)
        What comes before the predicted token; for an encoder-decoder, the source and the target so far.
    reader : Reader
        ``rs.KNNLM`` or ``rs.ResMem``.
    context : int, default 12
        Remembered tokens shown before each neighbour's.
    exclude_ids : int or int array, optional
        Documents that are not neighbours.

    Returns
    -------
    TokenExplanation
        The retrieved contexts as text, their next tokens, distances, weights and exact contributions; ``print`` it,
        or ``.to_frame()``.

    Raises
    ------
    InputError
        When `text` is no text, or empty.
    SourceMismatchError
        The memory is another model's, layer's or tokenizer's.
    """
    pair = isinstance(text, tuple) and len(text) == 2
    if not text or not (pair or isinstance(text, str)):
        raise InputError(f"text={text!r}; expected what comes before the predicted token, a str (or a pair of them)")
    memory = reader.memory
    encoder = text_encoder(model, tokenizer, key=memory.source.key, logits=True, **_windowing(memory))
    memory.source.require(encoder.source)
    if isinstance(encoder, PairEncoder):
        (last,) = encoder.batches([text])  # the row of the closing token
    else:
        # The next token is not known: any one, as the target of the last position, whose label is then dropped.
        tokens = np.asarray([*tokenizer(text, add_special_tokens=False)["input_ids"], 0])
        last = TokenBatch([list(windows(0, tokens, encoder.windowing))[-1]])
    row = encoder.encode(last)[-1]
    row.labels = row.ids = None
    return explain_token(reader, row, exclude_ids, context=context).with_tokenizer(tokenizer)


def _cut(encoder: TextEncoder | PairEncoder) -> dict:
    """How an encoder cuts texts, in JSON types."""
    if isinstance(encoder, PairEncoder):
        return {"window": encoder.max_source}
    return encoder.windowing.to_json()


def _windowing(memory: Memory) -> dict:
    """How a memory's texts were cut, as ``text_encoder`` takes it."""
    return {name: value for name, value in memory.about.get("windowing", {}).items() if name in ("window", "stride")}
