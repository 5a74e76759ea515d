"""Figures 4 and 5 of kNN-LM: perplexity as k, the neighbours' share λ, and the kernel's width σ move."""

from matplotlib.axes import Axes

from experiments.figures import BASE, DARK, KNN, LIGHT, MIXED
from experiments.knnlm.sweep import Swept
from experiments.published import WIKITEXT103_LMBDA
from experiments.table import Table

COLOURS = (DARK, MIXED, KNN, LIGHT)  # of the model's own domain and the others


def curves(found: Swept, most: int) -> dict:
    """One setting given, the others the best there are; base at T = 1.

    Returns
    -------
    dict
        ``k`` and ``sigma`` (lists of what ``Swept.best`` gives, σ with all neighbours), ``lmbda`` (the same, at the k
        and σ that are best), ``lmbda_paper`` (with all neighbours and σ = 1), ``best`` (with nothing given).
    """
    best = found.best(temperature=1.0)
    same = {"temperature": 1.0, "k": best["k"], "sigma": best["sigma"]}
    paper = {"temperature": 1.0, "k": most, "sigma": 1.0}
    return {
        "k": [found.best(temperature=1.0, k=k) for k in found.values("k")],
        "sigma": [found.best(temperature=1.0, k=most, sigma=sigma) for sigma in found.values("sigma")],
        "lmbda": [found.best(**same, lmbda=share) for share in found.values("lmbda")],
        "lmbda_paper": [found.best(**paper, lmbda=share) for share in found.values("lmbda")],
        "best": best,
    }


def table(name: str, symbol: str, corpora: dict[str, dict]) -> Table:
    """Perplexities under one moving setting, a column for each corpus."""
    by = [{point[name]: point["perplexity"] for point in one["curves"][name]} for one in corpora.values()]
    rows = [
        [f"{value:g}", *(f"{found[value]:.2f}" if value in found else "" for found in by)]
        for value in sorted(set().union(*by))
    ]
    return Table((symbol, *corpora), rows)


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
    axes.set_xlabel("k, neighbours")
    axes.set_ylabel("perplexity")
    axes.set_title("Figure 4: kNN-LM by k, T = 1", fontsize=11)


def base_line(axes: Axes, base: float) -> None:
    """The base's perplexity, with its name below the line."""
    axes.axhline(base, color=BASE, lw=1.2)
    where = axes.get_yaxis_transform()
    axes.text(0.02, base, f"base {base:.2f}", color=BASE, va="bottom", fontsize=9, transform=where)


def shares_panel(axes: Axes, corpora: dict[str, dict]) -> None:
    """Figure 5."""
    papers = (WIKITEXT103_LMBDA["in domain"], *[WIKITEXT103_LMBDA["across domains"]] * (len(corpora) - 1))
    for (name, one), paper, colour in zip(corpora.items(), papers, COLOURS):
        base = one["base"]["perplexity"]
        points = [(p["lmbda"], 100 * (p["perplexity"] / base - 1)) for p in one["curves"]["lmbda"]]
        axes.plot(
            *zip((0, 0), *points), "o-", ms=3.5, color=colour, label=f"{name} (dotted: the paper's best λ, {paper:g})"
        )
        axes.axvline(paper, color=colour, lw=1.1, ls=":")
    axes.set_ylim(None, 30)
    axes.set_xlabel("λ, the neighbours' share")
    axes.set_ylabel("perplexity against the base's, %")
    axes.set_title("Figure 5: kNN-LM by λ, T = 1", fontsize=11)
