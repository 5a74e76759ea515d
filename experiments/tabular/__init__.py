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
    work: Work,
    *,
    data: tuple[str, ...] = tuple(TASKS),
    bases: tuple[str, ...] = NAMES,
    splits: int = 20,
) -> dict:
    """Every table under every base, over random splits.

    Parameters
    ----------
    work : Work
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
    task = TASKS[name].task
    model = fit(base, task, *parts.train, seed)
    with bases_may_stop_early():
        remembered = {
            "in_sample": rs.encode(model, parts.train),
            "out_of_fold": rs.encode(model, parts.train, cv=FOLDS),
        }
    like = remembered["in_sample"]
    validation, test = (rs.encode(model, part, like=like) for part in (parts.validation, parts.test))
    out = {"zero": 100 * share_of_zero_residuals(like)}
    for kind, enc in remembered.items():
        best = rs.tune(rs.ResMem(rs.Memory(enc), k=1), validation, progress=False)
        # Label k-NN reads keys and labels alone, which both memories share.
        found = rs.evaluate(best, test, validation=validation if kind == "in_sample" else None, n_bootstrap=1)
        base, ours = (found.base_accuracy, found.accuracy) if task == "classification" else (found.base_mse, found.mse)
        out |= {kind: _percent(ours, task, test), f"{kind}_k": best.k, f"{kind}_temperature": best.temperature}
        if kind == "in_sample":
            out |= {"base": _percent(base, task, test), "label_knn": _percent(found.label_knn_tuned, task, test)}
    return out


def _percent(measured: float, task: str, test) -> float:
    """An accuracy or a mean squared error as an error in %."""
    if task == "classification":
        return 100 * (1 - measured)
    return 100 * measured / float(test.labels.astype(np.float64).var())


def _row(name: str, base: str, splits: list[dict]) -> dict:
    columns = {key: np.array([found[key] for found in splits], dtype=float) for key in splits[0]}
    # Splits of one table share rows; draws of a synthetic one do not.
    overlap = 0.0 if TASKS[name].drawn else (1 - TRAIN) * (1 - REST) / TRAIN
    chosen = {kind: columns[f"{kind}_temperature"][columns[f"{kind}_k"] > 0] for kind in KINDS}
    return {
        "data": name,
        "base": base,
        "errors": {key: columns[key] for key in ("base", *KINDS, "label_knn")},
        "gain": {kind: mean_interval(columns["base"] - columns[kind], overlap) for kind in KINDS},
        "out_of_fold_over_in_sample": mean_interval(columns["in_sample"] - columns["out_of_fold"], overlap),
        "over_label_knn": {kind: mean_interval(columns["label_knn"] - columns[kind], overlap) for kind in KINDS},
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
        temperatures = (row["temperature"][kind] for kind in KINDS)
        settings.append(
            (
                case,
                interval(row["out_of_fold_over_in_sample"], bold=True),
                " / ".join(f"{100 * row['refused'][kind]:.0f} %" for kind in KINDS),
                " / ".join("-" if value is None else f"{value:.2g}" for value in temperatures),
                f"{row['zero']:.0f} %",
            )
        )
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
    gains = [row["gain"][kind] for row in rows]
    over = [sign(row["over_label_knn"][kind]) for row in rows]
    noise = [sign(row["gain"][kind]) != 0 for row in rows if row["data"] == "random_labels"]
    behind = [np.mean(row["errors"]["base"]) - np.mean(row["errors"]["label_knn"]) for row in rows]
    found = spearmanr(behind, [gain[0] for gain in gains]).statistic if len(rows) > 2 else np.nan
    lost = [row["refused"][kind] < 0.5 and row["gain"][kind][0] < 0 for row in rows]

    def of_base(base: str) -> str:
        return f"{np.mean([row['gain'][kind][0] for row in rows if row['base'] == base]):+.1f}"

    return {
        "cases in which the error falls": f"{sum(sign(gain) > 0 for gain in gains)} of {len(rows)}",
        "cases in which it rises": f"{sum(sign(gain) < 0 for gain in gains)} of {len(rows)}",
        **{f"mean gain, {base}": of_base(base) for base in dict.fromkeys(row["base"] for row in rows)},
        "better than label k-NN on the same keys": f"{over.count(1)} of {len(rows)}",
        "worse than label k-NN": f"{over.count(-1)} of {len(rows)}",
        "rank correlation of the gain with how far the base is behind label k-NN": f"{found:+.2f}",
        "gains on random labels that exclude 0": f"{sum(noise)} of {len(noise)}",
        "splits in which tuning chose no memory": f"{100 * np.mean([row['refused'][kind] for row in rows]):.0f} %",
        "cases with a memory in most splits and a higher mean error": f"{sum(lost)} of {len(rows)}",
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
                label = f"residuals {KINDS[kind]}"
                filled = sign(row["gain"][kind]) != 0
                figures.dot(panel, mean, at + shift, ends, colour=colour, horizontal=True, filled=filled)
                panel.plot([], [], "o", color=colour, label=label)
        panel.set_title({"mlp": "small network", "boosting": "boosted trees"}.get(base, base), fontsize=11)
        panel.set_xscale("symlog", linthresh=2, linscale=1)
        ticks = {-10: "-10", -5: "-5", -2: "-2", -1: "", 0: "0", 1: "", 2: "2", 5: "5", 10: "10", 20: "20", 40: "40"}
        panel.set_xticks(list(ticks), labels=list(ticks.values()))
        panel.set_xlim(-15, 50)
        panel.minorticks_off()
        panel.set_xlabel("points of error removed")
    axes[0, 0].set_yticks(range(len(data)), labels=data[::-1])
    figures.legend_below(figure, axes[0])
    figure.suptitle(f"{results['splits']} splits, 95 % intervals; filled where 0 is excluded", fontsize=12)
    return figure
