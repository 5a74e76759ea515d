"""A reader becomes an MLflow model, in which nothing is pickled, and comes back."""

import json
from pathlib import Path

import numpy as np
import pytest

import residua as rs
from residua.errors import InputError, MemoryFileError, ParameterError

pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'residua[mlflow]'")

import mlflow

from residua.integrations import mlflow as flavour

# MLflow's own words about its future, and about Python's.
pytestmark = [pytest.mark.filterwarnings("ignore:.*"), pytest.mark.slow]


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rs.Encoded(rng.normal(size=(60, 4)), rng.normal(size=(60, 3)), np.arange(60) % 3, classes=["a", "b", "c"])


@pytest.fixture
def reader(rows):
    return rs.ResMem(rs.Memory(rows[:40]), k=3, sigma=0.5)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """Where runs are kept: a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    yield
    mlflow.set_tracking_uri(before)


def asked(rows):
    return {"keys": rows.keys.astype(np.float32), "logits": np.asarray(rows.logits.dense(), np.float32)}


def test_a_saved_model_answers_as_the_reader(reader, rows, tmp_path):
    flavour.save_model(reader, tmp_path / "model")
    served, test = mlflow.pyfunc.load_model(str(tmp_path / "model")), rows[40:]
    np.testing.assert_array_equal(served.predict(asked(test)), reader.predict(test))
    for method in ("predict_proba", "scores"):
        np.testing.assert_array_equal(
            served.predict(asked(test), params={"method": method}), getattr(reader, method)(test)
        )


def test_a_data_frame_of_lists(reader, rows, tmp_path):
    pandas = pytest.importorskip("pandas")
    flavour.save_model(reader, tmp_path / "model")
    served, test = flavour._load_pyfunc(str(tmp_path / "model" / "data" / "memory")), asked(rows[40:])
    frame = pandas.DataFrame({name: list(values) for name, values in test.items()})
    np.testing.assert_array_equal(served.predict(frame), reader.predict(rows[40:]))


def test_nothing_is_pickled(reader, tmp_path):
    flavour.save_model(reader, tmp_path / "model")
    files = [file for file in (tmp_path / "model").rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".yaml", ".yml", ".txt", ""}
    assert not any(b"cloudpickle" in file.read_bytes() for file in files)
    assert not any(file.read_bytes()[:2] in (b"\x80\x04", b"\x80\x05") for file in files)
    assert rs.Memory.verify(tmp_path / "model" / "data" / "memory").damaged == ()


def test_a_regression(tmp_path):
    keys = np.arange(12.0).reshape(6, 2)
    reader = rs.ResMem(rs.Memory(rs.Encoded(keys, np.zeros(6), np.arange(6.0))), k=1)
    flavour.save_model(reader, tmp_path / "model")
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    test = {"keys": keys.astype("float32"), "logits": np.zeros((6, 1), "float32")}
    assert served.predict(test).reshape(-1) == pytest.approx(np.arange(6.0))


def test_a_logged_model_with_its_measures(reader, rows):
    result = rs.evaluate(reader, rows[40:])
    with mlflow.start_run() as run:
        logged = flavour.log_model(reader, name="memory", metadata={"of": "a test"})
        mlflow.log_metrics(result.metrics())
    again = flavour.load_model(logged.model_uri)
    assert again.params == reader.params
    np.testing.assert_array_equal(again.scores(rows[40:]), reader.scores(rows[40:]))
    served = mlflow.pyfunc.load_model(logged.model_uri)
    np.testing.assert_array_equal(served.predict(asked(rows[40:])), reader.predict(rows[40:]))
    metrics = mlflow.get_run(run.info.run_id).data.metrics
    assert metrics["accuracy"] == result.accuracy and metrics["base_accuracy"] == result.base_accuracy


def test_a_model_in_memory_is_left_as_it_is(reader, rows, tmp_path):
    before = reader.scores(rows[40:])
    reader.save(tmp_path / "mine")
    flavour.save_model(reader, tmp_path / "model")
    reader.memory.forget([0])
    reader.save(tmp_path / "mine")  # which is still the folder that it knows
    assert len(rs.Memory.load(tmp_path / "mine")) == 39
    np.testing.assert_array_equal(flavour.load_model(str(tmp_path / "model")).scores(rows[40:]), before)


@pytest.mark.parametrize("wrong", [{"keys": np.ones((2, 4))}, {"x": 1}, np.ones((2, 4)), [[1.0]]])
def test_inputs_that_are_no_keys_and_logits(reader, wrong, tmp_path):
    flavour.save_model(reader, tmp_path / "model")
    served = flavour._load_pyfunc(str(tmp_path / "model" / "data" / "memory"))
    with pytest.raises(InputError, match=r"expected 'keys' \(n, d\) and 'logits' \(n, L\)"):
        served.predict(wrong)


def test_a_method_that_is_none(reader, rows, tmp_path):
    flavour.save_model(reader, tmp_path / "model")
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    with pytest.raises(ParameterError, match="expected one of predict, predict_proba, scores"):
        served.predict(asked(rows[40:]), params={"method": "__init__"})


def test_pickles_are_refused(reader, tmp_path):
    with pytest.raises(ParameterError, match="python_model="):
        flavour.save_model(reader, tmp_path / "model", python_model=object())


def test_a_model_of_another_flavour(tmp_path):
    model = mlflow.models.Model()
    model.add_flavor("python_function", loader_module="sklearn", data="model.pkl")
    (tmp_path / "other").mkdir()
    model.save(str(tmp_path / "other" / "MLmodel"))
    with pytest.raises(MemoryFileError, match="is of sklearn"):
        flavour.load_model(str(tmp_path / "other"))


@pytest.mark.parametrize("elsewhere", ["..", "/", "../mine"])
def test_a_model_that_names_a_folder_elsewhere(reader, tmp_path, elsewhere):
    reader.save(tmp_path / "mine")
    flavour.save_model(reader, tmp_path / "model")
    file = tmp_path / "model" / "MLmodel"
    file.write_text(file.read_text().replace("data: data/memory", f"data: {json.dumps(elsewhere)}"))
    with pytest.raises(MemoryFileError, match="not its own"):
        flavour.load_model(str(tmp_path / "model"))


def test_a_damaged_model(reader, tmp_path):
    flavour.save_model(reader, tmp_path / "model")
    rows = next((tmp_path / "model" / "data" / "memory").glob("rows-*"))
    Path(rows).write_bytes(rows.read_bytes()[:-1] + bytes([rows.read_bytes()[-1] ^ 1]))
    with pytest.raises(MemoryFileError, match="corrupted"):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))
