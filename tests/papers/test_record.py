"""What a run leaves, and that it is told from its JSON file alone."""

import json
import types

import numpy as np
import pytest

from residua.errors import MemoryFileError, ParameterError
from residua.papers import registry
from residua.papers.page import page, write_page
from residua.papers.record import command, markdown, read, reproduce, rounded, to_json
from residua.papers.reproduction import Option, Reproduction
from residua.papers.table import Table


def run(work, *, names, scale):
    def double(name):
        return 2 * scale * len(name)

    return {"names": list(names), "values": np.array(work.map(double, [(name,) for name in names]))}


def tell(results):
    return ["Some words.", Table(("name", "paper", "ours"), [(n, "4", f"{v:g}") for n, v in zip(*results.values())])]


def draw(results):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot(results["values"])
    return figure


@pytest.fixture
def small(monkeypatch):
    """A reproduction called ``small``, registered for one test."""
    options = {
        "names": Option(("ab", "c"), "Names.", choices=("ab", "c", "def")),
        "scale": Option(1.0, "A factor."),
    }
    module = types.SimpleNamespace(REPRODUCTION=Reproduction("Small", "A paper, Table 1", options, run, tell, draw))
    monkeypatch.setitem(registry.MODULES, "small", ("small_module", "A small one."))
    monkeypatch.setattr(registry, "import_module", lambda name: {"small_module": module}[name])
    return module.REPRODUCTION


def test_run_leaves_json_markdown_and_png(small, tmp_path):
    record = reproduce("small", tmp_path, scale=1 / 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.json", "small.md", "small.png"]
    assert record == read(tmp_path / "small.json")
    assert record["results"] == {"names": ["ab", "c"], "values": [1.33333, 0.666667]}
    assert record["command"] == f"residua reproduce small --scale {1 / 3}"
    assert record["options"] == {"names": ["ab", "c"], "scale": 0.333333}
    text = (tmp_path / "small.md").read_text(encoding="utf-8")
    assert text == markdown(record)
    assert "| ab   |     4 |  1.33333 |" in text
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")


def test_page_is_made_of_records_alone(small, tmp_path):
    reproduce("small", tmp_path / "results")
    text = page(tmp_path / "results", tmp_path / "docs" / "results.md")
    assert "## Small" in text
    assert "](../results/small.png)" in text


def test_labelled_run_stands_beside_another(small, tmp_path):
    plain = reproduce("small", tmp_path / "results")
    record = reproduce("small", tmp_path / "results", label="twice", scale=2.0)
    assert record["command"] == "residua reproduce small --label twice --scale 2.0"
    assert read(tmp_path / "results" / "small.json") == plain
    assert record == read(tmp_path / "results" / "small-twice.json")
    text = write_page(tmp_path / "results", tmp_path / "page.md").read_text(encoding="utf-8")
    assert text.index("## Small\n") < text.index("## Small (twice)\n")
    assert "](results/small-twice.png)" in text
    assert (tmp_path / "results" / "small-twice.md").read_text(encoding="utf-8") == markdown(record)


@pytest.mark.parametrize("fresh", [False, True])
def test_folder_that_is_a_file_is_named(small, tmp_path, fresh):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MemoryFileError, match="file"):
        reproduce("small", tmp_path / "file", fresh=fresh)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("label", ["../up", "a b", "a.b", "a/b"])
def test_label_that_is_no_name_is_refused(small, tmp_path, label):
    with pytest.raises(ParameterError, match="letters, digits and hyphens"):
        reproduce("small", tmp_path, label=label)
    assert not list(tmp_path.iterdir())


def test_page_without_records_says_what_to_run(tmp_path):
    with pytest.raises(MemoryFileError, match="residua reproduce NAME"):
        page(tmp_path)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"size": 3}, "no option size"), ({"names": ("ab", "x")}, "expected one or more of"), ({"names": ()}, "expected")],
)
def test_options_that_do_not_exist_are_refused(small, tmp_path, options, match):
    with pytest.raises(ParameterError, match=match):
        reproduce("small", tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_unknown_reproduction_is_refused_by_name():
    with pytest.raises(ParameterError, match=r"no reproduction 'nonesuch'; expected one of .*theorem33"):
        registry.load("nonesuch")


def test_every_registered_name_is_a_reproduction():
    for name in registry.MODULES:
        reproduction = registry.load(name)
        assert isinstance(reproduction, Reproduction)
        assert all(option.help for option in reproduction.options.values())
        assert reproduction.settings({}).keys() == reproduction.options.keys()


def test_command_leaves_defaults_out(small):
    assert command("small", small.settings({}), small.options) == "residua reproduce small"
    given = small.settings({"names": ["def", "c"], "scale": 2.0})
    assert command("small", given, small.options) == "residua reproduce small --names def,c --scale 2.0"


def test_json_keeps_numbers_on_one_line_and_means_the_same():
    record = {"a": [1.5, None, 2], "b": [[1], [2, 3]], "c": ["x", "y [1,\n 2]"], "d": [], "e": {"f": [0.1]}}
    text = to_json(record)
    assert json.loads(text) == record
    assert '"a": [1.5, null, 2]' in text


def test_rounding_makes_plain_json_of_arrays_and_infinities():
    assert rounded({"a": np.array([1.23456789, np.inf]), "b": (np.int64(3), True)}) == {
        "a": [1.23457, None],
        "b": [3, True],
    }


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"reproduction": "x"}'])
def test_broken_records_are_refused(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(MemoryFileError, match=r"x\.json"):
        read(path)
