"""The CIFAR-ResNets of He et al. 2016 (arXiv 1512.03385, §4.2): 6n + 2 layers, parameter-free shortcuts."""

import os
import re
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

    Parameters
    ----------
    depth : int
        6n + 2 layers, n blocks in each of three stages of 16, 32 and 64 channels: 8, 14, 20, 32, 44, 56, ...
    classes : int
        L, the number of logits.

    Raises
    ------
    ParameterError
        A depth that is not 6n + 2.

    Examples
    --------
    >>> import torch
    >>> model = CifarResNet(8).eval()
    >>> sum(p.numel() for p in model.parameters())
    81140
    >>> tuple(model(torch.zeros(2, 3, 32, 32)).shape)
    (2, 100)
    """

    def __init__(self, depth: int = 8, classes: int = 100):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ParameterError(f"depth={depth}; expected 6n + 2 with n >= 1: 8, 14, 20, 32, 44, 56, ...")
        self.conv = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(WIDTHS[0])
        blocks = []
        channels = WIDTHS[0]
        for width in WIDTHS:
            for _ in range((depth - 2) // 6):
                blocks.append(Block(channels, width, stride=1 if width == channels else 2))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))  # (n, 16, 32, 32)
        x = self.blocks(x)  # (n, 64, 8, 8)
        return self.fc(x.mean(dim=(2, 3)))  # (n, 64) -> (n, L)


def load(path: str | os.PathLike) -> CifarResNet:
    """A trained network from a safetensors file of its ``state_dict``; the tensors tell depth and classes.

    Parameters
    ----------
    path : path
        The file, or the folder that holds ``model.safetensors``.

    Returns
    -------
    CifarResNet
        On the CPU, in eval mode.

    Raises
    ------
    MemoryFileError
        The file is missing, damaged, or holds another network.

    Examples
    --------
    >>> from safetensors.torch import save_file
    >>> save_file(CifarResNet(14, classes=10).state_dict(), "model.safetensors")
    >>> model = load("model.safetensors")
    >>> len(model.blocks), model.fc.out_features, model.training
    (6, 10, False)
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise MemoryFileError(f"{path} cannot be read as safetensors ({error})") from error
    blocks = {int(found[1]) for found in (re.match(r"blocks\.(\d+)\.", name) for name in state) if found}
    if not blocks or len(blocks) % 3 or "fc.bias" not in state:
        raise MemoryFileError(
            f"{path} holds {sorted(state)[:3]} ...; expected a CifarResNet's tensors: conv, bn, blocks.0 ... "
            "blocks.(3n - 1) and fc"
        )
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn only to be replaced
        model = CifarResNet(2 * len(blocks) + 2, classes=len(state["fc.bias"]))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise MemoryFileError(f"{path} does not fit a CifarResNet of its own depth: {error}") from error
    return model.eval()
