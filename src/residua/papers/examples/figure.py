"""Figure 3 drawn: a test image a row, the memories that decided beside it."""

from residua.papers.examples.tiles import unpack

WRONG, RIGHT, INK = "#C8501E", "#1F6FB4", "#444444"


def draw(results: dict):
    """A matplotlib Figure from what ``find.run`` returned."""
    from matplotlib.figure import Figure

    examples = results["examples"]
    columns = 1 + max((len(example["memories"]) for example in examples), default=0)
    figure = Figure(figsize=(1.6 * columns + 0.3, 2.05 * max(1, len(examples)) + 0.9), facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.05, w_pad=0.04)
    grid = figure.subplots(max(1, len(examples)), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, example in zip(grid, examples):
        tiles = unpack(example["tiles"])
        _tile(row[0], tiles[0], f"{example['truth']}", f"base: {example['base']}", RIGHT)
        for axes, tile, memory in zip(row[1:], tiles[1:], example["memories"]):
            colour = RIGHT if memory["label"] == example["truth"] else WRONG
            _tile(axes, tile, memory["label"], f"base: {memory['base']}  {memory['moved']:+.3f}", colour)
    figure.suptitle(
        "Left: test images the base got wrong and ResMem right. Beside: the memories that decided, and what each adds\n"
        "to the truth's lead. Titles are labels (blue: the truth's class); under them, what the base says.",
        fontsize=10.5,
    )
    return figure


def _tile(axes, tile, title: str, below: str, colour: str) -> None:
    axes.imshow(tile, interpolation="nearest")
    axes.set_title(f"{title.replace('_', ' ')}\n", fontsize=9.5, color=colour, pad=2, fontweight="bold")
    axes.text(0.5, 1.03, below.replace("_", " "), transform=axes.transAxes, ha="center", fontsize=7.8, color=INK)
