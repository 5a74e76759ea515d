"""What a run leaves: everything when it ends well, finished cells when it is stopped, nothing when it fails."""

import json
import sys
import types

import numpy as np
import pytest

import experiments
from experiments.runner import command, load, read, rounded, run, to_json
from experiments.table import Table
from residua.errors import MemoryFileError, MissingDependencyError, ParameterError


def measure(work, *, names: tuple[str, ...] = ("ab", "c"), scale: float = 1.0, stop: str = ""):
    def double(name):
        if name == stop:
            raise {"x": RuntimeError, "y": KeyboardInterrupt}[stop]
        return 2 * scale * len(name)

    if scale < 0:
        raise ParameterError(f"scale={scale}; expected at least 0")
    return {"names": list(names), "values": np.array(work.map(double, [(name,) for name in names]))}


def tables(results):
    return {"all": Table(("name", "ours"), [(n, f"{v:g}") for n, v in zip(results["names"], results["values"])])}


def draw(results):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot(results["values"])
    return figure


@pytest.fixture
def small(monkeypatch):
    """An experiment called ``small``."""
    module = types.ModuleType("experiments.small", "A small one.")
    module.measure, module.tables, module.draw = measure, tables, draw
    monkeypatch.setitem(sys.modules, "experiments.small", module)
    monkeypatch.setattr("experiments.runner.NAMES", (*experiments.NAMES, "small"))
    return module


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_run_leaves_json_and_png(small, tmp_path):
    record = run("small", tmp_path, scale=1 / 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.json", "small.png"]
    assert record == read(tmp_path / "small.json")
    assert record["results"] == {"names": ["ab", "c"], "values": [1.33333, 0.666667]}
    assert record["command"] == f"python -m experiments small --scale {1 / 3}"
    assert record["options"] == {"names": ["ab", "c"], "scale": 0.333333, "stop": ""}
    assert record["machine"]["versions"].keys() >= {"residua", "torch"}
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")


def test_a_labelled_run_stands_beside_another(small, tmp_path):
    plain = run("small", tmp_path)
    record = run("small", tmp_path, label="twice", scale=2.0)
    assert record["command"] == "python -m experiments small --label twice --scale 2.0"
    assert read(tmp_path / "small.json") == plain
    assert read(tmp_path / "small-twice.json") == record


@pytest.mark.parametrize(
    "wrong", [{"scale": -1.0}, {"label": "../up"}, {"label": "a b"}, {"names": ("x",), "stop": "x"}]
)
def test_a_run_that_fails_leaves_nothing(small, tmp_path, wrong):
    with pytest.raises((ParameterError, RuntimeError)):
        run("small", tmp_path / "results", **wrong)
    assert not list(tmp_path.iterdir())


def test_an_option_that_does_not_exist_is_refused(small, tmp_path):
    with pytest.raises(TypeError, match="size"):
        run("small", tmp_path / "results", size=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("stop", "error"), [("x", RuntimeError), ("y", KeyboardInterrupt)])
def test_only_finished_cells_outlast_an_error_or_an_interruption(small, tmp_path, stop, error):
    with pytest.raises(error) as stopped:
        run("small", tmp_path, names=("ab", "c", stop), stop=stop)
    assert files(tmp_path) == [".unfinished/small.jsonl"]
    assert "2 finished cells are kept in" in "".join(stopped.value.__notes__)
    assert run("small", tmp_path, names=("ab", "c", stop))["results"]["values"] == [4, 2, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.json", "small.png"]


def test_a_picture_that_fails_loses_no_cell_and_writes_no_record(small, tmp_path, monkeypatch):
    monkeypatch.setattr(small, "draw", lambda results: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("small", tmp_path)
    assert files(tmp_path) == [".unfinished/small.jsonl"]


def test_fresh_forgets_what_a_stopped_run_left(small, tmp_path):
    with pytest.raises(RuntimeError):
        run("small", tmp_path, names=("ab", "x"), stop="x")
    kept = tmp_path / ".unfinished" / "small.jsonl"
    kept.write_text(kept.read_text().replace("4.0", "5.0"))
    assert run("small", tmp_path, names=("ab", "x"), fresh=True)["results"]["values"] == [4, 2]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_that_is_a_file_is_named(small, tmp_path, fresh):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MemoryFileError, match="file"):
        run("small", tmp_path / "file", fresh=fresh)
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unknown_experiment_is_refused_by_name():
    with pytest.raises(ParameterError, match=r"no experiment 'nonesuch'; expected one of .*theorem33"):
        load("nonesuch")


def test_a_missing_library_is_named_before_the_work(small, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError("No module named 'sklearn'")

    monkeypatch.setattr("experiments.runner.import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"'sklearn'; .*\[experiments\]"):
        load("small")


def test_the_command_leaves_defaults_out():
    default = {"names": ("ab", "c"), "scale": 1.0, "exact": False, "data": ""}
    assert command("small", default, default) == "python -m experiments small"
    given = {"names": ("def", "c"), "scale": 2.0, "exact": True, "data": "my data"}
    words = "--names def,c --scale 2.0 --exact --data 'my data'"
    assert command("small", given, default) == f"python -m experiments small {words}"


def test_json_keeps_numbers_on_one_line_and_means_the_same():
    record = {"a": [1.5, None, 2], "b": [[1], [2, 3]], "c": ["x", "y [1,\n 2]"], "d": [], "e": {"f": [0.1]}}
    text = to_json(record)
    assert json.loads(text) == record
    assert '"a": [1.5, null, 2]' in text


def test_rounding_makes_plain_json_of_arrays_and_infinities():
    given = {"a": np.array([1.23456789, np.inf]), "b": (np.int64(3), True), 4: 123456789}
    assert rounded(given) == {"a": [1.23457, None], "b": [3, True], "4": 123456789}


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"reproduction": "x"}'])
def test_broken_records_are_refused(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(MemoryFileError, match=r"x\.json"):
        read(path)
