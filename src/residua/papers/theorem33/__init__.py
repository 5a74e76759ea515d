"""ResMem's Theorem 3.3 (arXiv 2302.01576): what a memory does to the risk of a base that cannot reach the target."""

from residua.papers.published import THEOREM_33
from residua.papers.reproduction import Option, Reproduction
from residua.papers.theorem33.figure import draw
from residua.papers.theorem33.measure import run
from residua.papers.theorem33.tell import tell

REPRODUCTION = Reproduction(
    title="Theorem 3.3: risk against the number of training points",
    source=THEOREM_33.source,
    options={
        "dims": Option((1, 2, 3, 4, 5), "Dimensions d."),
        "radii": Option((0.2, 0.5, 0.8), "The classes' L, each below 1."),
        "sizes": Option(tuple(2**i for i in range(5, 15)), "Training points n, ascending."),
        "seeds": Option(40, "Draws of each size."),
        "test_points": Option(2000, "Test points of each draw."),
    },
    run=run,
    tell=tell,
    draw=draw,
)
