"""The package as a whole: its names, its weight, its version and its error tree."""

import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import residua as rs
from residua import errors

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPTIONAL = {"faiss", "sklearn", "transformers", "pandas", "matplotlib", "torchvision", "PIL", "jinja2", "starlette"}
OURS = {"browser", "docs", "experiments", "tables", "test", "translation"}  # extras for whoever works on residua
VERBS = ["attach", "audit", "distil", "edit", "encode", "evaluate", "explain", "inspect", "report", "tune"]
PUBLIC = [
    "AdaptiveLambda",
    "ContinuousCache",
    "DenseLogits",
    "Distilled",
    "Edited",
    "Encoded",
    "Gated",
    "HeadLogits",
    "KNNLM",
    "Logits",
    "Memory",
    "Passages",
    "Pooled",
    "RanPAC",
    "ResMem",
    "TopLogits",
    "__version__",
    "attach",
    "audit",
    "conformal",
    "distil",
    "edit",
    "encode",
    "errors",
    "evaluate",
    "explain",
    "from_pretrained",
    "inspect",
    "lm",
    "load",
    "report",
    "tune",
]
OBJECTS = [name for name in PUBLIC if name != "__version__"]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_public_names_are_exactly_these():
    assert sorted(rs.__all__) == PUBLIC
    assert dir(rs) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_exists(name):
    assert getattr(rs, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        _ = rs.nonesuch


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh Python has loaded after running `code`."""
    return set(run(f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})").split())


def test_import_loads_nothing_else():
    assert loaded_after("import residua") - loaded_after("pass") == {"residua"}


@pytest.mark.slow
def test_public_names_load_no_optional_dependency():
    loaded = loaded_after(f"import residua\nfor name in {PUBLIC}:\n    getattr(residua, name)")
    assert "torch" in loaded
    assert not loaded & OPTIONAL


def modules() -> list[str]:
    """Every module of the package, by its dotted name."""
    root = ROOT / "src"
    return [".".join(file.relative_to(root).with_suffix("").parts) for file in sorted((root / "residua").rglob("*.py"))]


@pytest.mark.slow
def test_every_module_can_be_imported_by_its_own_name():
    """No room shares its name with a verb, so that ``import residua.x.y as z`` works in a fresh interpreter."""
    # What the tests do without.
    without = {f"residua.integrations.{name}" for name in ("lightning", "mlflow", "ray")}
    optional = {"residua.hooks.lm_eval", *without}
    names = [name.removesuffix(".__init__") for name in modules() if name not in optional]
    run("\n".join(f"import {name} as one" for name in names) + "\nimport residua as rs\nassert callable(rs.tune)")


@pytest.mark.parametrize(("old", "new"), [("records", "residua.core"), ("read", "residua.readers")])
def test_a_name_that_is_gone_says_the_new_one(old, new):
    with pytest.raises(AttributeError, match=f"no attribute '{old}'; it is {new} now"):
        getattr(rs, old)


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_version_is_one_version():
    entries = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert rs.__version__ == importlib.metadata.version("residua") == pyproject()["version"] == entries[0] == cited[1]


def test_the_readme_lists_every_extra_and_what_it_brings():
    rows = re.findall(r"^\| `\"?residua(?:\[([\w-]+)\])?\"?` \| (.*?) \|", README, flags=re.MULTILINE)
    listed = {extra: set(re.findall(r"[\w-]+", brings)) for extra, brings in rows if extra not in ("lm-eval", "all")}
    declared = {"": pyproject()["dependencies"], **pyproject()["optional-dependencies"]}
    required = {extra: {re.match(r"[\w-]+", line)[0] for line in lines} for extra, lines in declared.items()}
    assert {extra for extra, _ in rows} == set(required) - OURS
    assert listed == {extra: required[extra] for extra in listed}
    everything = set(re.findall(r"\w+", declared["all"][0])) - {"residua"}
    large = {"datasets", "lightning", "milvus", "mlflow", "pgvector", "ray", "trainer"}
    assert everything == set(required) - {"", "all", "demo", "lm-eval"} - large - OURS


def test_supported_pythons_are_the_tested_ones():
    listed = re.findall(r":: (3\.\d+)", "\n".join(pyproject()["classifiers"]))
    tested = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))[1]
    assert pyproject()["requires-python"] == f">={listed[0]}"
    assert listed == re.findall(r"3\.\d+", tested)
    assert f"Python {listed[0]} to {listed[-1]}" in README


def test_the_wheel_is_small_typed_and_the_library_alone(tmp_path):
    building = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(building, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.iterdir()
    assert wheel.stat().st_size <= 900_000  # and it holds no data, no picture, no experiment
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    assert {"residua/py.typed", "residua/reporting/templates/report.html"} <= set(names)
    assert {name.split("/")[0] for name in names} == {"residua", f"residua-{rs.__version__}.dist-info"}
    links = re.findall(r"\]\((\S+?)\)", metadata)  # the package index has no files for a relative one to lead to
    assert links
    assert all(link.startswith(("https://", "#")) for link in links)


def drawn_tree() -> dict[str, list[str]]:
    """Class name -> names of its bases, read off the drawing in the docstring of ``residua.errors``."""
    tree, path = {}, []
    for line in errors.__doc__.splitlines():
        found = re.match(r" {4}([│├└─ ]*)([A-Z]\w+)(?: \((\w+)\))?", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            parent = path[depth - 1] if depth else "Exception"
            tree[found[2]] = [parent] + ([found[3]] if found[3] else [])
    return tree


def test_error_tree_is_drawn_as_it_is():
    real = {
        name: [base.__name__ for base in cls.__bases__]
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and cls.__module__ == errors.__name__
    }
    assert "DtypeError" in real
    assert drawn_tree() == real


@pytest.mark.parametrize("name", OBJECTS)
def test_public_name_and_its_methods_are_documented(name):
    thing = getattr(rs, name)
    assert inspect.getdoc(thing)
    if inspect.isclass(thing):
        public = [attribute for attribute in vars(thing) if not attribute.startswith("_")]
        methods = [m for m in public if callable(getattr(thing, m)) or isinstance(vars(thing)[m], property)]
        assert [method for method in methods if not inspect.getdoc(getattr(thing, method))] == []


@pytest.mark.parametrize(
    "name", ["Encoded", "Memory", "ResMem", "KNNLM", "ContinuousCache", "AdaptiveLambda", "load", *VERBS]
)
def test_what_users_type_has_an_example(name):
    thing = getattr(rs, name)
    text = (inspect.getdoc(thing) or "") + (inspect.getdoc(importlib.import_module(thing.__module__)) or "")
    assert ">>> " in text
