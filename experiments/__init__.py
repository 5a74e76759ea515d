"""The papers, reproduced: one experiment per published table or figure, *paper* beside *ours*, run from the sources.

``make reproduce NAME=theorem33`` runs one, ``python -m experiments --list`` names them; ``docs/results`` tells what
came out. An experiment is a module of this package with

- a docstring, whose first line is its help;
- ``measure(work, *, option=default, ...) -> dict``: the results in JSON types. What takes long goes through
  ``work.map``; the signature's annotations and defaults are the options of the command line;
- ``tables(results) -> dict[str, Table]``: what a page of ``docs/results`` may show, by name;
- ``draw(results)``: a matplotlib Figure.

A new one is one name more in ``NAMES``.
"""

NAMES = (
    "architectures",
    "audit",
    "cifar100",
    "compress",
    "controls",
    "distil",
    "drafts",
    "edit",
    "efficientnet",
    "examples",
    "familiarity",
    "gains",
    "gate",
    "imagenet",
    "joint",
    "knnlm",
    "knnmt",
    "new_classes",
    "passages",
    "pooled",
    "reasoning",
    "shift",
    "streams",
    "tables",
    "tabular",
    "theorem33",
    "trained_keys",
    "uncertainty",
    "unlearn",
)
