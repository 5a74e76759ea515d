"""Figure 2 of kNN-LM: how perplexity and the best share move with the size of the memory."""

from collections.abc import Iterator

import torch

import residua as rs
from residua.core import AbsentLogits, Encoded
from residua.papers.knnlm.language import Language, quick, searched_once
from residua.papers.knnlm.swept import sweep
from residua.papers.knnlm.texts import pairs

ROWS = 8192  # moved at a time


def at_size(settings: dict, share: float) -> dict:
    """The best reader with the first rows of the memory, that share of them; its index is trained on them.

    Returns
    -------
    dict
        ``share`` (asked for), ``rows`` (there are), and what ``Swept.best`` gives at T = 1.
    """
    language = Language(settings)
    texts = language.texts()
    whole = language.remember(pairs(texts.memory), "own")
    index = quick(settings["index"])
    first = rs.Memory(beginning(whole, share), index=index, storage="none", key_dtype=whole.schema.key_dtype)
    first.about = whole.about
    rows = len(first)
    del whole
    first = searched_once(first)
    found = sweep(first, language.encoded(texts.tune, first), language.encoded(texts.score, first))
    return {"share": share, "rows": rows, **found.best(temperature=1.0)}


def beginning(memory: rs.Memory, share: float) -> Iterator[Encoded]:
    """The first rows of a memory, that share of them."""
    end = max(1, round(share * memory.n_rows))
    for start in range(0, end, ROWS):
        rows = torch.arange(start, min(start + ROWS, end))
        labels = memory.column("label")[rows].numpy()
        yield Encoded(
            memory.keys_at(rows).numpy(),
            AbsentLogits(len(labels), memory.n_outputs),
            labels,
            memory.column("id")[rows].numpy(),
            columns={"offset": memory.column("offset")[rows].numpy()},
            source=memory.source,
            task="classification",
        )
