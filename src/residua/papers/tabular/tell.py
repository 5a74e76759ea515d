"""Where a memory helps on small tables, and where it cannot: sentences made of the numbers."""

import numpy as np
from scipy.stats import spearmanr

from residua.papers.table import Table
from residua.papers.tabular.data import TASKS
from residua.papers.tabular.measure import KINDS

NAMES = {"in_sample": "in sample", "out_of_fold": "out of fold"}
MEMORISED = 95  # % of residuals that are nearly zero
BASES = {"linear": "the linear base", "mlp": "the small network", "boosting": "boosting"}


def tell(results: dict) -> list[str | Table]:
    """Paragraphs and tables from what ``measure.run`` returned."""
    rows = results["rows"]
    blocks = [
        "The paper reports no such tasks; its rule (eq. 3-4 for regression, 7-8 for classification) is applied as is. "
        f"{results['splits']} random splits: 60 % to train, 20 % to tune k, σ and T (k = 0, no memory, competes), 20 % "
        "to test. Errors in %: wrong answers, or squared error over the variance of the test targets. The gain is the "
        "base's error minus ResMem's, in points; residuals are of the base itself (in sample), or of clones fitted on "
        f"the other of {results['folds']} folds (out of fold). Label k-NN searches the same keys. Intervals are 95 %, "
        "paired over splits, and widened where splits share rows (Nadeau and Bengio, 2003). **Bold**: it excludes 0.",
        _table(rows),
        "Data: "
        + "; ".join(f"*{name}*, {TASKS[name].about}" for name in dict.fromkeys(row["data"] for row in rows))
        + ".",
    ]
    if results["splits"] > 1:
        blocks += ["**What this says.**", "\n".join(f"- {line}" for line in _findings(rows))]
    return blocks


def _table(rows: list[dict]) -> Table:
    columns = ["data, base", "base", "label k-NN", "ResMem, in sample", "gain", "ResMem, out of fold", "gain"]
    columns += ["out of fold over in sample", "k = 0 chosen", "residuals ≈ 0"]
    out = []
    for row in rows:
        errors = {name: f"{np.mean(values):.2f}" for name, values in row["errors"].items()}
        out.append(
            [
                f"{row['data']}, {row['base']}",
                errors["base"],
                errors["label_knn"],
                errors["in_sample"],
                _interval(row["gain"]["in_sample"]),
                errors["out_of_fold"],
                _interval(row["gain"]["out_of_fold"]),
                _interval(row["out_of_fold_over_in_sample"]),
                " / ".join(f"{100 * row['refused'][kind]:.0f} %" for kind in KINDS),
                f"{row['zero']:.0f} %",
            ]
        )
    return Table(columns, out)


def _findings(rows: list[dict]) -> list[str]:
    lines = [*(_verdict(rows, kind) for kind in KINDS), _room(rows), _by_base(rows), _folds(rows), _memorised(rows)]
    return [line for line in (*lines, _labels(rows), _chance(rows), _tuning(rows)) if line]


def _verdict(rows: list[dict], kind: str) -> str:
    better = sorted((row for row in rows if sign(row["gain"][kind]) > 0), key=lambda row: -row["gain"][kind][0])
    worse = [row for row in rows if sign(row["gain"][kind]) < 0]
    return (
        f"With residuals {NAMES[kind]}, of {len(rows)} cases the memory lowers the error significantly in {len(better)}"
        f"{_listed(better, kind)}, and raises it in {len(worse)}{_listed(worse, kind)}; in the other "
        f"{len(rows) - len(better) - len(worse)} these splits cannot tell."
    )


def _room(rows: list[dict]) -> str | None:
    behind = [np.mean(row["errors"]["base"]) - np.mean(row["errors"]["label_knn"]) for row in rows]
    gains = [row["gain"]["in_sample"][0] for row in rows]
    if len(set(behind)) < 3 or len(set(gains)) < 3:
        return None
    found = spearmanr(behind, gains).statistic
    return (
        "What there is to gain: the rank correlation, over cases, of the in-sample gain with how far the base is "
        f"behind label k-NN on the same keys is {found:+.2f}."
    )


