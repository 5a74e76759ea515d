"""What is doubtful is said of the caller's own line."""

import contextlib
import warnings

import numpy as np
import pytest
import torch

import residua as rs
from residua.caution import warn


def through(layer, message):
    """`warn` as a function of residua's module `layer` does."""
    space = {"__name__": layer, "warn": warn}
    exec("def say(message):\n    warn(message)", space)
    return space["say"](message)


@pytest.mark.parametrize("layer", ["residua", "residua.memory.edits", "contextlib", "torch.utils._contextlib"])
def test_our_own_frames_are_passed(layer):
    with pytest.warns(UserWarning, match="doubtful") as caught:
        through(layer, "doubtful")
    assert caught[0].filename == __file__


@pytest.mark.parametrize("layer", ["residuals", "notebook", "sklearn.pipeline"])
def test_frames_of_others_are_callers(layer):
    with pytest.warns(UserWarning, match="doubtful") as caught:
        through(layer, "doubtful")
    assert caught[0].filename == "<string>"


def test_however_deep_it_was_said():
    chance = {"keys": np.eye(200), "logits": np.tile(np.eye(2), (100, 1)) * 9, "labels": np.tile([1, 0], 100)}
    with pytest.warns(UserWarning, match="chance") as caught, torch.no_grad(), contextlib.ExitStack():
        rs.Encoded(**chance)
    assert caught[0].filename == __file__


def test_without_a_caller():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile("warn('doubtful')", "<nobody>", "exec"), {"__name__": "residua.nobody", "warn": warn})
    assert str(caught[0].message) == "doubtful"
