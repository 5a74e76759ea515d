"""The pictures of docs/concepts: ``python -m docs.figures.draw`` computes and draws all of them again, in seconds.

Each function returns a figure; nothing in it is drawn by hand.
"""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import residua as rs
from experiments.controls.figure1 import fitted, target
from experiments.figures import BASE, INK, KNN, MIXED, RESMEM, legend_below, panels
from residua.cli.digits import load_digits, train_base

HERE = Path(__file__).resolve().parent

SETTINGS = [  # k and sigma: too small, about right, too large
    [
        ("k = 1: every noise is believed", 1, 10.0),
        ("k = 7", 7, 10.0),
        ("k = 60, all: one mean for everywhere", 60, 10.0),
    ],
    [
        ("σ = 0.0005: the nearest alone counts", 60, 0.0005),
        ("σ = 0.03", 60, 0.03),
        ("σ = 1: far ones count as much", 60, 1.0),
    ],
]


def residuals() -> Figure:
    """ResMem's Figure 1: the base, its residuals, what the neighbours make of them, and the sum."""
    found = fitted(40, 3)
    x, y, at = (np.array(found[name]) for name in ("x", "y", "at"))
    base, corrected = np.array(found["base_there"]), np.array(found["resmem"])
    figure, axes = panels(1, 4, (12.6, 3.2))
    first, second, third, fourth = axes[0]
    for panel in (first, fourth):
        panel.plot(at, found["truth"], color=INK, lw=0.8, ls=":", label="truth")
        panel.plot(x, y, ".", color=INK, ms=5, label="remembered examples")
        panel.plot(at, base, color=BASE, lw=1.8, label="base")
    first.vlines(x, np.array(found["base"]), y, color=KNN, lw=0.8)
    for panel in (second, third):
        panel.axhline(0, color=BASE, lw=1.8)
        panel.vlines(x, 0, y - np.array(found["base"]), color=KNN, lw=0.8)
        panel.plot(x, y - np.array(found["base"]), ".", color=INK, ms=5)
    third.plot(at, corrected - base, color=RESMEM, lw=1.8)
    fourth.plot(at, corrected, color=RESMEM, lw=1.8, label="base + memory (ResMem)")
    first.set_title("1. a base that is too simple", fontsize=10.5)
    second.set_title("2. what it gets wrong: residuals", fontsize=10.5)
    third.set_title("3. those of the 3 nearest, weighed", fontsize=10.5)
    fourth.set_title("4. their sum", fontsize=10.5)
    legend_below(figure, [fourth])
    return figure


def answered(k: int, sigma: float | None = None, n: int = 60) -> tuple[np.ndarray, ...]:
    """Noisy rows of the curve, a straight base, and ResMem over them: x, y, the grid, base there, answers there."""
    rng = np.random.default_rng(1)
    x, at = np.sort(rng.uniform(0, 1, n)), np.linspace(0, 1, 401)
    y = target(x) + 0.12 * rng.normal(size=n)
    line = np.polynomial.Polynomial.fit(x, y, 1)
    memory = rs.Memory(rs.Encoded(x[:, None], line(x), y, task="regression"))
    said = rs.ResMem(memory, k=k, sigma=sigma).predict(rs.Encoded(at[:, None], line(at)))
    return x, y, at, line(at), said


def neighbours() -> Figure:
    """k and sigma, too small, about right, and too large, each with its error."""
    figure, axes = panels(2, 3, (12.6, 6.2), sharex=True, sharey=True)
    for line, settings in zip(axes, SETTINGS):
        for panel, (title, k, sigma) in zip(line, settings):
            x, y, at, base, said = answered(k, sigma)
            panel.plot(at, target(at), color=INK, lw=0.8, ls=":", label="truth")
            panel.plot(x, y, ".", color=INK, ms=4, label="remembered examples")
            panel.plot(at, base, color=BASE, lw=1.4, label="base")
            panel.plot(at, said, color=RESMEM, lw=1.8, label="with memory")
            error, alone = (np.mean((one - target(at)) ** 2) for one in (said, base))
            panel.set_title(f"{title}\nerror {error:.4f}; base alone {alone:.4f}", fontsize=10)
    legend_below(figure, axes[0, 0])
    return figure


def digits() -> tuple[rs.Memory, rs.Encoded]:
    """The demo's network and digits: a memory of those that it was trained on, and its test digits."""
    parts = load_digits(0)
    model = train_base(parts["train"], 0)
    train, test = (rs.encode(model, parts[name].images, parts[name].labels) for name in ("train", "test"))
    return rs.Memory(train), test


def shares() -> Figure:
    """T of ResMem and λ of kNN-LM on the digits: accuracy and log-loss over each."""
    memory, test = digits()
    k, sigma = 20, memory.median_nn_distance() / 3
    temperatures, lmbdas = 2.0 ** np.arange(-5, 5.5, 0.5), np.arange(0, 1.0001, 0.05)
    found = {
        "T": [_judged(rs.ResMem(memory, k=k, sigma=sigma, temperature=T), test) for T in temperatures],
        "λ": [_judged(rs.KNNLM(memory, k=k, lmbda=share, sigma=sigma, kernel="exponential"), test) for share in lmbdas],
    }
    alone = _judged(rs.ResMem(memory, k=0), test)
    figure, axes = panels(2, 2, (11, 6.2), sharex="col")
    for column, (name, at, colour, reader) in enumerate(
        (("T", temperatures, RESMEM, "ResMem"), ("λ", lmbdas, MIXED, "k-NN interpolation"))
    ):
        for row, (measure, place) in enumerate((("accuracy, %", 0), ("log-loss", 1))):
            panel = axes[row, column]
            panel.plot(at, [one[place] for one in found[name]], "o-", ms=3.5, color=colour, label=reader)
            panel.axhline(alone[place], color=BASE, lw=1.4, label="base")
            panel.set_ylabel(measure)
        axes[1, column].set_xlabel({"T": "T, the base softmax's temperature", "λ": "λ, the neighbours' share"}[name])
    axes[1, 0].set_xscale("log", base=2)
    axes[0, 0].set_title("ResMem: T", fontsize=10.5)
    axes[0, 1].set_title("kNN-LM: λ", fontsize=10.5)
    legend_below(figure, axes.flat)
    return figure


def _judged(reader, test: rs.Encoded) -> tuple[float, float]:
    """Accuracy in %, and log-loss."""
    p = reader.predict_proba(test)
    lost = -np.log(p[np.arange(len(test)), test.labels])
    return 100 * float((p.argmax(axis=1) == test.labels).mean()), float(lost.mean())


FIGURES = {"residuals": residuals, "neighbours": neighbours, "shares": shares}


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "residua"  # the same picture is the same file
    for name, draw in FIGURES.items():
        draw().savefig(HERE / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
