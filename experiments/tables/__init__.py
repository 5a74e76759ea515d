"""Real tables, three kinds of base: is a memory that is tuned, or an estimator that tunes itself, safe to use?"""

import numpy as np

from experiments import figures
from experiments.intervals import mean_interval
from experiments.shown import interval
from experiments.table import Table
from experiments.tables.data import TABLES
from experiments.tables.rules import AGAINST, RULES, compared, used_by_chance
from experiments.tabular.bases import NAMES
from experiments.work import Work
from residua.errors import ParameterError

SURE = 1.96  # standard errors
FEW = 200  # rows under which the estimators choose nothing
KINDS = {"classification": "points of accuracy", "regression": "points of R²"}


def measure(
    work: Work,
    *,
    data: tuple[str, ...] = tuple(TABLES),
    bases: tuple[str, ...] = NAMES,
    splits: int = 3,
    draws: int = 60,
) -> dict:
    """Every rule on every table under every base, over random splits; and on draws where a memory has nothing to add.

    Parameters
    ----------
    data : tuple of str
        Tables, by the names of ``TABLES``.
    bases : tuple of str
        Bases.
    splits : int
        Random splits of each table.
    draws : int
        Draws of a linear truth under a linear base.

    Returns
    -------
    dict
        ``cells``: one entry per table, base and split, with ``rules``: of each rule its ``score`` (accuracy or R², in
        points), ``loss`` (log-loss, or squared error as a share of the variance, × 1000), whether the memory is
        ``used``, and ``over``: of each base the gain in score and loss, the paired z of the loss, and the exact p-value
        of the accuracy, negative where it fell. ``null``: rule -> the share of draws in which the memory is used.
    """
    unknown = [*(set(data) - set(TABLES)), *(set(bases) - set(NAMES))]
    if unknown or splits < 1 or draws < 1:
        raise ParameterError(
            f"data={','.join(data)}, bases={','.join(bases)}, splits={splits}, draws={draws}; expected some of "
            f"{', '.join(TABLES)}, some of {', '.join(NAMES)}, and at least 1"
        )
    # Split by split, so that a run that is stopped has seen every table.
    cells = [(name, base, seed) for seed in range(splits) for name in data for base in bases]
    found = work.map(compared, cells, desc="tables")
    null = work.map(used_by_chance, [(seed,) for seed in range(draws)], desc="null")
    return {
        "splits": splits,
        "draws": draws,
        "cells": [
            {"data": name, "base": base, "split": seed, "task": TABLES[name].task, "rules": rules}
            for (name, base, seed), rules in zip(cells, found)
        ],
        "null": {rule: float(np.mean([one[rule] for one in null])) for rule in null[0]},
    }


def tables(results: dict) -> dict[str, Table]:
    """What each rule did to how many splits, to each kind of base and to each table; and the tables themselves."""
    out = {}
    for task in KINDS:
        cells = [cell for cell in results["cells"] if cell["task"] == task]
        if cells:
            out |= {task: _summary(cells), f"{task} by base": _by_base(cells), f"{task} by table": _by_table(cells)}
    null = [(RULES[rule], f"{100 * share:.0f} %") for rule, share in results["null"].items()]
    names = dict.fromkeys(cell["data"] for cell in results["cells"])
    data = [(name, TABLES[name].task, TABLES[name].about, TABLES[name].wheel) for name in names]
    out["null"] = Table(("rule", "draws in which it uses the memory"), null)
    out["data"] = Table(("data", "task", "what it is", "wheel"), data)
    return out


def _over(cells: list[dict], rule: str, base: str) -> dict[str, np.ndarray]:
    """The numbers of a rule over a base, each (cells,)."""
    rows = [cell["rules"][rule]["over"][base] for cell in cells]
    return {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0]}


def _mean_over_tables(cells: list[dict], values: np.ndarray) -> tuple[float, float, float]:
    """The mean, and its interval over tables: the bases and splits of one are no repetitions."""
    names = np.array([cell["data"] for cell in cells])
    return mean_interval([values[names == name].mean() for name in dict.fromkeys(names)])


