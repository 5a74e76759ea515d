"""The schedule is the paper's, crops and flips are crops and flips."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.cifar100.data import normalise
from experiments.cifar100.recipe import Recipe, crop_and_flip, subset
from residua.errors import ParameterError


def test_rate_is_the_papers():
    recipe = Recipe()
    assert recipe.rate(1) == pytest.approx(0.4 / 15)
    for epoch, rate in ((15, 0.4), (95, 0.4), (96, 0.04), (191, 0.04), (192, 4e-3), (223, 4e-3), (224, 4e-4)):
        assert recipe.rate(epoch) == pytest.approx(rate)
    assert recipe.marks == (128, 160, 192, 224, 256)


def test_other_lengths_scale_every_mark():
    recipe = Recipe(epochs=128)
    for epoch in (0.5, 7, 7.5, 47.9, 48, 96, 112, 127):
        assert recipe.rate(epoch) == pytest.approx(Recipe().rate(2 * epoch))
    assert recipe.marks == (64, 80, 96, 112, 128)
    assert Recipe(epochs=1).marks == (1,)


@given(st.integers(1, 400))
def test_the_last_mark_is_the_last_epoch(epochs):
    marks = Recipe(epochs=epochs).marks
    assert marks[-1] == epochs
    assert marks[0] >= 1
    assert list(marks) == sorted(set(marks))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"fraction": 0.0}, {"fraction": 1.5}, {"batch": 0}])
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(ParameterError, match="expected"):
        Recipe(**wrong)


def test_names_tell_recipes_apart():
    recipes = [Recipe(), Recipe(14), Recipe(epochs=3), Recipe(fraction=0.1), Recipe(seed=1)]
    assert len({recipe.name for recipe in recipes}) == len(recipes)


@given(st.integers(0, 100), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_subsets_are_balanced_and_nested(seed, one, other):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(4), 25))
    small, large = (subset(labels, share, seed) for share in sorted((one, other)))
    assert set(small) <= set(large)
    counts = np.bincount(labels[small], minlength=4)
    assert len(set(counts)) == 1
    assert abs(counts[0] - 25 * min(one, other)) <= 0.5 + 1e-9
    assert (np.diff(small) > 0).all()


def test_crops_and_flips_are_what_slicing_gives():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    found = crop_and_flip(torch.from_numpy(images), torch.Generator().manual_seed(3))
    assert found.shape == (40, 3, 32, 32)
    seen = set()
    for image, result in zip(images, found):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        places = [
            (top, left, flip)
            for top in range(9)
            for left in range(9)
            for flip in (False, True)
            if torch.equal(normalise(padded[top : top + 32, left : left + 32], flip=flip), result)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 30
    assert {flip for *_, flip in seen} == {False, True}
    assert {top for top, *_ in seen} >= {0, 8}
