"""Fingerprints: the same model again is accepted, another is not."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from residua.core import Source
from residua.encoding.fingerprint import source_of_estimator, source_of_module
from residua.errors import SourceMismatchError


def net(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3))


def test_norms_and_shapes_by_hand():
    model = nn.Linear(2, 1)
    model.weight.data, model.bias.data = torch.tensor([[3.0, 4.0]]), torch.tensor([-2.0])
    source = source_of_module(model, "k")
    assert (source.name, source.key, source.dtype) == ("Linear", "k", "float32")
    assert source.parameters == {"weight": ([1, 2], 5.0), "bias": ([1], 2.0)}


def test_another_seed_is_refused_and_the_same_one_accepted():
    ours = source_of_module(net(0), "k")
    assert ours.difference(source_of_module(net(0), "k")) is None
    assert "other numbers" in ours.difference(source_of_module(net(1), "k"))


def test_a_16_bit_copy_is_accepted_and_the_training_flag_is_nothing():
    model = net(0)
    ours = source_of_module(model, "k")
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        theirs = source_of_module(copy.deepcopy(model).to(dtype).eval(), "k")
        assert ours.difference(theirs) is None
        assert theirs.difference(ours) is None
    assert source_of_module(net(0).bfloat16(), "k").dtype == "bfloat16"


def test_batch_norm_statistics_count_and_its_counter_does_not():
    model = net(0)
    ours = source_of_module(model, "k")
    model[1].num_batches_tracked += 5
    assert ours.difference(source_of_module(model, "k")) is None
    model[1].running_var *= 1.01
    assert "running_var" in ours.difference(source_of_module(model, "k"))


def test_saving_and_loading_changes_nothing():
    model, again = net(0), net(1)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file))
    ours = source_of_module(model, "k")
    assert ours.difference(source_of_module(again, "k")) is None
    assert Source.from_json(ours.to_json()).difference(ours) is None


def test_a_model_without_parameters():
    assert source_of_module(nn.Flatten(), "k").parameters == {}


def hidden(activation=nn.ReLU):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 3))


def permute_hidden(model):
    model[0].weight.data = model[0].weight.data.flip(0)


def shuffle_inputs(model):
    model[0].weight.data = model[0].weight.data[:, torch.tensor([1, 0, 3, 2, 5, 4])]


def swap_signs(model):
    model[2].weight.data *= -1


@pytest.mark.parametrize("change", [permute_hidden, shuffle_inputs, swap_signs])
def test_what_no_norm_sees_is_refused(change):
    ours, model = source_of_module(hidden(), "k"), hidden()
    change(model)
    theirs = source_of_module(model, "k")
    for name, (shape, norm) in ours.parameters.items():
        assert theirs.parameters[name] == (shape, pytest.approx(norm))
    assert "other numbers" in ours.difference(theirs)


def test_classes_and_scalars_of_modules_count():
    ours = source_of_module(hidden(), "k")
    assert ours.difference(source_of_module(hidden(nn.Tanh), "k")) == "'1' is ReLU here and Tanh there"
    plain, other = net(0), net(0)
    other[1].eps = 0.1
    assert "'1.eps'" in source_of_module(plain, "k").difference(source_of_module(other, "k"))


def test_what_plays_no_part_in_evaluation_does_not_count():
    model = net(0)
    ours = source_of_module(model, "k")
    model[1].momentum = 0.9
    model[1].num_batches_tracked = torch.tensor(7.0)  # some frameworks count in floats
    assert ours.difference(source_of_module(nn.SyncBatchNorm.convert_sync_batchnorm(model), "k")) is None


def test_wrappers_are_looked_through():
    model = net(0)
    ours = source_of_module(model, "3:input")
    wrapped = nn.DataParallel(copy.deepcopy(model))
    assert ours.difference(source_of_module(wrapped, "module.3:input")) is None
    wrapped.module[0] = torch.compile(wrapped.module[0], backend="eager")
    assert ours.difference(source_of_module(wrapped, "module.3:input")) is None
    assert source_of_module(wrapped, "module.3:input").difference(ours) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_model_trained_on_by_the_smallest_step_is_refused(dtype):
    ours, model = source_of_module(hidden(), "k"), hidden().to(dtype)
    assert ours.difference(source_of_module(model, "k")) is None
    trained = copy.deepcopy(model)
    weight = trained[0].weight.data
    weight[0, 0] = torch.nextafter(weight[0, 0].float(), torch.tensor(9.0)).to(dtype)
    assert ours.difference(source_of_module(trained, "k")) is None  # not even one bit of 16
    weight[0, 0] *= 1 + 2 * torch.finfo(dtype).eps
    for other in (ours, source_of_module(model, "k")):
        assert "0.weight" in other.difference(source_of_module(trained, "k"))


def test_rounding_in_float32_is_accepted():
    model, change = hidden(), torch.randn(8, 6)
    ours = source_of_module(model, "k")
    model[0].weight.data += change
    model[0].weight.data -= change
    assert not torch.equal(model[0].weight, hidden()[0].weight)
    assert ours.difference(source_of_module(model, "k")) is None


def test_a_large_tensor_is_told_apart_by_fixed_entries():
    model = nn.Embedding(3000, 64)
    ours = source_of_module(model, "k")
    without = source_of_module(copy.deepcopy(model), "k", norms=False)
    assert ours.difference(without) is None
    assert ours.projections == without.projections
    model.weight.data = model.weight.data.roll(1, 0)
    assert "weight" in ours.difference(source_of_module(model, "k", norms=False))


def test_infinite_masks_are_no_difference():
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    ours = source_of_module(model, "k")
    assert ours.difference(source_of_module(copy.deepcopy(model), "k", norms=False)) is None
    assert Source.from_json(ours.to_json()).difference(ours) is None


def test_a_folder_with_norms_alone_is_compared_by_these_and_warned_about():
    data = source_of_module(nn.DataParallel(hidden()), "0").to_json()
    old = {name: data[name] for name in ("name", "key", "dtype", "extra", "statistics")}
    old |= {"parameters": {f"module.{name}": entry for name, entry in data["parameters"].items()}}
    source = Source.from_json(old)
    with pytest.warns(UserWarning, match="Encode again"):
        source.require(source_of_module(hidden(), "0"))
    other = hidden()
    other[0].weight.data *= 1.01
    with pytest.raises(SourceMismatchError, match="norm"):
        source.require(source_of_module(other, "0"))


@pytest.fixture(scope="module")
def digits():
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_digits(return_X_y=True)
    return X[:300] / 16, y[:300]


def estimators():
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=400)),
        "svc": SVC(),
        "tree": DecisionTreeClassifier(random_state=0, max_depth=3),
        "forest": RandomForestClassifier(5, random_state=0, max_depth=3),
        "boosting": GradientBoostingClassifier(n_estimators=3, random_state=0),
        "histogram": HistGradientBoostingClassifier(max_iter=3, random_state=0, early_stopping=False),
        "mlp": MLPClassifier((8,), solver="lbfgs", max_iter=400, random_state=0),
        "neighbours": KNeighborsClassifier(),
        "search": GridSearchCV(LogisticRegression(max_iter=400), {"C": [1.0]}, cv=2),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(estimators()))
def test_estimators_are_told_apart_by_what_they_learned(digits, name):
    from threadpoolctl import threadpool_limits

    X, y = digits
    with threadpool_limits(1):  # scikit-learn's threads and torch's would wait for each other
        model, other = estimators()[name].fit(X, y), estimators()[name].fit(X[:200] ** 2, y[:200])
    ours = source_of_estimator(model, "k", {})
    assert ours.parameters
    model.predict(X[:5])
    assert ours.difference(source_of_estimator(copy.deepcopy(model), "k", {})) is None
    assert ours.difference(source_of_estimator(other, "k", {})) is not None
    assert len(ours.parameters) < 150  # an ensemble's members share their entries


def test_a_scalar_intercept_counts():
    from sklearn.linear_model import LinearRegression

    X = np.arange(4.0)[:, None]
    ours = source_of_estimator(LinearRegression().fit(X, X[:, 0]), "k", {})
    theirs = source_of_estimator(LinearRegression().fit(X, X[:, 0] + 1), "k", {})
    assert "intercept_" in ours.difference(theirs)


def test_classes_and_statistics_count(digits):
    from sklearn.linear_model import RidgeClassifier

    X, y = digits
    names = np.array([f"digit {i}" for i in range(10)])
    ours, theirs = (source_of_estimator(RidgeClassifier().fit(X, labels), "k", {}) for labels in (y, names[y]))
    assert "classes" in ours.difference(theirs)
    scaled = source_of_estimator(RidgeClassifier().fit(X, y), "k", {"mean": [0.0], "scale": [1.0]})
    assert "like=" in ours.difference(scaled)


def test_shuffled_columns_of_an_estimator_are_refused(digits):
    from sklearn.linear_model import LogisticRegression

    X, y = digits
    model = LogisticRegression(max_iter=400).fit(X, y)
    other = copy.deepcopy(model)
    other.coef_ = model.coef_[:, ::-1].copy()
    ours = source_of_estimator(model, "k", {})
    assert ours.difference(source_of_estimator(pickle.loads(pickle.dumps(model)), "k", {})) is None
    assert "coef_" in ours.difference(source_of_estimator(other, "k", {}))


class Booster:
    """What stands in for a model whose learned numbers only its public save shows."""

    def __init__(self, trees, threads=1):
        self.trees, self.threads = trees, threads

    def model_to_string(self):
        return f"{self.trees}\nparameters:\n[num_threads: {self.threads}]\nend of parameters\npandas_categorical:[]"


def test_an_opaque_model_is_known_by_what_it_saves():
    ours = source_of_estimator(Booster("a"), "k", {})
    assert ours.difference(source_of_estimator(Booster("a", threads=8), "k", {})) is None
    assert "as saved" in ours.difference(source_of_estimator(Booster("b"), "k", {}))
    assert Source.from_json(ours.to_json()) == ours
    old = Source(ours.name, "k", "float64", {"_n_classes": ([1], 3.0)}, ours.extra)
    with pytest.warns(UserWarning, match="Encode again"):
        old.require(ours)


def test_a_wrapped_module_counts_and_how_it_was_trained_does_not():
    class Net:
        def __init__(self, seed, history):
            self.module_, self.history_ = net(seed), history

    ours = source_of_estimator(Net(0, [1.0]), "k", {})
    assert ours.difference(source_of_estimator(Net(0, [2.0, 3.0]), "k", {})) is None
    assert "module_.0.weight" in ours.difference(source_of_estimator(Net(1, [1.0]), "k", {}))


def boosted(library):
    package = pytest.importorskip(library)
    return {
        "xgboost": lambda **options: package.XGBClassifier(n_estimators=5, n_jobs=1, **options),
        "lightgbm": lambda **options: package.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1, **options),
        "catboost": lambda **options: package.CatBoostClassifier(
            iterations=5, thread_count=1, verbose=0, allow_writing_files=False, **options
        ),
    }[library]


@pytest.mark.slow
@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
def test_boosting_is_the_same_after_pickle_and_another_after_other_training(digits, library):
    from sklearn.model_selection import GridSearchCV

    X, y = digits
    make = boosted(library)
    model, other = make().fit(X, y), make(learning_rate=0.05).fit(X, y)
    ours = source_of_estimator(model, "k", {})
    for same in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), make().fit(X, y)):
        assert ours.difference(source_of_estimator(same, "k", {})) is None
    assert "as saved" in ours.difference(source_of_estimator(other, "k", {}))
    if library != "catboost":  # whose estimators are not scikit-learn's
        search = GridSearchCV(make(), {"learning_rate": [0.1]}, cv=2).fit(X, y)
        ours = source_of_estimator(search, "k", {})
        assert ours.difference(source_of_estimator(pickle.loads(pickle.dumps(search)), "k", {})) is None
        search.best_estimator_ = other
        assert "best_estimator_ as saved" in ours.difference(source_of_estimator(search, "k", {}))


def test_skorch_is_the_same_after_load_params(digits, tmp_path):
    skorch = pytest.importorskip("skorch")
    X, y = digits[0].astype(np.float32), digits[1].astype(np.int64)

    def make():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(64, 10), nn.Softmax(dim=1))
        return skorch.NeuralNetClassifier(module, max_epochs=1, verbose=0, classes=list(range(10)))

    model, again = make().fit(X, y), make().initialize()
    model.save_params(f_params=tmp_path / "weights.pt")
    again.load_params(f_params=tmp_path / "weights.pt")
    ours = source_of_estimator(model, "k", {})
    assert ours.difference(source_of_estimator(again, "k", {})) is None
    with torch.no_grad():
        again.module_[0].weight *= 5
    assert "module_.0.weight" in ours.difference(source_of_estimator(again, "k", {}))
