import sys

import numpy as np
import pytest
import torch

import residua as rs
from residua.cli.loaders import data_named, made_as, model_named, named
from residua.errors import InputError, MemoryFileError


def test_a_function_is_called_and_anything_else_is_used_as_it_is(here):
    (here / "net.py").write_text("import torch\nlayer = torch.nn.Linear(2, 3)\ndef make():\n    return 5\n")
    assert named("net:make") == 5
    assert isinstance(named("net:layer"), torch.nn.Linear)  # callable, and yet no factory
    assert isinstance(named("torch.nn:Identity"), torch.nn.Identity)
    assert named("collections:OrderedDict") == {}  # a class is called
    assert named("os:path.sep") == __import__("os").sep


def test_modules_of_the_current_folder_are_found_first(here, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(here)])
    assert isinstance(named("net:model"), torch.nn.Module)


def test_a_factory_may_give_model_and_data(here):
    model, data = model_named("net:both")
    assert isinstance(model, torch.nn.Module) and len(data) == 60
    assert model_named("net:model")[1] is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("net", "expected module:factory"),
        (":model", "expected module:factory"),
        ("nonesuch_module:f", "No module named 'nonesuch_module'"),
        ("net:nonesuch", "has no attribute 'nonesuch'"),
    ],
)
def test_what_does_not_resolve_is_an_input_error(here, spec, message):
    with pytest.raises(InputError, match=message):
        named(spec)


def test_an_error_inside_a_factory_is_the_users_own(here):
    (here / "net.py").write_text("def f():\n    raise ZeroDivisionError\n")
    with pytest.raises(ZeroDivisionError):
        named("net:f")


def test_arrays_of_a_file(here):
    np.savez("a.npz", X=np.eye(2), y=[0, 1], ids=[5, 6])
    x, y, ids = data_named("a.npz")
    assert x.tolist() == [[1, 0], [0, 1]] and y.tolist() == [0, 1] and ids.tolist() == [5, 6]
    np.savez("b.npz", x=np.eye(2))
    assert data_named("b.npz")[1:] == (None, None)


def test_files_that_will_not_do(here, encoded):
    np.savez("o.npz", x=np.array([{}], dtype=object))
    (here / "torn.npz").write_bytes((here / "train.npz").read_bytes()[:200])
    with open("one.npz", "wb") as file:
        np.save(file, np.eye(2))
    for name in ("none.npz", "torn.npz", "o.npz", "one.npz"):
        with pytest.raises(MemoryFileError, match=name):
            data_named(name)
    with pytest.raises(InputError, match="encoded already; expected x"):
        data_named("train.npz")


def test_made_as_reads_files_and_folders(here, mem):
    assert made_as(None) is None
    assert isinstance(made_as(mem), rs.Memory)
    assert isinstance(made_as(here / "val.npz"), rs.Encoded)
