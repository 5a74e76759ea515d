"""Training that may be killed at any moment: a checkpoint an epoch, and the same weights as if nothing had happened."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from experiments.cifar100.recipe import Recipe, crop_and_flip
from experiments.cifar100.resnet import CifarResNet
from residua.core.atomic import atomic_write
from residua.errors import MemoryFileError

STATE = "state.safetensors"  # the newest epoch's network and momentum


def train(recipe: Recipe, images: np.ndarray, labels: np.ndarray, folder: Path, device: str = "cpu") -> dict:
    """Train a network, or go on with one that was stopped; its mean ``loss`` and ``seconds`` of each epoch.

    The folder gets ``state.safetensors`` after every epoch, and ``epoch-NNN.safetensors`` (a ``state_dict``, for
    ``resnet.load``) at each of the recipe's marks. Everything random follows from (seed, epoch) and is drawn on the
    CPU, so that a stopped and resumed run gives the weights of an uninterrupted one, bit for bit on the same machine
    and thread count.

    Raises
    ------
    MemoryFileError
        When a checkpoint cannot be written, or the folder's is damaged or of another recipe.
    """
    model, optimizer, history = begun(recipe, folder, device)
    images, labels = (torch.as_tensor(array).to(device) for array in (images, labels))
    done = len(history["loss"])
    with tqdm(total=recipe.epochs, initial=done, desc=recipe.name, unit="epoch", disable=None) as bar:
        for epoch in range(done, recipe.epochs):
            began = time.perf_counter()
            history["loss"].append(train_epoch(model, optimizer, recipe, epoch, images, labels))
            history["seconds"].append(time.perf_counter() - began)
            if epoch + 1 in recipe.marks:
                mark(model, epoch + 1, folder)
            save(model, optimizer, recipe, history, folder)
            bar.set_postfix(loss=f"{history['loss'][-1]:.3f}")
            bar.update()
    return history


def begun(recipe: Recipe, folder: Path, device: str) -> tuple[CifarResNet, torch.optim.SGD, dict]:
    """The network, its optimizer and its history, as the folder has them, or new."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_seed(recipe.seed, 0))
        model = CifarResNet(recipe.depth)
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.peak, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    return model, optimizer, restore(model, optimizer, recipe, folder)


def drawn(recipe: Recipe, epoch: int, n: int) -> tuple[Tensor, torch.Generator]:
    """The order of `n` images in one epoch, and what their crops are drawn from next."""
    generator = torch.Generator().manual_seed(_seed(recipe.seed, epoch + 1))
    return torch.randperm(n, generator=generator), generator


def train_epoch(
    model: CifarResNet, optimizer: torch.optim.SGD, recipe: Recipe, epoch: int, images: Tensor, labels: Tensor
) -> float:
    """One pass over the images in an order drawn from (seed, epoch); the mean loss."""
    order, generator = drawn(recipe, epoch, len(images))
    order = order.to(images.device)
    model.train()
    total = torch.zeros((), device=images.device)
    for first in range(0, len(order), recipe.batch):
        rows = order[first : first + recipe.batch]
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch + (first + len(rows)) / len(order))
        logits = model(crop_and_flip(images[rows], generator))
        loss = torch.nn.functional.cross_entropy(logits, labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(rows)
    return float(total) / len(order)


def mark(model: CifarResNet, epoch: int, folder: Path) -> None:
    """Keep the network as it is after `epoch` epochs."""
    _write(folder / mark_name(epoch), model.state_dict())


def mark_name(epoch: int) -> str:
    """The file of the network after `epoch` epochs."""
    return f"epoch-{epoch:03d}.safetensors"


def save(model: CifarResNet, optimizer: torch.optim.SGD, recipe: Recipe, history: dict, folder: Path) -> None:
    """The newest state, whole or not at all."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        tensors[f"momentum.{name}"] = optimizer.state[parameter]["momentum_buffer"]
    _write(folder / STATE, tensors, {"recipe": json.dumps(asdict(recipe)), "history": json.dumps(history)})


def restore(model: CifarResNet, optimizer: torch.optim.SGD, recipe: Recipe, folder: Path) -> dict:
    """Put the newest state into model and optimizer; its history, empty when there is none."""
    path = folder / STATE
    if not path.exists():
        return {"loss": [], "seconds": []}
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
        tensors = load_file(path)
        made, history = json.loads(about["recipe"]), json.loads(about["history"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MemoryFileError(f"{path} is no whole checkpoint ({error}); remove it to train from the start") from error
    if made != asdict(recipe):
        raise MemoryFileError(f"{path} was made by {made}; expected {asdict(recipe)}: give another folder")
    model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    for name, parameter in model.named_parameters():
        # As the parameter lies in memory, so that the resumed arithmetic is the same.
        momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
        optimizer.state[parameter]["momentum_buffer"] = momentum
    return history


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    with atomic_write(path) as part:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part, metadata)
        except SafetensorError as error:
            raise MemoryFileError(f"cannot write {path}: {error}") from error


def _seed(seed: int, part: int) -> int:
    return int(np.random.SeedSequence([seed, part]).generate_state(1, np.uint64)[0] >> 1)
