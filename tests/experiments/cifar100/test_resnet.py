"""The CIFAR-ResNets are the published ones, and the trained one scores what its card says."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.cifar100.data import normalise, read
from experiments.cifar100.resnet import Block, CifarResNet, load
from residua.errors import MemoryFileError, ParameterError


def expected_parameters(n: int) -> int:
    """Counted from the architecture: convolutions, two numbers per batch-norm channel, and the last layer."""
    total = 9 * 3 * 16 + 2 * 16 + 64 * 100 + 100
    before = 16
    for width in (16, 32, 64):
        total += 9 * before * width + (2 * n - 1) * 9 * width * width + 2 * n * 2 * width
        before = width
    return total


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56])
def test_parameters_and_layers_are_the_published_ones(depth):
    model = CifarResNet(depth)
    assert sum(p.numel() for p in model.parameters()) == expected_parameters((depth - 2) // 6)
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == depth
    assert model.depth == depth


@pytest.mark.parametrize("depth", [-4, 0, 2, 7, 9, 18, 54])
def test_other_depths_are_refused(depth):
    with pytest.raises(ParameterError, match=f"depth={depth}; expected 6n \\+ 2"):
        CifarResNet(depth)


def test_shortcut_subsamples_and_pads_both_sides():
    block = Block(2, 4, stride=2).eval()
    torch.nn.init.zeros_(block.conv2.weight)  # what is left is relu(shortcut)
    x = torch.arange(1.0, 33.0).reshape(1, 2, 4, 4)
    with torch.inference_mode():
        out = block(x)
    assert out[0, :, :, :].tolist() == [
        [[0, 0], [0, 0]],
        [[1, 3], [9, 11]],
        [[17, 19], [25, 27]],
        [[0, 0], [0, 0]],
    ]


def test_saved_network_loads_as_it_was(tmp_path):
    model = CifarResNet(20, classes=10).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    before = torch.get_rng_state()
    loaded = load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert not loaded.training
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(x), model(x))


def test_files_that_hold_no_such_network_are_refused(tmp_path):
    with pytest.raises(MemoryFileError, match="cannot be read"):
        load(tmp_path / "nothing.safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not safetensors")
    with pytest.raises(MemoryFileError, match="cannot be read"):
        load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(MemoryFileError, match="does not hold a CifarResNet's tensors"):
        load(path)
    state = CifarResNet(8).state_dict()
    save_file({**state, "conv.weight": torch.zeros(8, 3, 3, 3)}, path)
    with pytest.raises(MemoryFileError, match=r"conv\.weight"):
        load(path)


def test_trained_network_scores_what_its_card_says(shared):
    folder = shared / "models" / "cifar100-resnet8"
    model = load(folder)
    assert model.state_dict().keys() == load_file(folder / "model.safetensors").keys()
    images, labels = read(shared / "data" / "cifar100", "test")
    assert np.bincount(labels).tolist() == [100] * 100
    with torch.inference_mode():
        batches = torch.from_numpy(images).split(1000)
        predicted = torch.cat([model(normalise(batch)).argmax(dim=1) for batch in batches])
    assert int((predicted.numpy() == labels).sum()) == pytest.approx(5964, abs=3)
