"""Every number the two papers publish that a reproduction stands beside, in one place, with where it is from.

Accuracies and rates are in percent, times in milliseconds, perplexities plain.
"""

from dataclasses import dataclass

RESMEM = "ResMem (arXiv 2302.01576)"
KNNLM = "kNN-LM (arXiv 1911.00172)"


@dataclass(frozen=True)
class Published:
    """Numbers as printed in one table, figure or section.

    Attributes
    ----------
    source : str
        Paper and place.
    values : dict
        The numbers; what a row is about, then what is measured.
    """

    source: str
    values: dict

    def __getitem__(self, name):
        return self.values[name]


CIFAR100_RESNET8 = Published(
    f"{RESMEM}, sections 4.2 and 4.4, appendix F",
    {
        "base": 56.46,
        "resmem": 59.66,
        "label_knn": 54.44,
        "tpr": 5.89,
        "fpr": 2.70,
        "gain": 3.19,
        "train_resmem": 100.0,
        "base_over_seeds": (56.5, 0.8),  # mean, standard deviation, 5 seeds
        "resmem_over_seeds": (59.0, 0.7),
        "settings": {"k": 53, "sigma": 0.7, "temperature": 1.4},
        "milliseconds": {"resnet8": 15.9, "search": 4.8, "resnet14": 26.2},
        "megabytes": 15,  # of 50 000 embeddings
    },
)

CIFAR100_EPOCHS = Published(
    f"{RESMEM}, Table 1",
    {
        "epochs": (128, 160, 192, 224, 256),
        "base": (34.0, 56.2, 55.6, 57.2, 56.6),
        "resmem": (49.3, 60.2, 58.6, 59.2, 59.5),
    },
)

# The figures print curves, not numbers: what is stated about them is what can be compared.
CIFAR100_DEPTHS = Published(f"{RESMEM}, Figure 2(a)", {"depths": (8, 14, 20, 32, 44, 56)})
CIFAR100_FRACTIONS = Published(
    f"{RESMEM}, Figure 2(b)", {"percent": tuple(range(10, 101, 10)), "says": "the gain grows with the data"}
)
CIFAR100_BOTH = Published(f"{RESMEM}, Figure 4", {"depths": CIFAR100_DEPTHS["depths"], "train_resmem": 100.0})
CIFAR100_SWEEPS = Published(
    f"{RESMEM}, Figure 5",
    {
        "k": (27, 500, "stable"),
        "sigma": (0.1, 2.0, "unimodal"),
        "temperature": (0.1, 5.0, "unimodal"),
    },
)
CIFAR100_CONSERVATIVE = Published(f"{RESMEM}, section 4.4", {"max_fpr": 5.0})
CIFAR100_EXAMPLES = Published(f"{RESMEM}, Figure 3", {"confusions": (("rose", "poppy"), ("palm_tree", "pine_tree"))})

IMAGENET_MOBILENET_V2 = Published(
    f"{RESMEM}, Table 2",
    {
        0.35: {"k": 10, "sigma": 0.6, "temperature": 0.4, "base": 60.2, "resmem": 61.2},
        0.5: {"k": 10, "sigma": 0.6, "temperature": 0.4, "base": 65.3, "resmem": 66.1},
        0.75: {"k": 10, "sigma": 0.8, "temperature": 0.6, "base": 69.6, "resmem": 70.1},
        1.0: {"k": 20, "sigma": 0.4, "temperature": 0.4, "base": 71.3, "resmem": 71.8},
        1.3: {"k": 30, "sigma": 0.4, "temperature": 0.4, "base": 74.7, "resmem": 75.1},
    },
)

C4_T5 = Published(
    f"{RESMEM}, sections 4.3 and 4.4",
    {
        "small": {"base": 38.01, "resmem": 40.87, "tpr": 5.37, "fpr": 2.44, "gain": 2.93},
        "base": {"base": 40.08},
        "large": {"base": 44.8, "resmem": 45.6},
        "settings": {"k": 50, "sigma": 1.0, "temperature": 1.0, "m": 128},
        "million_tokens": 1639,
    },
)

C4_KNNLM = Published(
    f"{RESMEM}, Table 3",
    {
        "lmbda": (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0),
        "knnlm": (44.76, 44.88, 44.83, 44.66, 44.27, 42.97, 40.95),
        "resmem": 45.55,
    },
)

THEOREM_33 = Published(
    f"{RESMEM}, Theorem 3.3",
    {
        "estimation_exponent": -2 / 3,  # of n, in d² L² n^(-2/3)
        "neighbour_exponent": lambda d: -1 / d,  # of n, in d² (1-L)² [log(n^(1/d)) / n]^(1/d)
        "knn_exponent": lambda d: -1 / d,  # the same at L = 0
    },
)

WIKITEXT103 = Published(
    f"{KNNLM}, Table 1",
    {  # perplexity on validation and test
        "base": (17.96, 18.65),
        "cache": (17.67, 18.27),
        "knnlm": (16.06, 16.12),
        "knnlm+cache": (15.81, 15.79),
        "settings": {"k": 1024, "lmbda": 0.25},
    },
)
WIKITEXT103_KEYS = Published(
    f"{KNNLM}, Table 5",
    {
        "ffn input after layer norm": 16.06,
        "ffn input before layer norm": 17.06,
        "model output": 17.07,
        "model output after layer norm": 17.01,
    },
)
BOOKS = Published(f"{KNNLM}, Table 2", {"base": 11.89, "knnlm": 10.89})
WIKI_MEMORY = Published(
    f"{KNNLM}, Table 3", {"trained on 3B": 15.17, "trained on 100M": 19.59, "100M + memory of 3B": 13.73}
)
DOMAIN = Published(
    f"{KNNLM}, Table 4",
    {"wiki model on books": 34.84, "with a memory of books": 20.47, "books model": 11.89, "lmbda": 0.65},
)
# Of its figures the text says what is compared: the best values, and that more neighbours and more memory help.
WIKITEXT103_K = Published(f"{KNNLM}, Figure 4", {"k": (1, 1024), "says": "better with every doubling"})
WIKITEXT103_LMBDA = Published(f"{KNNLM}, Figure 5", {"in domain": 0.25, "across domains": 0.65})
WIKITEXT103_DISTANCES = Published(f"{KNNLM}, section 5", {"codes": 16.5, "exact": 16.06})
WIKI_SIZES = Published(
    f"{KNNLM}, Figure 2", {"says": "perplexity falls with the size without saturating, and the best share grows"}
)
