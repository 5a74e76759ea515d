"""The bases: a linear model, a small network and boosted trees, as one would first try them."""

import warnings

from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

NETWORK = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.01, "max_iter": 60}
TREES = {"max_iter": 25, "learning_rate": 0.2, "max_leaf_nodes": 8}
# (base, task) -> the model of one seed.
BASES = {
    ("linear", "classification"): lambda seed: LogisticRegression(max_iter=1000),
    ("linear", "regression"): lambda seed: Ridge(),
    ("mlp", "classification"): lambda seed: MLPClassifier(**NETWORK, random_state=seed),
    ("mlp", "regression"): lambda seed: MLPRegressor(**NETWORK, random_state=seed),
    ("boosting", "classification"): lambda seed: HistGradientBoostingClassifier(**TREES, random_state=seed),
    ("boosting", "regression"): lambda seed: HistGradientBoostingRegressor(**TREES, random_state=seed),
}
NAMES = tuple(dict.fromkeys(name for name, _ in BASES))


def fit(name: str, task: str, X, y, seed: int) -> Pipeline:
    """The base called `name`, one of ``NAMES``, fitted on standardised features."""
    with bases_may_stop_early():
        return make_pipeline(StandardScaler(), BASES[name, task](seed)).fit(X, y)


class bases_may_stop_early(warnings.catch_warnings):
    """A context in which a network stopped after its epochs, and a base that has memorised its rows, are no surprise:
    what a memory makes of them is what is measured."""

    def __enter__(self):
        caught = super().__enter__()
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        warnings.filterwarnings("ignore", message=".* of the residuals are nearly zero", category=UserWarning)
        return caught
