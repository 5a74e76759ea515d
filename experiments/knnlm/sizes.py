"""Figure 2 of kNN-LM: how perplexity and the best share move with the size of the memory."""

from collections.abc import Iterator

import torch
from matplotlib.axes import Axes

import residua as rs
from experiments.figures import DARK, beside
from experiments.knnlm.curves import base_line
from experiments.knnlm.language import Language, quick, searched_once
from experiments.knnlm.sweep import sweep
from experiments.knnlm.texts import pairs
from experiments.table import Table
from residua.core import AbsentLogits, Encoded

ROWS = 8192  # moved at a time


def at_size(settings: dict, share: float) -> dict:
    """The best reader with the first rows of the memory, that share of them; its index is trained on them.

    ``share`` (asked for), ``rows`` (there are), and what ``Swept.best`` gives at T = 1.
    """
    language = Language(settings)
    texts = language.texts()
    whole = language.remember(pairs(texts.memory), "own")
    index = quick(settings["index"])
    first = rs.Memory(beginning(whole, share), index=index, storage="none", key_dtype=whole.schema.key_dtype)
    first.about = whole.about
    del whole
    best = sweep(searched_once(first), *language.sets(texts, first)).best(temperature=1.0)
    return {"share": share, "rows": len(first), **best}


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


def table(found: list[dict]) -> Table:
    """One row for each size."""
    rows = []
    for one in found:
        settings = f"{one['lmbda']:.2f}", f"{one['k']}", f"{one['sigma']:.3g}"
        rows.append([f"{100 * one['share']:g} %", f"{one['rows']:,}", f"{one['perplexity']:.2f}", *settings])
    return Table(("memory", "tokens", "perplexity", "best λ", "best k", "best σ"), rows)


def panel(axes: Axes, sizes: list[dict], base: float) -> None:
    """Perplexity by size, with the best λ at each point."""
    rows = [one["rows"] for one in sizes]
    base_line(axes, base)
    axes.plot(rows, [one["perplexity"] for one in sizes], "o-", color=DARK)
    for one in sizes:
        beside(axes, one["rows"], one["perplexity"], f"λ {one['lmbda']:.2f}", at=(8, 5))
    axes.set_xscale("log")
    axes.set_xticks(rows, labels=[f"{row / 1000:,.0f} k" for row in rows])
    axes.minorticks_off()
    axes.margins(x=0.12)
    title = "Figure 2: kNN-LM by the memory's size, with the best λ"
    axes.set(xlabel="tokens remembered", ylabel="perplexity", title=title)
