"""``residua serve`` before it serves: what it is given, and what it refuses. The rest is in tests/serving."""

import importlib.util

import numpy as np
import pytest
from click.testing import CliRunner

import residua as rs
from residua.cli.main import main


@pytest.fixture
def asked(monkeypatch):
    """``asked(*arguments)``: what a server would be made of, and what was said."""
    serving = pytest.importorskip("residua.serving", reason="the server: pip install residua[serve]")
    made = {}

    class Server:
        url = "http://127.0.0.1:8000"

        def __init__(self, readers, model=None, **options):
            made.update(readers=readers, model=model, **options)

        def run(self):
            made["ran"] = True

    monkeypatch.setattr(serving, "Server", Server)

    def call(*arguments):
        made.clear()
        done = CliRunner().invoke(main, ["serve", *map(str, arguments)])
        return made, done

    return call


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    memory = rs.Memory(rs.Encoded(rng.normal(size=(30, 4)), rng.normal(size=(30, 3)), np.arange(30) % 3))
    rs.ResMem(memory, k=4, sigma=0.5).save("ada")
    memory.save("bob")
    return tmp_path


def test_a_memory_is_served_live_under_its_folders_name(asked, folders):
    made, done = asked("ada", "--port", 0, "--rate", 5, "--wait", 7)
    assert done.exit_code == 0 and done.stdout == "http://127.0.0.1:8000\n" and made["ran"]
    ((name, (reader, path)),) = made["readers"].items()
    assert (name, path.name, reader.params["k"]) == ("ada", "ada", 4)
    assert made["limits"].rate == 5 and made["limits"].wait == 0.007 and made["model"] is None
    reader.memory.forget([3])
    assert 3 not in rs.Memory.load("ada")


def test_tenants_and_readers(asked, folders):
    made, done = asked("--tenant", "a=ada", "--tenant", "b=bob", "--tokens", "tokens.json")
    assert done.exit_code == 0 and {name: path.name for name, (_, path) in made["readers"].items()} == {
        "a": "ada",
        "b": "bob",
    }
    assert "bob holds no tuned reader: resmem's defaults" in done.stderr
    assert isinstance(made["readers"]["b"][0], rs.ResMem)
    made, _ = asked("bob", "--reader", "knnlm", "--k", 3)
    assert isinstance(made["readers"]["bob"][0], rs.KNNLM) and made["readers"]["bob"][0].k == 3


@pytest.mark.parametrize(("second", "shape"), [("", None), (", np.zeros((9, 1, 4))", (1, 4)), (", (X, [0])", (4,))])
def test_a_factory_may_give_examples_whose_shape_is_then_known(asked, folders, second, shape):
    module = f"made_{len(second)}"  # a module is imported once
    factory = f"def model():\n    return torch.nn.Linear(4, 3){second}\n"
    (folders / f"{module}.py").write_text(f"import numpy as np\nimport torch\nX = np.zeros((9, 4))\n\n\n{factory}")
    made, done = asked("ada", "--model", f"{module}:model")
    assert done.exit_code == 0, done.output
    assert made["shape"] == shape and type(made["model"]).__name__ == "Linear" and made["name"] == "model"
    assert asked("ada", "--model", f"{module}:model", "--input-shape", "2,2")[0]["shape"] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected either MEMORY or --tenant"),
        (("ada", "--tenant", "a=ada"), "expected either MEMORY or --tenant"),
        (("--tenant", "ada"), "is not NAME=FOLDER"),
        (("--tenant", "a/b=ada"), "is not NAME=FOLDER"),
        (("--tenant", "operator=ada"), "is not NAME=FOLDER"),
        (("--tenant", "a=ada", "--tenant", "a=bob"), "two tenants are called 'a'"),
        (("nothing",), "is not a memory"),
        (("ada", "--rate", -1), "expected a limit above 0"),
        (("ada", "--input-shape", "3,x"), "not a list of numbers"),
    ],
)
def test_what_cannot_be_served_is_said(asked, folders, arguments, said):
    made, done = asked(*arguments)
    assert done.exit_code != 0 and said in done.stderr and "ran" not in made


def test_without_the_extra_it_says_how_to_get_it(folders, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    done = CliRunner().invoke(main, ["serve", "ada"])
    assert done.exit_code != 0 and 'pip install "residua[serve]"' in done.stderr