def _by_base(rows: list[dict]) -> str:
    parts = []
    for base in dict.fromkeys(row["base"] for row in rows):
        own = [row for row in rows if row["base"] == base]
        kinds = " and ".join(f"{np.mean([row['gain'][kind][0] for row in own]):+.1f} {NAMES[kind]}" for kind in KINDS)
        parts.append(f"{BASES[base]} gains {kinds}")
    return f"By base, in points, the mean over data: {'; '.join(parts)}."


def _folds(rows: list[dict]) -> str:
    better = [row for row in rows if sign(row["out_of_fold_over_in_sample"]) > 0]
    worse = [row for row in rows if sign(row["out_of_fold_over_in_sample"]) < 0]
    return (
        f"Out-of-fold residuals are significantly better than in-sample ones in {len(better)} cases{_listed(better)}, "
        f"and worse in {len(worse)}{_listed(worse)}."
    )


def _memorised(rows: list[dict]) -> str | None:
    parts = []
    for row in (row for row in rows if row["zero"] > MEMORISED):
        gains = (f"{row['gain'][kind][0]:+.2f}{_at(row['temperature'][kind])} {NAMES[kind]}" for kind in KINDS)
        parts.append(f"{row['data']}/{row['base']} {' and '.join(gains)}")
    if not parts:
        return None
    return (
        f"Bases whose in-sample residuals are nearly all zero at T = 1 (over {MEMORISED} %): {'; '.join(parts)}. Of "
        "such residuals only a higher temperature leaves anything to read."
    )


def _at(temperature: float | None) -> str:
    return "" if temperature is None else f" (median T {temperature:.2g})"


def _labels(rows: list[dict]) -> str:
    counts = []
    for kind in KINDS:
        signs = [sign(row["over_label_knn"][kind]) for row in rows]
        counts.append(f"{NAMES[kind]} significantly better in {signs.count(1)} and worse in {signs.count(-1)}")
    return f"Against label k-NN on the same keys, ResMem is {'; '.join(counts)} of {len(rows)} cases."


def _chance(rows: list[dict]) -> str | None:
    noise = [row for row in rows if row["data"] == "random_labels"]
    if not noise:
        return None
    gains = ", ".join(f"{row['gain'][kind][0]:+.1f}" for row in noise for kind in KINDS)
    found = sum(sign(row["gain"][kind]) != 0 for row in noise for kind in KINDS)
    return (
        f"Where there is nothing to learn (random labels) the gains are {gains} points, {found} of {2 * len(noise)} "
        "significant. One interval in twenty excludes 0 by chance."
    )


def _tuning(rows: list[dict]) -> str:
    refused = np.mean([row["refused"][kind] for row in rows for kind in KINDS])
    lost = [row for row in rows if any(row["refused"][kind] < 0.5 and row["gain"][kind][0] < 0 for kind in KINDS)]
    text = f"Tuning chose no memory in {100 * refused:.0f} % of all splits."
    if lost:
        text += (
            f" It is no guarantee: in {len(lost)} cases ({_names(lost)}) a memory was used in most splits and the mean "
            "error rose, since a few validation rows can prefer a memory by luck."
        )
    return text


def sign(interval) -> int:
    """1 or -1 where an interval [mean, low, high] excludes 0, and 0 elsewhere (None is an unbounded end)."""
    _, low, high = interval
    if low is None or high is None:
        return 0
    return int(low > 0) - int(high < 0)


def _interval(interval) -> str:
    middle, low, high = (None if value is None else round(value, 2) + 0.0 for value in interval)  # no -0.00
    if low is None or high is None:
        return f"{middle:+.2f}"
    text = f"{middle:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"**{text}**" if sign(interval) else text


def _listed(rows: list[dict], kind: str | None = None) -> str:
    """In brackets, the cases and their gains of one kind."""
    named = [_names([row]) + (f" {row['gain'][kind][0]:+.1f}" if kind else "") for row in rows]
    return f" ({', '.join(named)})" if named else ""


def _names(rows: list[dict]) -> str:
    return ", ".join(f"{row['data']}/{row['base']}" for row in rows)