def _summary(cells: list[dict]) -> Table:
    by_class, rows = cells[0]["task"] == "classification", []
    for rule, bases in AGAINST.items():
        for base in bases:
            if rule not in cells[0]["rules"] or base not in cells[0]["rules"]:
                continue
            found = _over(cells, rule, base)
            row = [f"{RULES[rule]}, over {RULES[base]}", interval(_mean_over_tables(cells, found["score"]))]
            if by_class:
                worse, better = ((found["p"] * sign > 0) & (abs(found["p"]) < 0.05) for sign in (-1, 1))
                row.append(f"{100 * worse.mean():.1f} / {100 * better.mean():.1f} %")
            row.append(f"{found['loss'].mean():+.1f}")
            row.append(f"{100 * (found['z'] < -SURE).mean():.1f} / {100 * (found['z'] > SURE).mean():.1f} %")
            row.append(f"{found['loss'].min():+.0f}")
            used = [cell["rules"][rule].get("used") for cell in cells]
            rows.append((*row, "-" if used[0] is None else f"{100 * np.mean(used):.0f} %"))
    loss = "log-loss × 1000" if by_class else "squared error × 1000"
    sure = "surely worse / better"
    columns = ["rule", KINDS[cells[0]["task"]], *([sure] if by_class else []), f"{loss}, gain", sure, "worst", "used"]
    return Table(columns, rows)


def _by_base(cells: list[dict]) -> Table:
    rows = []
    for base in dict.fromkeys(cell["base"] for cell in cells):
        own = [cell for cell in cells if cell["base"] == base]
        rows.append((base, *(interval(_mean_over_tables(own, _over(own, *pair)["score"])) for pair in SHOWN)))
    return Table(("base", *(f"{RULES[rule]}, over {RULES[against]}" for rule, against in SHOWN)), rows)


SHOWN = (("refitted", "base"), ("tune", "base"), ("tune", "refitted"), ("estimator", "refitted"))


def _by_table(cells: list[dict]) -> Table:
    shown, rows = ("base", "refitted", "knn", "tune", "estimator"), []
    for name in dict.fromkeys(cell["data"] for cell in cells):
        for base in dict.fromkeys(cell["base"] for cell in cells):
            own = [cell["rules"] for cell in cells if (cell["data"], cell["base"]) == (name, base)]
            scores = (f"{np.mean([rules[rule]['score'] for rules in own]):.1f}" for rule in shown)
            used = (sum(rules[rule]["used"] for rules in own) for rule in ("tune", "estimator"))
            rows.append((f"{name}, {base}", *scores, " / ".join(map(str, used)) + f" of {len(own)}"))
    return Table(("data, base", *(RULES[rule] for rule in shown), "used: tune / estimator"), rows)


def draw(results: dict):
    """Points over the base refitted on all rows, one panel per base: the estimator and ``tune``."""
    cells = results["cells"]
    bases, data = (list(dict.fromkeys(cell[name] for cell in cells)) for name in ("base", "data"))
    figure, axes = figures.panels(1, len(bases), (4.2 * len(bases) + 1.2, 0.26 * len(data) + 2.1), sharey=True)
    for panel, base in zip(axes[0], bases):
        panel.axvline(0, color=figures.INK, lw=0.8)
        for at, name in enumerate(reversed(data)):
            own = [cell for cell in cells if (cell["data"], cell["base"]) == (name, base)]
            for rule, colour in (("tune", figures.BASE), ("estimator", figures.RESMEM)):
                gain, used = _over(own, rule, "refitted")["score"].mean(), any(c["rules"][rule]["used"] for c in own)
                figures.dot(panel, gain, at, colour=colour, horizontal=True, filled=used)
                panel.plot([], [], "o", color=colour, label=RULES[rule])
        panel.set_title({"mlp": "small network", "boosting": "boosted trees"}.get(base, base), fontsize=11)
        panel.set_xscale("symlog", linthresh=2, linscale=1)
        ticks = (-10, -5, -2, 0, 2, 5, 10, 20, 40)
        panel.set_xticks(ticks, labels=list(map(str, ticks)))
        panel.set_xlim(-15, 50)
        panel.minorticks_off()
        panel.set_xlabel("points over the base refitted on all rows")
    axes[0, 0].set_yticks(range(len(data)), labels=data[::-1], fontsize=8)
    figures.legend_below(figure, axes[0])
    words = "points of accuracy, or of R²; filled where the memory is used in any"
    figure.suptitle(f"Means of {results['splits']} splits: {words}", fontsize=12)
    return figure
