import sys

import numpy as np
import pytest
from click.testing import CliRunner

import residua as rs
from residua.cli.main import main

NET = """
import torch

CENTRES = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))


def points(seed, n):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return CENTRES[y] + torch.randn(n, 2, generator=generator), y


def train():
    return torch.utils.data.TensorDataset(*points(1, 60))


def val():
    return points(2, 30)


def test():
    return points(3, 30)


def both():
    return model(), train()


class Interrupted(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        if i == 5:
            raise KeyboardInterrupt
        return torch.zeros(2), 0
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder: empty but for ``net.py``, whose import is undone afterwards."""
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    sys.modules.pop("net", None)


@pytest.fixture
def run(here):
    """Run ``residua`` with these words in that folder; it must exit with `code`. Returns what click's runner does."""

    def invoke(*words, code: int = 0):
        done = CliRunner().invoke(main, [str(word) for word in words])
        unforeseen = done.exception if not isinstance(done.exception, SystemExit) else None
        assert done.exit_code == code and unforeseen is None, f"{done.output}\n{done.exception!r}"
        assert "Traceback" not in done.output
        return done

    return invoke


def blobs(seed: int, n: int) -> rs.Encoded:
    """Three classes around three corners, and a base that cannot tell the last two apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    keys = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])[labels] + rng.normal(size=(n, 2))
    logits = np.where(labels[:, None] == 0, [2.0, 0.0, 0.0], [0.0, 1.0, 1.0]) + 0.01 * rng.normal(size=(n, 3))
    return rs.Encoded(keys, logits, labels)


@pytest.fixture
def encoded(here):
    """``train.npz`` (60 rows), ``val.npz`` and ``test.npz`` (30 rows each) in the current folder, by name."""
    parts = {"train": blobs(1, 60), "val": blobs(2, 30), "test": blobs(3, 30)}
    for name, part in parts.items():
        part.save(here / f"{name}.npz")
    return parts


@pytest.fixture
def mem(here, encoded):
    """A memory of ``train.npz`` in ``mem/``, with ids 0 ... 59, and no reader."""
    rs.Memory(encoded["train"]).save(here / "mem")
    return here / "mem"
