"""The reproductions there are. A new one is one line here, and a module with a ``REPRODUCTION``."""

from importlib import import_module

from residua.errors import ParameterError
from residua.papers.reproduction import Reproduction

# name -> (module, one line of help); known without importing any of them. In the order of the results page.
MODULES = {
    "cifar100": ("residua.papers.cifar100", "ResMem on CIFAR-100: headline, Table 1, Figures 2, 4 and 5."),
    "examples": ("residua.papers.examples", "ResMem, Figure 3: what the memory corrects, and the memories that do."),
    "imagenet": ("residua.papers.imagenet", "ResMem, Table 2: MobileNet-V2 (bring ImageNet; none comes along)."),
    "knnlm": ("residua.papers.knnlm", "kNN-LM on a language model: Tables 1, 4, 5, Figures 2, 4, 5; ResMem's Table 3."),
    "theorem33": ("residua.papers.theorem33", "ResMem, Theorem 3.3: risk against n of base, 1-NN and ResMem."),
    "tabular": ("residua.papers.tabular", "ResMem on small tables: where it helps, and where it cannot."),
}


def load(name: str) -> Reproduction:
    """The reproduction called `name`.

    Raises
    ------
    ParameterError
        When there is none.

    Examples
    --------
    >>> load("theorem33").source
    'ResMem (arXiv 2302.01576), Theorem 3.3'
    """
    if name not in MODULES:
        raise ParameterError(f"there is no reproduction {name!r}; expected one of {', '.join(MODULES)}")
    return import_module(MODULES[name][0]).REPRODUCTION
