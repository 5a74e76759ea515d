"""The CIFAR-ResNets of He et al. 2016 (arXiv 1512.03385, §4.2): 6n + 2 layers, parameter-free shortcuts."""

import os
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from residua.errors import MemoryFileError, ParameterError

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut that subsamples and pads channels with zeros ("option A")."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.pad = (channels - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.pad:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.pad, self.pad))
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class CifarResNet(nn.Module):
    """A residual network for 32×32 images; its key is the 64-d input of ``fc``.

    `depth` is 6n + 2 (8, 14, 20, 32, 44, 56, ...): n blocks in each of three stages of 16, 32 and 64 channels.
    """

    def __init__(self, depth: int = 8, classes: int = 100):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ParameterError(f"depth={depth}; expected 6n + 2 with n >= 1: 8, 14, 20, 32, 44, 56, ...")
        self.conv = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        widths = [width for width in WIDTHS for _ in range((depth - 2) // 6)]
        sides = pairwise([WIDTHS[0], *widths])
        self.blocks = nn.Sequential(*(Block(before, width, 1 if width == before else 2) for before, width in sides))
        self.fc = nn.Linear(WIDTHS[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def depth(self) -> int:
        """Convolutions and the linear layer."""
        return 2 * len(self.blocks) + 2

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))  # (n, 16, 32, 32)
        x = self.blocks(x)  # (n, 64, 8, 8)
        return self.fc(x.mean(dim=(2, 3)))  # (n, 64) -> (n, L)


def load(path: str | os.PathLike) -> CifarResNet:
    """A trained network, in eval mode on the CPU, from a safetensors file of its ``state_dict`` or its folder.

    Raises
    ------
    MemoryFileError
        The file is missing, damaged, or holds another network.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    try:
        state = load_file(path)
        blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn only to be replaced
            model = CifarResNet(2 * len(blocks) + 2, classes=len(state["fc.bias"]))
        model.load_state_dict(state)
    except (OSError, SafetensorError) as error:
        raise MemoryFileError(f"{path} cannot be read as safetensors ({error})") from error
    except (KeyError, ParameterError, RuntimeError) as error:
        raise MemoryFileError(f"{path} does not hold a CifarResNet's tensors: {error}") from error
    return model.eval()
