import numpy as np
import pytest

import residua as rs

CLASSES = ("cat", "dog", "<script>alert(1)</script>")


@pytest.fixture(scope="session")
def made():
    """``made(n, seed, task)``: rows around three centres, whose model knows them half."""
    return _made


def _made(n, seed=0, task="classification", names=None):
    rng, centres = np.random.default_rng(seed), np.random.default_rng(9).normal(size=(3, 6))
    labels = rng.integers(0, 3, n)
    keys = (centres[labels] + 1.4 * rng.normal(size=(n, 6))).astype(np.float32)
    said = (keys @ centres.T + 1.5 * rng.normal(size=(n, 3))).astype(np.float32)
    if task == "regression":
        targets = keys @ np.arange(6.0) + rng.normal(size=n)
        return rs.Encoded(keys, (targets + 3 * rng.normal(size=n))[:, None], targets, task="regression")
    if task == "multi-label":
        return rs.Encoded(keys, said, (keys[:, :3] > 0).astype(np.int8), task="multi-label")
    named = None if names is None else [f"{names}/{i}.txt" for i in range(n)]
    return rs.Encoded(keys, said, labels, classes=CLASSES, names=named)


@pytest.fixture
def memory(made):
    return rs.Memory(made(300, names="kept"))


class Letters:
    """A tokenizer whose tokens are letters."""

    def encode(self, text, add_special_tokens=True):
        return [ord(letter) % 128 for letter in text]

    def decode(self, tokens):
        return "".join(map(chr, tokens))


@pytest.fixture(scope="session")
def letters():
    return Letters()


@pytest.fixture(scope="session")
def text_memory():
    """``text_memory(*texts)``: a memory of texts whose tokens are letters; ``rows=True``: the rows alone."""
    return _text_memory


def _text_memory(*texts, rows=False, first=0):
    tokens = [Letters().encode(text) for text in texts]
    labels, rng = np.concatenate(tokens), np.random.default_rng(len(texts))
    ids = first + np.repeat(np.arange(len(texts)), [len(one) for one in tokens])
    offsets = np.concatenate([np.arange(len(one)) for one in tokens])
    keys = np.eye(128)[labels][:, ::4] + 0.1 * rng.normal(size=(len(labels), 32))
    said = rng.normal(size=(len(labels), 128)) + 4 * np.eye(128)[labels] * (rng.random((len(labels), 1)) < 0.5)
    data = rs.Encoded(keys, said, labels, ids, columns={"offset": offsets})
    return data if rows else rs.Memory(data, names={first + i: f"text {first + i}" for i in range(len(texts))})
