"""Language models: the same verbs on text, in one call each.

A row of a memory of tokens is one token of a text: its key is the model's inner state just before it, its label the
token itself, its id the document, and its column ``offset`` the place in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch
from torch import nn

from residua import encoding, evaluation, explanation
from residua.core import Encoded
from residua.encoding import TextStream
from residua.encoding.decoder import has_decoder
from residua.encoding.options import ReadingOptions, StreamOptions, Text, TextOptions, Texts, Tokenizer
from residua.encoding.text import Document
from residua.errors import ParameterError, StorageError
from residua.evaluation import Evaluation
from residua.evaluation.significance import Groups
from residua.explanation import Explanation
from residua.index.nearest import faiss_installed
from residua.memory import Memory, documents
from residua.memory.build import build
from residua.memory.schema import KeyDtype
from residua.memory.storage import StorageName
from residua.readers import Gated, Reader
from residua.readers.evidence import USUAL
from residua.readers.reader import Exclude

if TYPE_CHECKING:
    from residua.hooks.drafts import Drafts

__all__ = ["draft", "encode", "evaluate", "explain", "fit", "forget", "prompt", "remember", "update"]


class RememberOptions(TextOptions, total=False):
    """What ``remember`` takes beside its own: of ``TextStream``, and of ``Memory``."""

    index_params: dict[str, Any] | None
    overfetch: float
    normalise: bool
    m: int
    temperature: float
    device: str | torch.device
    mmap: bool
    shard_rows: int
    checkpoint_every: float
    train_rows: int


class EvaluateOptions(TextOptions, total=False):
    """What ``evaluate`` takes: of ``TextStream``, and of ``rs.evaluate``."""

    validation: Encoded | Iterable[Encoded] | None
    exclude: Exclude
    groups: Groups
    label_knn: bool
    confidence: float
    n_bootstrap: int
    seed: int
    progress: bool | None


class ExplainOptions(TypedDict, total=False):
    """What ``explain`` takes, as ``rs.explain``."""

    exclude: Exclude
    context: int


def remember(
    model: nn.Module,
    tokenizer: Tokenizer,
    texts: Texts,
    out: str | os.PathLike[str] | None = None,
    *,
    storage: StorageName = "none",
    index: str = "auto",
    key_dtype: KeyDtype = "float16",
    keep_keys: bool = True,
    about: dict[str, Any] | None = None,
    overwrite: bool = False,
    together: bool = False,
    progress: bool | None = None,
    **options: Unpack[RememberOptions],
) -> Memory:
    """Remember every token of some texts, with one forward pass of the model.

    Parameters
    ----------
    model, tokenizer, texts
        As in ``rs.encode((model, tokenizer), texts)``.
    out : path, optional
        The folder in which the memory is built as the text streams by: killed at any moment, the same call goes on
        where it was and gives the same memory, whose keys stay in their files if you give ``mmap=True``. Without it, it
        is built in RAM. It may hold another one to `overwrite`.
    storage : {"none", "top-m", "head", "full"}, default "none"
        kNN-LM and the cache read labels alone; ResMem needs what the model said: its `m` = 128 largest residuals at
        one `temperature`, or all of it, recomputed from the key (``key="head"``) or kept.
    index, key_dtype, about
        As in ``Memory``, but ``"auto"`` is ``"knnlm-fast"`` (exact below 10 000 tokens, and without FAISS).
    keep_keys : bool, default True
        False keeps only the index's codes of them: a fraction of the disk, but distances are the index's own.
    together : bool, default False
        Share the work with all who make the same call into the same `out`, on this machine or on others that see the
        disk: each takes blocks of text that nobody has, what a killed one had in hand is taken by another, and all
        return the memory that one would have built alone. `texts` must be readable again.
    progress : bool, optional
        A bar: always, or never; by default only on a terminal, after a second.
    **options
        ``window``, ``stride``, ``min_context``, ``key``, ``batch_size`` and how texts are read, as in ``TextStream``;
        all others (``index_params``, ``overfetch``, ``normalise``, ``m``, ``temperature``, ...) as in ``Memory``.

    Returns
    -------
    Memory
        Its ids are documents (``memory.names`` says which), so ``memory.forget(id)`` forgets a whole one.

    Examples
    --------
    With a transformers `model` and its `tokenizer`:

    >>> import residua as rs
    >>> memory = rs.lm.remember(model, tokenizer, "src/", out="mem/", window=256)
    >>> sorted(memory.names.values())
    ['add.py', 'locks.py']
    >>> reader = rs.tune(rs.KNNLM(memory), rs.lm.encode(model, tokenizer, "validation/", like=memory))
    >>> result = rs.lm.evaluate(model, tokenizer, "test/", reader)
    >>> result.perplexity < result.base_perplexity
    True
    """
    reading, given = _split(options)
    stream = encode(model, tokenizer, texts, logits=storage != "none", progress=progress, **reading)
    given["index"] = index if index != "auto" else "knnlm-fast" if faiss_installed() else "exact"
    given |= {"storage": storage, "key_dtype": key_dtype, "about": (about or {}) | stream.about}
    if together and out is None:
        raise ParameterError("together=True builds in a folder that all see: give out=")
    if out is not None:
        given |= {"names": stream.names, "total": stream.estimate_tokens(), "progress": progress}
        given |= {"keep_keys": keep_keys, "overwrite": overwrite, "together": together}
        return build(stream.batches, stream.encode, out, **given)
    memory = Memory(stream, **given)
    if not keep_keys:
        memory.discard_keys()
    return memory


def encode(model: nn.Module, tokenizer: Tokenizer, texts: Texts, **options: Unpack[StreamOptions]) -> TextStream:
    """``rs.encode((model, tokenizer), texts, **options)``."""
    return encoding.encode((model, tokenizer), texts, **options)


def evaluate(
    model: nn.Module, tokenizer: Tokenizer, texts: Texts, reader: Reader, **options: Unpack[EvaluateOptions]
) -> Evaluation:
    """``rs.evaluate(reader, rs.encode((model, tokenizer), texts, like=reader))``; each takes the options that are its
    own (``window``, ``batch_size``, ``glob``, ... are ``encode``'s)."""
    # Without a bar, beside that of evaluate.
    reading, given = _split(options)
    data = encode(model, tokenizer, texts, like=reader, progress=False, **reading)
    return evaluation.evaluate(reader, data, **given)


def fit(
    model: nn.Module,
    tokenizer: Tokenizer,
    reader: Gated,
    texts: Texts | None = None,
    *,
    evidence: float | None = USUAL,
    progress: bool | None = None,
    **options: Unpack[ReadingOptions],
) -> Gated:
    """``reader.fit(rs.encode((model, tokenizer), texts, like=reader))``; without texts, on remembered ones.

    Some remembered documents are then read again, from their own tokens, each as if it were not remembered: no text has
    to be set aside. ``StorageError`` for a memory of pairs, which does not hold their sources. Returns the reader.

    Examples
    --------
    >>> import residua as rs
    >>> memory = rs.lm.remember(model, tokenizer, "src/", window=256)
    >>> reader = rs.lm.fit(model, tokenizer, rs.Gated(memory))
    >>> reader.evidence_.groups
    20
    """
    how: dict[str, Any] = {"like": reader, "progress": False, **options}
    if texts is None and has_decoder(model):
        raise StorageError("a memory of pairs holds what their targets say, and no sources: give texts to fit on")
    if texts is None:
        remembered: Any = documents.some(reader.memory, Document)
        stream = encode(model, tokenizer, remembered, end_of_text=False, **how)
    else:
        stream = encode(model, tokenizer, texts, **how)
    return reader.fit(stream, evidence=evidence, progress=progress)


def explain(
    model: nn.Module, tokenizer: Any, text: Text, reader: Reader, **options: Unpack[ExplainOptions]
) -> Explanation:
    """Why the model and its memory predict what they do after `text`, a str, a list of messages, or a pair (source,
    target so far): ``rs.explain`` of the state there, with its `options` (``exclude``, ``context``)."""
    query = encoding.last_row((model, tokenizer), text, like=reader)
    return explanation.explain(reader, query, tokenizer=tokenizer, **options)


def prompt(model: nn.Module, tokenizer: Tokenizer, text: Text, reader: Reader) -> dict[str, torch.Tensor]:
    """A prompt as ``model.generate`` takes it, ``input_ids`` and ``attention_mask``, int64 (1, t): with the token that
    the memory's documents begin with, so that what is generated is what ``explain`` explains.

    `text` is a str, or a list of messages to be answered; for an encoder-decoder, a source.

    Examples
    --------
    >>> import residua as rs
    >>> reader = rs.KNNLM(rs.lm.remember(model, tokenizer, "src/", window=256))
    >>> with rs.attach(model, reader):
    ...     made = model.generate(**rs.lm.prompt(model, tokenizer, "def add(", reader), max_new_tokens=3)
    >>> tokenizer.decode(made[0])
    '<|endoftext|>def add(...'
    """
    return encoding.prompt((model, tokenizer), text, like=reader)


def draft(memory: Memory | Reader, *, tokens: int = 16) -> Drafts:
    """What the memory says next, as drafts for ``model.generate``, which then runs once for several tokens.

    The longest suffix of the text so far is looked up in what the memory holds and in the text itself. As many tokens
    as it is long are drafted: each the one that followed most often. The model reads them all at once, and takes those
    that it would have said: greedy text is the same token for token (but for ties within rounding), and sampled text
    has the same distribution, with the memory attached or without.

    Parameters
    ----------
    memory : Memory or Reader
        Of text, as ``remember`` makes it; what is added or forgotten later counts from the next step on.
    tokens : int, default 16
        The most that are drafted at a time. Suffixes of up to 16 tokens are told apart.

    Returns
    -------
    residua.hooks.drafts.Drafts
        To be given as ``assistant_model``. It serves any number of calls, and keeps 8 bytes a remembered token.

    Raises
    ------
    InputError, ParameterError, MissingDependencyError

    Notes
    -----
    REST, retrieval-based speculative decoding (He et al., 2023, arXiv 2311.08252), with one draft in place of a tree,
    through transformers' assisted decoding, whose limits hold: one sequence at a time, and a cache that can be cropped;
    stopping criteria other than a length and an end token are asked after each draft, so that some tokens more than
    ``stop_strings`` allow may come.

    Examples
    --------
    >>> import residua as rs
    >>> reader = rs.KNNLM(rs.lm.remember(model, tokenizer, "src/", window=256))
    >>> with rs.attach(model, reader):
    ...     given = rs.lm.prompt(model, tokenizer, "def add(", reader)
    ...     plain = model.generate(**given, max_new_tokens=20)
    ...     drafted = model.generate(**given, max_new_tokens=20, assistant_model=rs.lm.draft(reader))
    >>> drafted.tolist() == plain.tolist()
    True
    """
    from residua.hooks.drafts import Drafts

    return Drafts(memory.memory if isinstance(memory, Reader) else memory, tokens)


def update(
    model: nn.Module,
    tokenizer: Tokenizer,
    texts: Texts,
    memory: Memory,
    *,
    missing: documents.Missing = "forget",
    replace: bool = True,
    dry_run: bool = False,
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Unpack[ReadingOptions],
) -> documents.Update:
    """Make a memory follow its documents, by name: new and changed ones are read, what is gone is forgotten.

    Only documents that say something new pass through the model. A text that is remembered under another name already
    (a moved file, a copy) is not read again. Unless ``memory.save`` follows, only the memory in RAM changes.

    Parameters
    ----------
    model, tokenizer
        Those that the memory was made by; others are refused.
    texts
        As in ``remember``, with names: the folder as it is now, or ``(name, text)`` pairs.
    memory : Memory
    missing : {"forget", "keep"}, default "forget"
        What becomes of remembered documents that are not among `texts`.
    replace : bool, default True
        False refuses texts that are not what the memory has under their names (``InputError``).
    dry_run : bool, default False
        Change nothing, and say what would be done.
    batch_size, progress
        As in ``remember``.
    **options
        How texts are read, as in ``TextStream``.

    Returns
    -------
    Update
        Names of documents ``added``, ``changed`` and ``removed``, how many are ``unchanged``, and
        ``tokens_added`` and ``tokens_forgotten``.

    Raises
    ------
    InputError
        Where no text is called like a document of the memory, which `missing` would have forgotten whole.
    SourceMismatchError, StorageError

    Examples
    --------
    >>> import residua as rs
    >>> memory = rs.lm.remember(model, tokenizer, "src/", window=256)
    >>> print(rs.lm.update(model, tokenizer, [("add.py", "def add(*terms):")], memory))
    0 documents added, 1 changed, 1 removed, 0 unchanged: 1... tokens added, 4... forgotten
    >>> memory.save("mem/")
    """
    documents.require_text(memory)
    stream = encode(model, tokenizer, texts, like=memory, progress=progress, **options)
    how: dict[str, Any] = {"like": memory, "progress": progress, "batch_size": batch_size}
    new = partial(encode, model, tokenizer, logits=memory.storage.name != "none", **how)
    return documents.update(memory, stream.documents(), new, missing=missing, replace=replace, dry_run=dry_run)


def forget(memory: Memory, *names: str) -> int:
    """Forget documents by name, all or none; how many tokens went. A text stays while another document has it, too.

    ``IdError`` where no document, or several, bear a name; ``StorageError`` for a memory of no text.
    """
    return documents.forget(memory, names)[0]


def _split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the options that are ``encode``'s, and the others."""
    reading = {name: value for name, value in options.items() if name in TextOptions.__annotations__}
    return reading, {name: value for name, value in options.items() if name not in reading}
