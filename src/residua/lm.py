"""Language models: the same verbs on text, in one call each.

A row of a memory of tokens is one token of a text: its key is the model's inner state just before it, its label the
token itself, its id the document, and its column ``offset`` the place in it.
"""

import os

from residua import encoding, evaluation, explanation
from residua.encoding import PairEncoder, TextEncoder, TextStream
from residua.index.nearest import faiss_installed
from residua.memory import Memory
from residua.memory.build import build

__all__ = ["encode", "evaluate", "explain", "remember"]

READING = ("window", "stride", "min_context", "key", "batch_size", *TextEncoder.reading, *PairEncoder.reading)


def remember(
    model,
    tokenizer,
    texts,
    out: str | os.PathLike | None = None,
    *,
    storage: str = "none",
    index: str = "auto",
    key_dtype: str = "float16",
    keep_keys: bool = True,
    about: dict | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    **options,
) -> Memory:
    """Remember every token of some texts, with one forward pass of the model.

    Parameters
    ----------
    model, tokenizer, texts
        As in ``rs.encode((model, tokenizer), texts)``.
    out : path, optional
        The folder in which the memory is built as the text streams by: killed at any moment, the same call goes on
        where it was and gives the same memory. Without it, it is built in RAM. It may hold another one to `overwrite`.
    storage : {"none", "top-m", "head", "full"}, default "none"
        kNN-LM and the cache read labels alone; ResMem needs what the model said: its `m` = 128 largest residuals at
        one `temperature`, or all of it, recomputed from the key (``key="head"``) or kept.
    index, key_dtype, about
        As in ``Memory``, but ``"auto"`` is ``"knnlm-fast"`` (exact below 10 000 tokens, and without FAISS).
    keep_keys : bool, default True
        False keeps only the index's codes of them: a fraction of the disk, but distances are the index's own.
    progress : bool, optional
        A bar: always, or never; by default only on a terminal, after a second.
    **options
        ``window``, ``stride``, ``min_context``, ``key``, ``batch_size`` and how texts are read, as in ``TextStream``;
        all others (``index_params``, ``overfetch``, ``m``, ``temperature``, ...) as in ``Memory``.

    Returns
    -------
    Memory
        Its ids are documents (``memory.names`` says which), so ``memory.forget(id)`` forgets a whole one.

    Examples
    --------
    ::

        memory = rs.lm.remember(model, tokenizer, "src/", out="mem/", window=256)
        reader = rs.tune(rs.KNNLM(memory), rs.lm.encode(model, tokenizer, "validation/", like=memory))
        print(rs.lm.evaluate(model, tokenizer, "test/", reader))
    """
    stream = encode(model, tokenizer, texts, logits=storage != "none", progress=progress, **_reading(options))
    options["index"] = index if index != "auto" else "knnlm-fast" if faiss_installed() else "exact"
    options |= {"storage": storage, "key_dtype": key_dtype, "about": (about or {}) | stream.about}
    if out is not None:
        options |= {"names": stream.names, "total": stream.estimate_tokens(), "progress": progress}
        return build(stream.batches(), stream.encode, out, keep_keys=keep_keys, overwrite=overwrite, **options)
    memory = Memory(stream, **options)
    if not keep_keys:
        memory.discard_keys()
    return memory


def encode(model, tokenizer, texts, **options) -> TextStream:
    """``rs.encode((model, tokenizer), texts, **options)``."""
    return encoding.encode((model, tokenizer), texts, **options)


def evaluate(model, tokenizer, texts, reader, **options):
    """``rs.evaluate(reader, rs.encode((model, tokenizer), texts, like=reader))``; each takes the options that are its
    own (``window``, ``batch_size``, ``glob``, ... are ``encode``'s)."""
    # Without a bar, beside that of evaluate.
    data = encode(model, tokenizer, texts, like=reader, progress=False, **_reading(options))
    return evaluation.evaluate(reader, data, **options)


def explain(model, tokenizer, text, reader, **options):
    """Why the model and its memory predict what they do after `text`, a str or a pair (source, target so far):
    ``rs.explain`` of the state there, with its `options` (``exclude``, ``context``)."""
    query = encoding.last_row((model, tokenizer), text, like=reader)
    return explanation.explain(reader, query, tokenizer=tokenizer, **options)


def _reading(options: dict) -> dict:
    """Those of the options that are ``encode``'s, taken out."""
    return {name: options.pop(name) for name in READING if name in options}
