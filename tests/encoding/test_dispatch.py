"""Which kind of model it is, and what is neither."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

import residua as rs
from residua.errors import EncodeError, ParameterError


@pytest.mark.parametrize(
    ("model", "what"), [(lambda x: x, "a function"), (Ridge, "the class Ridge"), (None, "a NoneType"), ("net", "a str")]
)
def test_other_models_are_told_to_bring_arrays(model, what):
    with pytest.raises(EncodeError, match=rf"the model is {what}.*rs\.Encoded\(keys, logits, labels\)"):
        rs.encode(model, np.zeros((2, 2)))


def test_cv_needs_an_estimator():
    with pytest.raises(ParameterError, match="torch module is not refitted"):
        rs.encode(torch.nn.Linear(2, 2), torch.zeros(2, 2), cv=5)


def test_unfitted_estimators():
    with pytest.raises(EncodeError, match="not fitted"):
        rs.encode(LogisticRegression(), np.zeros((2, 2)), cv=5)


def test_like_takes_whatever_knows_its_model():
    model, x = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2)), torch.zeros(4, 2)
    enc = rs.encode(model, (x, [0, 1, 0, 1]), key="0")

    class Memory:
        source, task = enc.source, enc.task

    class Reader:
        memory = Memory()

    for like in (enc, enc.source, Memory(), Reader()):
        assert rs.encode(model, x, like=like).source.key == "0"
    with pytest.raises(ParameterError, match="int that does not know its model"):
        rs.encode(model, x, like=3)


@pytest.mark.slow
def test_encoding_a_torch_model_loads_no_other_framework():
    code = (
        "import sys, torch, residua as rs\n"
        "rs.encode(torch.nn.Linear(2, 2), torch.zeros(2, 2))\n"
        "assert not {'sklearn', 'faiss', 'transformers', 'pandas'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
