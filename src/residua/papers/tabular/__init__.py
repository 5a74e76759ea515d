"""ResMem (arXiv 2302.01576) where the paper did not look: small tables, three kinds of base, two kinds of residual."""

from residua.papers.published import RESMEM
from residua.papers.reproduction import Option, Reproduction
from residua.papers.tabular.bases import BASES
from residua.papers.tabular.data import TASKS
from residua.papers.tabular.figure import draw
from residua.papers.tabular.measure import run
from residua.papers.tabular.tell import tell

REPRODUCTION = Reproduction(
    title="Small tables: where a memory helps, and where it cannot",
    source=f"{RESMEM}, its rule on tasks that it does not report",
    options={
        "data": Option(tuple(TASKS), "Tables.", choices=tuple(TASKS)),
        "bases": Option(BASES, "Bases.", choices=BASES),
        "splits": Option(20, "Random splits of each."),
    },
    run=run,
    tell=tell,
    draw=draw,
)
