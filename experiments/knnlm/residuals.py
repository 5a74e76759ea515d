"""Table 3 of ResMem: the memory's residuals added, against its labels interpolated at every share, on one memory."""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes

import residua as rs
from experiments import figures
from experiments.knnlm.curves import COLOURS
from experiments.knnlm.domains import told
from experiments.knnlm.key_layers import part
from experiments.knnlm.language import Language
from experiments.knnlm.sweep import SETTINGS
from experiments.published import C4_KNNLM, C4_T5
from experiments.shown import interval
from experiments.table import Table
from residua.core import Encoded

PAPER = C4_T5["settings"]
TUNE_TOKENS = 4000  # a dense sweep, of V numbers a setting
K = (4, 8, 16, 32, 50, 100)
SIGMA = 2.0 ** np.arange(-3, 3)  # multiples of the typical distance, squared for the gaussian kernel


def against(settings: dict, folder: str | None) -> dict:
    """Both on one memory, of the model's own domain or of another folder's text.

    The settings have the highest accuracy on the same tokens, among equally many. ``rows``, ``tuned_on`` (tokens),
    ``base``, ``knnlm`` (one for each λ of the paper's), ``resmem`` (``paper``: its k and σ, ``accuracy`` and
    ``log_loss``: the settings best by these); each is what ``Language.evaluate`` gives.
    """
    language = Language(settings)
    texts = language.texts(folder)
    memory = part(language, texts, "ffn")
    tune = first(language.encoded(texts.tune, memory), TUNE_TOKENS)
    shares = [share for share in C4_KNNLM["lmbda"] if share > 0]

    def tuned(reader, objective: str, power: int, **more):
        grid = {"k": np.unique(np.minimum(K, len(memory))), "sigma": SIGMA * memory.median_nn_distance() ** power}
        return rs.tune(
            reader, tune, grid | {"temperature": [1.0], **more}, objective=objective, evidence=None, progress=False
        )

    found = tuned(rs.KNNLM(memory, k=1), "accuracy", 2, lmbda=shares).results_
    residuals = {"paper": rs.ResMem(memory, k=min(PAPER["k"], len(memory)), sigma=PAPER["sigma"])}
    residuals |= {objective: tuned(rs.ResMem(memory, k=1), objective, 1) for objective in ("accuracy", "log_loss")}
    rows = [language.evaluate(texts.score, rs.KNNLM(memory, **_best(found, share))) for share in shares]
    return {
        "rows": len(memory),
        "tuned_on": sum(map(len, tune)),
        "base": rows[0]["base"],
        "knnlm": rows,
        "resmem": {name: language.evaluate(texts.score, reader) for name, reader in residuals.items()},
    }


def first(batches: Iterable[Encoded], tokens: int) -> list[Encoded]:
    """The first `tokens` rows of batches, or all there are."""
    out = []
    for batch in batches:
        out.append(batch[:tokens])
        tokens -= len(batch)
        if tokens <= 0:
            break
    return out


def _best(found: dict, share: float) -> dict:
    """The settings of the best score with one share."""
    fits = np.isclose(found["lmbda"], share) & (found["k"] > 0)
    at = int(np.flatnonzero(fits)[found["score"][fits].argmax()])
    return {name: found[name][at].item() for name in SETTINGS}


def table(found: dict) -> Table:
    """Accuracies, the paper's beside."""
    base, printed, small = found["base"], [f"{value:.2f}" for value in C4_KNNLM["knnlm"]], C4_T5["small"]
    ours = f"ResMem, the paper's k {PAPER['k']}, σ {PAPER['sigma']:g}"
    rows = [
        ["λ = 0: base", printed[0], f"{base['accuracy']:.2f}", "", "", "", f"{base['perplexity']:.2f}", ""],
        *(_row(f"kNN-LM, λ = {r['settings']['lmbda']:g}", paper, r) for r, paper in zip(found["knnlm"], printed[1:])),
        _row(ours, f"{C4_KNNLM['resmem']:.2f}", found["resmem"]["paper"]),
        _row("ResMem, tuned for accuracy", "", found["resmem"]["accuracy"]),
        _row("ResMem, tuned for perplexity", "", found["resmem"]["log_loss"]),
        ["(paper, T5-small)", f"{small['resmem']:.2f}", "", "", f"{small['tpr']}", f"{small['fpr']}", "", ""],
    ]
    return Table(("", "paper, %", "accuracy, %", "gain, points", "TPR", "FPR", "perplexity", "settings"), rows)


def _row(label: str, printed: str, reader: dict) -> list[str]:
    rates = [f"{reader['accuracy']:.2f}", interval(reader["gain"]), f"{reader['tpr']:.2f}", f"{reader['fpr']:.2f}"]
    return [label, printed, *rates, f"{reader['perplexity']:.2f}", told(reader["settings"])]


def panel(axes: Axes, found: dict[str, dict]) -> None:
    """kNN-LM's accuracy over the base's at each λ, and ResMem's, of the first two corpora and of the paper."""
    paper = [value - C4_KNNLM["knnlm"][0] for value in (*C4_KNNLM["knnlm"], C4_KNNLM["resmem"])]
    series = [("paper, T5-large", list(zip(C4_KNNLM["lmbda"], paper)), paper[-1], figures.PAPER)]
    for (name, one), colour in zip(found.items(), COLOURS[:2]):
        base = one["base"]["accuracy"]
        gains = [(0.0, 0.0), *((reader["settings"]["lmbda"], reader["accuracy"] - base) for reader in one["knnlm"])]
        series.append((name, gains, one["resmem"]["accuracy"]["accuracy"] - base, colour))
    for name, gains, resmem, colour in series:
        axes.plot(*zip(*gains), "o-", ms=4, color=colour, label=f"{name}: kNN-LM")
        axes.axhline(resmem, color=colour, lw=1.6, ls="-.", label=f"{name}: ResMem ({resmem:+.2f})")
    words = "next-token accuracy over the base's, points"
    axes.set(xlabel="λ, the neighbours' share", ylabel=words, title="ResMem, Table 3")
