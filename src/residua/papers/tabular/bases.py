"""The bases: a linear model, a small network and boosted trees, as one would first try them."""

import warnings

BASES = ("linear", "mlp", "boosting")


def fit(name: str, task: str, X, y, seed: int):
    """The base called `name`, fitted.

    Parameters
    ----------
    name : {"linear", "mlp", "boosting"}
        Ridge or logistic regression; 16 hidden units for 60 epochs; 25 trees of 8 leaves.
    task : {"classification", "regression"}
    X, y : arrays of shape (n, d), (n,)
    seed : int
    """
    with bases_may_stop_early():
        return make(name, task, seed).fit(X, y)


def make(name: str, task: str, seed: int):
    """The same, not fitted."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifies = task == "classification"
    if name == "linear":
        model = LogisticRegression(max_iter=1000) if classifies else Ridge()
    elif name == "mlp":
        kind = MLPClassifier if classifies else MLPRegressor
        model = kind(hidden_layer_sizes=(16,), learning_rate_init=0.01, max_iter=60, random_state=seed)
    else:
        kind = HistGradientBoostingClassifier if classifies else HistGradientBoostingRegressor
        model = kind(max_iter=25, learning_rate=0.2, max_leaf_nodes=8, random_state=seed)
    return make_pipeline(StandardScaler(), model)


class bases_may_stop_early(warnings.catch_warnings):
    """A context in which a network stopped after its epochs, and a base that has memorised its rows, are no surprise:
    what a memory makes of them is what is measured."""

    def __enter__(self):
        from sklearn.exceptions import ConvergenceWarning

        caught = super().__enter__()
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        warnings.filterwarnings("ignore", message=".* of the residuals are nearly zero", category=UserWarning)
        return caught
