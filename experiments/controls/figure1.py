"""ResMem's Figure 1, with numbers: a straight line through a curve, its residuals, and their nearest neighbours."""

import numpy as np
from matplotlib.axes import Axes

import residua as rs
from experiments.figures import BASE, INK, RESMEM

NOISE = 0.05


def target(x: np.ndarray) -> np.ndarray:
    """A line, and a wave that no line follows."""
    return x + 0.35 * np.sin(9 * x)


def fitted(n: int, k: int) -> dict:
    """Training rows ``x`` and ``y``, the ``base`` (least squares) there; on a grid ``at`` the ``truth``, ``base_there``
    and ``resmem``; and mean squared errors on it."""
    rng = np.random.default_rng(0)
    x, at = np.sort(rng.uniform(0, 1, n)), np.linspace(0, 1, 201)
    y = target(x) + NOISE * rng.normal(size=n)
    line = np.polynomial.Polynomial.fit(x, y, 1)
    memory = rs.Memory(rs.Encoded(x[:, None], line(x), y, task="regression"))
    said = rs.ResMem(memory, k=k).predict(rs.Encoded(at[:, None], line(at)))
    truth, base = target(at), line(at)
    errors = {"base_mse": float(np.mean((base - truth) ** 2)), "mse": float(np.mean((said - truth) ** 2))}
    there = {"at": at.tolist(), "truth": truth.tolist(), "base_there": base.tolist(), "resmem": said.tolist()}
    return {"x": x.tolist(), "y": y.tolist(), "base": line(x).tolist(), "k": k, **there, **errors}


def panels(axes: tuple[Axes, Axes, Axes], found: dict) -> None:
    """(a) the base, (b) its residuals, (c) what the neighbours make of them, as the paper draws them."""
    x, y, at = (np.array(found[name]) for name in ("x", "y", "at"))
    first, second, third = axes
    first.plot(x, y, ".", color=INK, label="training rows")
    first.plot(at, found["base_there"], color=BASE, label="base")
    first.plot(at, found["resmem"], color=RESMEM, label="ResMem")
    first.plot(at, found["truth"], color=INK, lw=0.8, ls=":", label="truth")
    first.set_title("Figure 1: (a) the base, and ResMem")
    residuals = y - np.array(found["base"])
    for panel, title in ((second, "(b) the base's residuals"), (third, f"(c) their {found['k']} nearest neighbours")):
        panel.axhline(0, color=BASE, lw=1)
        panel.plot(x, residuals, ".", color=INK)
        panel.set_title(title)
    third.plot(at, np.array(found["resmem"]) - np.array(found["base_there"]), color=RESMEM)
