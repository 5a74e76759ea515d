"""ResMem where its paper did not look: small tables, three kinds of base, two kinds of residuals."""

import numpy as np
from scipy.stats import spearmanr

import residua as rs
from experiments import figures
from experiments.intervals import mean_interval, sign
from experiments.shown import interval
from experiments.table import Table
from experiments.tabular.bases import NAMES, bases_may_stop_early, fit
from experiments.tabular.data import REST, TASKS, TRAIN, split
from experiments.work import Work
from residua.encoding.memorised import share_of_zero_residuals
from residua.errors import ParameterError

FOLDS = 5
KINDS = {"in_sample": "in sample", "out_of_fold": "out of fold"}


def measure(
    work: Work, *, data: tuple[str, ...] = tuple(TASKS), bases: tuple[str, ...] = NAMES, splits: int = 20
) -> dict:
    """Every table under every base, over random splits.

    Parameters
    ----------
    data : tuple of str
        Tables, by the names of ``TASKS``.
    bases : tuple of str
        Bases.
    splits : int
        Random splits of each table.

    Returns
    -------
    dict
        ``rows``: one entry per table and base with ``errors`` (name -> one per split, in %), ``gain`` (kind -> [mean,
        low, high] of base's error minus ResMem's, paired over splits), ``over_label_knn`` (likewise, of label k-NN's),
        ``out_of_fold_over_in_sample`` (likewise, of ResMem in sample minus out of fold), ``refused`` (kind -> share of
        splits where tuning chose k = 0), ``temperature`` (kind -> the median one chosen with k > 0, or None) and
        ``zero`` (mean share of in-sample residuals that are nearly zero at T = 1, in %).
    """
    unknown = [*(set(data) - set(TASKS)), *(set(bases) - set(NAMES))]
    if unknown or splits < 1:
        raise ParameterError(
            f"data={','.join(data)}, bases={','.join(bases)}, splits={splits}; expected some of {', '.join(TASKS)}, "
            f"some of {', '.join(NAMES)}, and at least 1"
        )
    cells = [(name, base, seed) for name in data for base in bases for seed in range(splits)]
    measured = iter(work.map(errors, cells, desc="tabular"))
    rows = [_row(name, base, [next(measured) for _ in range(splits)]) for name in data for base in bases]
    return {"splits": splits, "folds": FOLDS, "rows": rows}


def errors(name: str, base: str, seed: int) -> dict:
    """Errors in % on one split's test rows: of the base, of ResMem with residuals in sample and out of fold (each tuned
    on the validation rows, k = 0 included), and of label k-NN on the same keys, tuned likewise.

    An error is the share of wrong answers, or the squared error as a share of the test targets' variance.
    """
    parts = split(name, seed)
    by_class = TASKS[name].task == "classification"
    model = fit(base, TASKS[name].task, *parts.train, seed)
    with bases_may_stop_early():
        like = rs.encode(model, parts.train)
        out_of_fold = rs.encode(model, parts.train, cv=FOLDS)
    validation, test = (rs.encode(model, part, like=like) for part in (parts.validation, parts.test))

    def percent(measured: float) -> float:
        return 100 * (1 - measured if by_class else measured / float(test.labels.astype(np.float64).var()))

    out = {"zero": 100 * share_of_zero_residuals(like)}
    for kind, enc in zip(KINDS, (like, out_of_fold)):
        best = rs.tune(
            rs.ResMem(rs.Memory(enc), k=1),
            validation,
            objective="accuracy" if by_class else None,
            evidence=None,
            progress=False,
        )
        # Label k-NN reads keys and labels alone, which both memories share.
        found = rs.evaluate(best, test, validation=validation if kind == "in_sample" else None, n_bootstrap=1)
        ours = percent(found.accuracy if by_class else found.mse)
        out |= {kind: ours, f"{kind}_k": best.k, f"{kind}_temperature": best.temperature}
        if kind == "in_sample":
            out["base"] = percent(found.base_accuracy if by_class else found.base_mse)
            out["label_knn"] = percent(found.label_knn_tuned)
    return out


def _row(name: str, base: str, splits: list[dict]) -> dict:
    columns = {key: np.array([found[key] for found in splits], dtype=float) for key in splits[0]}
    # Splits of one table share rows; draws of a synthetic one do not.
    overlap = 0.0 if TASKS[name].drawn else (1 - TRAIN) * (1 - REST) / TRAIN
    chosen = {kind: columns[f"{kind}_temperature"][columns[f"{kind}_k"] > 0] for kind in KINDS}

    def less(one: str, other: str):
        return mean_interval(columns[other] - columns[one], overlap)

    return {
        "data": name,
        "base": base,
        "errors": {key: columns[key] for key in ("base", *KINDS, "label_knn")},
        "gain": {kind: less(kind, "base") for kind in KINDS},
        "out_of_fold_over_in_sample": less("out_of_fold", "in_sample"),
        "over_label_knn": {kind: less(kind, "label_knn") for kind in KINDS},
        "refused": {kind: float((columns[f"{kind}_k"] == 0).mean()) for kind in KINDS},
        "temperature": {kind: float(np.median(found)) if len(found) else None for kind, found in chosen.items()},
        "zero": float(columns["zero"].mean()),
    }


