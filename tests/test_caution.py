"""What is doubtful is said of the caller's own line."""

import contextlib
import warnings

import numpy as np
import pytest
import torch

import residua as rs
from residua.caution import warn


def through(*layers):
    """`warn`, called by residua, which is called by functions of modules `layers`, the last one first."""
    call = lambda: warn("doubtful")  # noqa: E731
    for layer in ("residua.core", *layers):
        space = {"__name__": layer, "call": call}
        exec(compile("def through():\n    call()", f"<{layer}>", "exec"), space)
        call = space["through"]
    call()


@pytest.mark.parametrize("layer", ["residua", "residua.memory.edits", "contextlib", "torch.utils._contextlib"])
def test_our_own_frames_are_passed(layer):
    with pytest.warns(UserWarning, match="doubtful") as caught:
        through(layer, "residua.cli")
    assert caught[0].filename == __file__


@pytest.mark.parametrize("layer", ["residuals", "notebook", "sklearn.pipeline"])
def test_frames_of_others_are_callers(layer):
    with pytest.warns(UserWarning, match="doubtful") as caught:
        through(layer, "residua.cli")
    assert caught[0].filename == f"<{layer}>"


def test_however_deep_it_was_said():
    with (
        pytest.warns(UserWarning, match="percentages|probabilities") as caught,
        torch.no_grad(),
        contextlib.ExitStack(),
    ):
        rs.Encoded(np.eye(4), np.full((4, 2), 0.5), [0, 1, 0, 1])
    assert caught[0].filename == __file__


def test_without_a_caller():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile("warn('doubtful')", "<nobody>", "exec"), {"__name__": "residua.nobody", "warn": warn})
    assert str(caught[0].message) == "doubtful"
