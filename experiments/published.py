"""Every number the two papers print that an experiment stands beside, with where it is from.

ResMem is arXiv 2302.01576, kNN-LM arXiv 1911.00172. Accuracies and rates are in percent, times in milliseconds,
perplexities plain. Figures print curves, not numbers: what the text states about them is what can be compared.
"""

# ResMem, sections 4.2 and 4.4, appendix F.
CIFAR100_RESNET8 = {
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
}
# ResMem, Table 1.
CIFAR100_EPOCHS = {
    "epochs": (128, 160, 192, 224, 256),
    "base": (34.0, 56.2, 55.6, 57.2, 56.6),
    "resmem": (49.3, 60.2, 58.6, 59.2, 59.5),
}
# ResMem, Figure 3.
CIFAR100_EXAMPLES = {"confusions": (("rose", "poppy"), ("palm_tree", "pine_tree"))}
# ResMem, section 4.4.
CIFAR100_CONSERVATIVE = {"max_fpr": 5.0}
# ResMem, Figure 5: from, to, and the curve's shape.
CIFAR100_SWEEPS = {"k": (27, 500, "stable"), "sigma": (0.1, 2.0, "unimodal"), "temperature": (0.1, 5.0, "unimodal")}

# ResMem, Table 2: by width of MobileNet-V2.
IMAGENET_MOBILENET_V2 = {
    0.35: {"k": 10, "sigma": 0.6, "temperature": 0.4, "base": 60.2, "resmem": 61.2},
    0.5: {"k": 10, "sigma": 0.6, "temperature": 0.4, "base": 65.3, "resmem": 66.1},
    0.75: {"k": 10, "sigma": 0.8, "temperature": 0.6, "base": 69.6, "resmem": 70.1},
    1.0: {"k": 20, "sigma": 0.4, "temperature": 0.4, "base": 71.3, "resmem": 71.8},
    1.3: {"k": 30, "sigma": 0.4, "temperature": 0.4, "base": 74.7, "resmem": 75.1},
}

# ResMem, sections 4.3 and 4.4.
C4_T5 = {
    "small": {"base": 38.01, "resmem": 40.87, "tpr": 5.37, "fpr": 2.44, "gain": 2.93},
    "settings": {"k": 50, "sigma": 1.0, "temperature": 1.0},
}
# ResMem, Table 3.
C4_KNNLM = {
    "lmbda": (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0),
    "knnlm": (44.76, 44.88, 44.83, 44.66, 44.27, 42.97, 40.95),
    "resmem": 45.55,
}

# kNN-LM, Table 1: perplexity on validation and test.
WIKITEXT103 = {
    "base": (17.96, 18.65),
    "cache": (17.67, 18.27),
    "knnlm": (16.06, 16.12),
    "knnlm+cache": (15.81, 15.79),
    "settings": {"k": 1024, "lmbda": 0.25},
}
# kNN-LM, Table 5.
WIKITEXT103_KEYS = {
    "ffn input after layer norm": 16.06,
    "ffn input before layer norm": 17.06,
    "model output": 17.07,
    "model output after layer norm": 17.01,
}
# kNN-LM, Table 4.
DOMAIN = {"wiki model on books": 34.84, "with a memory of books": 20.47}
# kNN-LM, Figure 5.
WIKITEXT103_LMBDA = {"in domain": 0.25, "across domains": 0.65}
# kNN-LM, section 5.
WIKITEXT103_DISTANCES = {"codes": 16.5, "exact": 16.06}
# kNN-LM, section 6, Figures 7 and 8: by how much perplexity falls.
WIKITEXT103_CONTROLS = {"n-grams": 0.2, "knnlm": 1.9, "without dropout": 0.1}
