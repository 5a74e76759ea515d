"""What a reviewer asks first: would the last layer, fitted again on the very keys that are stored, do as well?

Two heads are fitted on a memory's keys and labels: the linear one again, and a small perceptron. Both know what the
memory knows, and no test row.
"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import residua as rs
from experiments.halves import crossed, paired, percent
from residua.core import Encoded

NAMES = {
    "linear": "linear head, fitted again on the keys",
    "perceptron": "perceptron of 256 on the keys",
    "resmem_over_linear": "ResMem, tuned, over that linear head",
}
PENALTY = 1e-4  # of the linear head, on squared weights, in the mean over rows


def linear(keys: np.ndarray, labels: np.ndarray) -> Pipeline:
    """A linear head fitted on keys (n, d) and classes (n,), by L-BFGS until the gradient is small."""
    head = LogisticRegression(C=1 / (2 * PENALTY * len(keys)), max_iter=300)
    return make_pipeline(StandardScaler(), head).fit(keys, labels)


def perceptron(keys: np.ndarray, labels: np.ndarray) -> Pipeline:
    """A hidden layer of 256, after 15 epochs."""
    net = MLPClassifier((256,), batch_size=min(256, len(keys)), max_iter=15, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), net).fit(keys, labels)


def answers(remembered: Encoded, test: Encoded, grid: dict) -> dict[str, np.ndarray]:
    """What each control says of the test rows, int (n,); ResMem's settings over the new head are tuned on the other
    half of them, as ``halves.crossed`` does, among those of `grid`."""
    head = linear(remembered.keys, remembered.labels)

    def spoken(rows: Encoded) -> Encoded:
        logits = np.full((len(rows), rows.n_outputs), -30.0)  # of a class without rows
        logits[:, head.classes_] = head.predict_log_proba(rows.keys)
        return rs.Encoded(rows.keys, logits, rows.labels, output="logits")

    over = rs.ResMem(rs.Memory(spoken(remembered)), k=1)
    return {
        "linear": head.predict(test.keys),
        "perceptron": perceptron(remembered.keys, remembered.labels).predict(test.keys),
        "resmem_over_linear": crossed(over, spoken(test), grid)[0],
    }


def compared(remembered: Encoded, test: Encoded, grid: dict, base: np.ndarray, rng: np.random.Generator) -> dict:
    """Name -> ``accuracy`` in %, and ``gain`` over the `base`, which is right where bool (n,): [difference, low, high]
    in points."""
    found = {name: said == test.labels for name, said in answers(remembered, test, grid).items()}
    return {name: {"accuracy": percent(own), "gain": list(paired(own, base, rng)[:3])} for name, own in found.items()}