def tables(results: dict) -> dict[str, Table]:
    """Errors and gains of every case, how they were come by, and how many cases went which way."""
    gains, settings = [], []
    for row in results["rows"]:
        case = f"{row['data']}, {row['base']}"
        mean = {name: f"{np.mean(values):.2f}" for name, values in row["errors"].items()}
        ours = (cell for kind in KINDS for cell in (mean[kind], interval(row["gain"][kind], bold=True)))
        gains.append((case, mean["base"], mean["label_knn"], *ours))
        better = interval(row["out_of_fold_over_in_sample"], bold=True)
        refused = " / ".join(f"{100 * row['refused'][kind]:.0f} %" for kind in KINDS)
        temperatures = (row["temperature"][kind] for kind in KINDS)
        chosen = " / ".join("-" if value is None else f"{value:.2g}" for value in temperatures)
        settings.append((case, better, refused, chosen, f"{row['zero']:.0f} %"))
    both = ("ResMem, in sample", "gain", "ResMem, out of fold", "gain")
    how = ("out of fold over in sample", "k = 0 chosen", "median T", "residuals ≈ 0")
    data = dict.fromkeys(row["data"] for row in results["rows"])
    columns = [_summarised(results["rows"], kind) for kind in KINDS]
    summary = [(words, *(column[words] for column in columns)) for words in columns[0]]
    return {
        "summary": Table(("residuals", *KINDS.values()), summary),
        "gains": Table(("data, base", "base", "label k-NN", *both), gains),
        "settings": Table(("data, base", *how), settings),
        "data": Table(("data", "task", "what it is"), [(name, TASKS[name].task, TASKS[name].about) for name in data]),
    }


def _summarised(rows: list[dict], kind: str) -> dict[str, str]:
    """How many cases went which way, with residuals of one kind."""
    gains = np.array([row["gain"][kind][0] for row in rows])
    bases = np.array([row["base"] for row in rows])
    refused = np.array([row["refused"][kind] for row in rows])
    signs = [sign(row["gain"][kind]) for row in rows]
    over = [sign(row["over_label_knn"][kind]) for row in rows]
    noise = [found for found, row in zip(signs, rows) if row["data"] == "random_labels"]
    behind = [np.mean(row["errors"]["base"]) - np.mean(row["errors"]["label_knn"]) for row in rows]
    found = spearmanr(behind, gains).statistic if len(rows) > 2 else np.nan
    return {
        "cases in which the error falls": f"{signs.count(1)} of {len(rows)}",
        "cases in which it rises": f"{signs.count(-1)} of {len(rows)}",
        **{f"mean gain, {base}": f"{gains[bases == base].mean():+.1f}" for base in dict.fromkeys(bases)},
        "better than label k-NN on the same keys": f"{over.count(1)} of {len(rows)}",
        "worse than label k-NN": f"{over.count(-1)} of {len(rows)}",
        "rank correlation of the gain with how far the base is behind label k-NN": f"{found:+.2f}",
        "gains on random labels that exclude 0": f"{np.count_nonzero(noise)} of {len(noise)}",
        "splits in which tuning chose no memory": f"{100 * refused.mean():.0f} %",
        "cases with a memory in most splits and a higher mean error": (
            f"{((refused < 0.5) & (gains < 0)).sum()} of {len(rows)}"
        ),
    }


def draw(results: dict):
    """Gains with their intervals, one panel per base, both kinds of residuals side by side."""
    rows = results["rows"]
    bases, data = (list(dict.fromkeys(row[name] for row in rows)) for name in ("base", "data"))
    size = (4.2 * len(bases) + 1.2, 0.5 * len(data) + 2.1)
    figure, axes = figures.panels(1, len(bases), size, sharey=True)
    for panel, base in zip(axes[0], bases):
        panel.axvline(0, color=figures.INK, lw=0.8)
        for row in (row for row in rows if row["base"] == base):
            at = len(data) - 1 - data.index(row["data"])
            for kind, shift, colour in zip(KINDS, (0.15, -0.15), (figures.BASE, figures.RESMEM)):
                mean, *ends = row["gain"][kind]
                filled = sign(row["gain"][kind]) != 0
                figures.dot(panel, mean, at + shift, ends, colour=colour, horizontal=True, filled=filled)
                panel.plot([], [], "o", color=colour, label=f"residuals {KINDS[kind]}")
        panel.set_title({"mlp": "small network", "boosting": "boosted trees"}.get(base, base), fontsize=11)
        panel.set_xscale("symlog", linthresh=2, linscale=1)
        ticks = (-10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 40)
        panel.set_xticks(ticks, labels=["" if abs(tick) == 1 else str(tick) for tick in ticks])
        panel.set_xlim(-15, 50)
        panel.minorticks_off()
        panel.set_xlabel("points of error removed")
    axes[0, 0].set_yticks(range(len(data)), labels=data[::-1])
    figures.legend_below(figure, axes[0])
    figure.suptitle(f"{results['splits']} splits, 95 % intervals; filled where 0 is excluded", fontsize=12)
    return figure
