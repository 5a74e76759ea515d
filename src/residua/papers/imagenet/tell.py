"""Table 2's row beside ours."""

from residua.papers.published import IMAGENET_MOBILENET_V2
from residua.papers.shown import interval, settings
from residua.papers.table import Table

NAMES = {
    "resmem_paper": "ResMem, paper's settings",
    "resmem_tuned": "ResMem, tuned",
    "interpolation_tuned": "interpolation, tuned",
}


def tell(results: dict) -> list[str | Table]:
    """Paragraphs and tables from what ``measure.run`` returned."""
    paper = IMAGENET_MOBILENET_V2[results["alpha"]]
    rows = [("base", f"{paper['base']}", f"{results['base']:.2f}", "", "", "", "")]
    for name, shown in NAMES.items():
        reader = results["readers"][name]
        rows.append(
            (
                shown,
                f"{paper['resmem']}" if name == "resmem_paper" else "",
                f"{reader['accuracy']:.2f}",
                interval(reader["gain"]),
                f"{reader['tpr']:.2f}",
                f"{reader['fpr']:.2f}",
                settings(reader["settings"]),
            )
        )
    blocks = [
        f"{results['model']} ({results['weights']} weights), beside the paper's Keras MobileNet-V2 of width "
        f"{results['alpha']:g}. A memory of {results['train']:,} training images in {results['classes']:,} classes, "
        f"keys of {results['dim']} numbers; {results['n']:,} validation images. *Tuned*: the even rows with the "
        "settings best on the odd ones, and the reverse. Intervals are 95 %, paired over images.",
        Table(
            ("accuracy, %", "paper", "ours", "over the base, points", "TPR", "FPR", "settings (even; odd rows)"), rows
        ),
    ]
    if results["weights"] == "random":
        blocks.insert(
            0,
            "**The weights are randomly initialised: these numbers show that the path runs, no more.**",
        )
    elif (results["classes"], results["n"]) != (1000, 50_000):
        blocks.insert(0, "**These images are not ImageNet's 1,000 classes and 50,000 validation images.**")
    return blocks
