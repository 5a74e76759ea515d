"""A training that is killed and resumed ends where it would have ended."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from experiments.cifar100 import train as module
from experiments.cifar100.data import normalise
from experiments.cifar100.recipe import Recipe
from experiments.cifar100.resnet import load
from experiments.cifar100.train import STATE, mark_name, train
from residua.errors import MemoryFileError

RECIPE = Recipe(epochs=3, batch=16, peak=0.05)


def coloured(n: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Three classes that differ in their colour."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    images = rng.integers(0, 60, (n, 32, 32, 3)) + 160 * np.eye(3, dtype=int)[labels][:, None, None]
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(RECIPE, *coloured(), folder)


def test_history_marks_and_learning(whole):
    folder, history = whole
    assert len(history["loss"]) == len(history["seconds"]) == 3
    assert history["loss"][-1] < history["loss"][0]
    assert sorted(path.name for path in folder.iterdir()) == [*map(mark_name, RECIPE.marks), STATE]
    images, labels = coloured()
    with torch.inference_mode():
        logits = load(folder / mark_name(3))(normalise(images)).argmax(dim=1)
    assert (logits.numpy() == labels).mean() > 0.9


@pytest.mark.parametrize("killed_in", ["first epoch", "second epoch", "a checkpoint"])
def test_resumed_equals_uninterrupted(whole, tmp_path, monkeypatch, killed_in):
    plain = module.crop_and_flip
    calls = 0

    def stops(images, generator):
        nonlocal calls
        calls += 1
        if calls == {"first epoch": 2, "second epoch": 5}[killed_in]:
            raise KeyboardInterrupt
        return plain(images, generator)

    def tears(tensors, path, metadata=None):
        path.write_bytes(b"torn")
        raise KeyboardInterrupt

    if killed_in == "a checkpoint":
        monkeypatch.setattr(module, "save_file", tears)
    else:
        monkeypatch.setattr(module, "crop_and_flip", stops)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, *coloured(), tmp_path)
    monkeypatch.undo()
    torch.manual_seed(123)  # whatever the process drew before
    history = train(RECIPE, *coloured(), tmp_path)
    assert history["loss"] == whole[1]["loss"]
    for name in (mark_name(3), STATE):
        one, two = load_file(tmp_path / name), load_file(whole[0] / name)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert not list(tmp_path.glob("*.part"))


def test_finished_training_is_not_repeated(whole, monkeypatch):
    monkeypatch.setattr(module, "train_epoch", lambda *_: pytest.fail("trained again"))
    assert train(RECIPE, *coloured(), whole[0]) == whole[1]


def test_seeds_differ_and_the_callers_randomness_is_left_alone(whole, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    history = train(Recipe(epochs=1, batch=16, peak=0.05, seed=1), *coloured(), tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert history["loss"][0] != whole[1]["loss"][0]


def test_damaged_and_foreign_checkpoints_are_refused(whole, tmp_path):
    with pytest.raises(MemoryFileError, match=r"was made by .* give another folder"):
        train(Recipe(epochs=3, batch=16, peak=0.06), *coloured(), whole[0])
    (tmp_path / STATE).write_bytes((whole[0] / STATE).read_bytes()[:1000])
    with pytest.raises(MemoryFileError, match="no whole checkpoint"):
        train(RECIPE, *coloured(), tmp_path)
    (tmp_path / STATE).write_bytes((whole[0] / mark_name(3)).read_bytes())
    with pytest.raises(MemoryFileError, match="no whole checkpoint"):
        train(RECIPE, *coloured(), tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MemoryFileError, match="cannot write"):
        train(Recipe(epochs=1, batch=16), *coloured(16), tmp_path / "file" / "below")
