"""Keys of tables with missing numbers and categories."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

import residua as rs
from residua.encoding.sklearn import keys_of
from residua.encoding.table_keys import columns_of
from residua.errors import ShapeError
from residua.sklearn import ResMemClassifier, ResMemRegressor

pandas = pytest.importorskip("pandas")
RNG = np.random.default_rng(0)


def table(n=600):
    frame = pandas.DataFrame({"size": RNG.normal(size=n), "colour": RNG.choice(["red", "blue", "green"], n)})
    labels = ((frame["colour"] == "red") ^ (frame["size"] > 0)).to_numpy().astype(int)
    frame.loc[::9, "size"] = np.nan
    return frame.astype({"colour": "category"}), labels


def boosted(rows, labels):
    return HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype").fit(rows, labels)


def test_a_missing_number_is_the_mean_and_other_categories_are_one_apart():
    frame = pandas.DataFrame({"number": [1.0, np.nan, 3.0, 2.0], "name": ["a", "b", None, "a"]})
    labels = [0, 1, 0, 1]
    model = boosted(frame.astype({"name": "category"}), labels)
    keys, name, statistics = keys_of(model, frame.astype({"name": "category"}))
    assert name == "HistGradientBoostingClassifier:input" and keys.shape == (4, 4)
    np.testing.assert_allclose(keys[:, 0], (np.array([1, 2, 3, 2]) - 2) / np.std([1, 2, 3]), atol=1e-6)
    apart = np.linalg.norm(keys[:, None, 1:] - keys[None, :, 1:], axis=2)
    np.testing.assert_allclose(apart, [[0, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0]], atol=1e-6)
    new = pandas.DataFrame({"number": [2.0], "name": pandas.Categorical(["new"])})
    again = keys_of(model, new, statistics=statistics).keys
    np.testing.assert_array_equal(again, [[0, 0, 0, 0]])
    with pytest.raises(ShapeError, match="1 and 0"):
        keys_of(model, new[["number"]], statistics=statistics)


@pytest.mark.parametrize("values", [[["a", 1], ["b", 2]], [[None, 1], ["b", 2]]])
def test_columns_of_an_array_of_objects(values):
    numbers, names = columns_of(np.array(values, dtype=object))
    assert numbers.tolist() == [[1.0], [2.0]] and list(names) == [0]
    assert columns_of(np.array([[1, 2.5]], dtype=object)) is None


def test_a_memory_keeps_what_makes_them(tmp_path):
    frame, labels = table()
    model = boosted(frame[:400], labels[:400])
    rs.Memory(rs.encode(model, frame[:400], labels[:400])).save(tmp_path)
    memory = rs.Memory.load(tmp_path)
    assert memory.dim == 4
    queries = rs.encode(model, frame[400:405], like=memory)  # which do not have every category
    assert memory.search(queries.keys, 3).distances.shape == (5, 3)


def test_boosting_with_missing_numbers_and_categories():
    frame, labels = table()
    base = HistGradientBoostingClassifier(max_iter=1, categorical_features="from_dtype")
    model = ResMemClassifier(base, k=5).fit(frame[:400], labels[:400])
    assert model.score(frame[400:], labels[400:]) > 0.85
    rows = RNG.normal(size=(300, 3))
    rows[::7, 1] = np.nan
    regressor = ResMemRegressor(HistGradientBoostingRegressor(max_iter=2), k=5).fit(rows, rows[:, 0] ** 2)
    assert regressor.score(rows, rows[:, 0] ** 2) > regressor.estimator_.score(rows, rows[:, 0] ** 2)


@pytest.mark.parametrize(
    ("module", "name", "params"),
    [
        ("xgboost", "XGBClassifier", {"n_estimators": 2, "enable_categorical": True}),
        ("lightgbm", "LGBMClassifier", {"n_estimators": 2, "verbose": -1}),
        ("catboost", "CatBoostClassifier", {"iterations": 2, "verbose": False, "allow_writing_files": False}),
        ("catboost", "CatBoostRegressor", {"iterations": 2, "verbose": False, "allow_writing_files": False}),
    ],
)
def test_other_boosters_with_their_own_categories(module, name, params):
    base = getattr(pytest.importorskip(module), name)(**params)
    frame, labels = table()
    own = {"cat_features": ["colour"]} if module == "catboost" else {}
    frame = frame.astype({"colour": object}) if own else frame
    wrapper = ResMemRegressor if name.endswith("Regressor") else ResMemClassifier
    model = wrapper(base, k=5).fit(frame[:400], labels[:400], **own)
    assert model.score(frame[400:], labels[400:]) > 0.6  # neighbours are of one colour and size


def test_a_sampler_before_the_classifier():
    pipeline = pytest.importorskip("imblearn.pipeline").make_pipeline
    sampler = pytest.importorskip("imblearn.over_sampling").RandomOverSampler(random_state=0)
    rows = RNG.normal(size=(300, 3))
    labels = (rows[:, 0] > 1).astype(int)
    base = pipeline(sampler, HistGradientBoostingClassifier(max_iter=2))
    model = ResMemClassifier(base, k=5).fit(rows, labels)
    assert model.memory_.source.class_weight == "balanced" and model.predict(rows).shape == (300,)
