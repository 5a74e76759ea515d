"""Figures 4 and 5 of kNN-LM: perplexity as k, the neighbours' share λ, and the kernel's width σ move."""

from matplotlib.axes import Axes

from experiments.figures import BASE, DARK, KNN, LIGHT, MIXED
from experiments.knnlm.sweep import Swept
from experiments.published import WIKITEXT103_LMBDA
from experiments.table import Table

COLOURS = (DARK, MIXED, KNN, LIGHT)  # of the model's own domain and the others


def curves(found: Swept, most: int) -> dict:
    """One setting given, the others the best there are; base at T = 1.

    ``k`` and ``sigma`` (lists of what ``Swept.best`` gives, σ with all neighbours), ``lmbda`` (the same, at the k and σ
    that are best), ``lmbda_paper`` (with all neighbours and σ = 1), ``best`` (with nothing given).
    """
    best = found.best(temperature=1.0)

    def by(name: str, **fixed) -> list[dict]:
        return [found.best(temperature=1.0, **fixed, **{name: value}) for value in found.values(name)]

    return {
        "k": by("k"),
        "sigma": by("sigma", k=most),
        "lmbda": by("lmbda", k=best["k"], sigma=best["sigma"]),
        "lmbda_paper": by("lmbda", k=most, sigma=1.0),
        "best": best,
    }


def table(name: str, symbol: str, corpora: dict[str, dict]) -> Table:
    """Perplexities under one moving setting, a column for each corpus."""
    by = [{point[name]: f"{point['perplexity']:.2f}" for point in one["curves"][name]} for one in corpora.values()]
    values = sorted(set().union(*by))
    return Table((symbol, *corpora), [[f"{value:g}", *(found.get(value, "") for found in by)] for value in values])


def widths_table(name: str, one: dict) -> Table:
    """Perplexity and the best λ by σ, of one corpus."""
    points = one["curves"]["sigma"]
    rows = [[f"{point['sigma']:.3g}", f"{point['perplexity']:.2f}", f"{point['lmbda']:.2f}"] for point in points]
    return Table((f"σ, {name}", "perplexity", "best λ"), rows)


def neighbours_panel(axes: Axes, own: dict) -> None:
    """Figure 4."""
    points = own["curves"]["k"]
    base_line(axes, own["base"]["perplexity"])
    axes.plot([p["k"] for p in points], [p["perplexity"] for p in points], "o-", color=DARK)
    axes.set_xscale("log", base=2)
    axes.set_xticks([p["k"] for p in points], labels=[str(p["k"]) for p in points], fontsize=9)
    axes.minorticks_off()
    axes.set(xlabel="k, neighbours", ylabel="perplexity", title="Figure 4: kNN-LM by k, T = 1")


def base_line(axes: Axes, base: float) -> None:
    """The base's perplexity, with its name below the line."""
    axes.axhline(base, color=BASE, lw=1.2)
    where = axes.get_yaxis_transform()
    axes.text(0.02, base, f"base {base:.2f}", color=BASE, va="bottom", fontsize=9, transform=where)


def shares_panel(axes: Axes, corpora: dict[str, dict]) -> None:
    """Figure 5."""
    for i, ((name, one), colour) in enumerate(zip(corpora.items(), COLOURS)):
        paper = WIKITEXT103_LMBDA["across domains" if i else "in domain"]
        base = one["base"]["perplexity"]
        points = [(p["lmbda"], 100 * (p["perplexity"] / base - 1)) for p in one["curves"]["lmbda"]]
        label = f"{name} (dotted: the paper's best λ, {paper:g})"
        axes.plot(*zip((0, 0), *points), "o-", ms=3.5, color=colour, label=label)
        axes.axvline(paper, color=colour, lw=1.1, ls=":")
    axes.set_ylim(None, 30)
    title = "Figure 5: kNN-LM by λ, T = 1"
    axes.set(xlabel="λ, the neighbours' share", ylabel="perplexity against the base's, %", title=title)
