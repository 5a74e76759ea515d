"""Corrected and introduced confusions, as tables."""

from residua.papers.published import CIFAR100_EXAMPLES, CIFAR100_RESNET8
from residua.papers.table import Table


def tell(results: dict) -> list[str | Table]:
    """Paragraphs and tables from what ``find.run`` returned."""
    n, rows = results["n"], results["confusions"]
    settings = CIFAR100_RESNET8["settings"]
    named = [" / ".join(pair) for pair in CIFAR100_EXAMPLES["confusions"]]
    corrected, introduced = results["corrected"], results["introduced"]
    return [
        f"ResMem at the paper's settings (k = {settings['k']}, σ = {settings['sigma']}, T = {settings['temperature']}) "
        f"corrects {corrected:,} of {n:,} test images ({100 * corrected / n:.2f} %) and breaks {introduced:,} "
        f"({100 * introduced / n:.2f} %). A row counts two classes taken for each other, in both directions: "
        "the base's errors of that kind, how many of them are corrected, how many are introduced. The list holds "
        f"the pairs most often corrected, those most often introduced, and the paper's ({'; '.join(named)}).",
        _confusions(rows),
        "**In the figure**: each row starts with a test image that the base got wrong and ResMem right; beside it are "
        "the memories that moved it most, with their label, what the base says of them, and how much each added to the "
        "truth's lead over the base's answer. Together they can make more than 100 % of the change, as others "
        "pull back.",
        _examples(results["examples"]),
        "**What this says.**",
        "\n".join(f"- {line}" for line in _findings(results)),
    ]


def _confusions(rows: list[dict]) -> Table:
    return Table(
        ("pair", "base's errors", "corrected", "introduced", "net", "the paper's"),
        [
            (
                " / ".join(row["pair"]),
                str(row["errors"]),
                str(row["corrected"]),
                str(row["introduced"]),
                f"{row['corrected'] - row['introduced']:+d}",
                "yes" if row["paper"] else "",
            )
            for row in rows
        ],
    )


def _examples(examples: list[dict]) -> Table:
    rows = []
    for example in examples:
        first, now, base, base_now = example["scores"]
        labels = sum(memory["label"] == example["truth"] for memory in example["memories"])
        missed = sum(memory["label"] != memory["base"] for memory in example["memories"])
        rows.append(
            (
                f"{example['truth']} (base: {example['base']})",
                str(example["row"]),
                f"{first:.2f} → {now:.2f}",
                f"{base:.2f} → {base_now:.2f}",
                f"{labels} of {len(example['memories'])}",
                f"{missed} of {len(example['memories'])}",
                f"{100 * example['share']:.0f} %",
            )
        )
    columns = ("truth", "test row", "score of the truth", "of the base's answer")
    return Table((*columns, "memories of that class", "memories the base got wrong", "their share of the change"), rows)


def _findings(results: dict) -> list[str]:
    rows = results["confusions"]
    worse = [row for row in rows if row["introduced"] > row["corrected"]]
    lines = []
    for row in (row for row in rows if row["paper"]):
        a, b = row["pair"]
        lines.append(
            f"The paper's {a} / {b}: {row['errors']} errors of the base, {row['corrected']} corrected, "
            f"{row['introduced']} introduced."
        )
    lines.append(
        "Pairs of this list that the memory makes worse: "
        + (", ".join(f"{a} / {b}" for a, b in (row["pair"] for row in worse)) if worse else "none")
        + "."
    )
    return lines
