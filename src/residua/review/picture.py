"""A review queue as a picture: the most doubtful labels, each row as a person sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residua.core.naming import class_name
from residua.drawing import BASE, GREY, MEMORY, Images, draw_look, figure
from residua.printable import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from residua.review.queue import Audit

ACROSS = 6


def draw(queue: Audit, images: Images | None, rows: int) -> Figure:
    """The first `rows` of the queue: the label above, what the reader says and by how many nats below."""
    shown = queue.order[: max(rows, 1)].tolist()
    looks = [queue.look(at, images) for at in shown]
    pictured = any(look.picture is not None for look in looks)
    across = min(ACROSS if pictured else ACROSS // 2, len(shown))
    down = -(-len(shown) // across)
    made = figure(max((1.75 if pictured else 3.2) * across, 5.5), 0.6 + 2.15 * down)
    doubtful = int((queue.margin < 0).sum())
    made.suptitle(
        f"{count(doubtful, 'label')} of {len(queue):,} that {queue.reader} doubts; the most doubtful first",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    panels = made.subplots(down, across, squeeze=False).reshape(-1)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes, at, look in zip(panels, shown, looks):
        label, says = (class_name(queue.classes, int(of[at])) for of in (queue.labels, queue.suggested))
        margin = float(queue.margin[at])
        doubted = margin < 0
        below = f"says {says[:18]} by {-margin:.1f}" if doubted else f"agrees by {margin:.1f}"
        if look.picture is not None:
            below = f"{below}\n{look.name[-24:]}"
        frame, words = (BASE, MEMORY) if doubted else (GREY, GREY)
        draw_look(axes, look, f"label: {label[:18]}", below, frame, 1.6, words)
    return made
