"""Joint training, the future work that ResMem names: a network whose loss sees what the memory will add, beside plain
training for the same time."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot, relu

import residua as rs
from experiments.cifar100 import networks
from experiments.cifar100.data import normalise
from experiments.cifar100.resnet import CifarResNet, load
from experiments.figures import BASE, RESMEM, dot, legend_below, panels
from experiments.halves import crossed, paired, percent
from experiments.machine import device_of
from experiments.shown import interval
from experiments.table import Table
from experiments.work import Work
from residua.core import Encoded
from residua.errors import ParameterError

SHARE, STRENGTH, QUEUE = 0.5, 4.0, 8192  # of the reader in the loss; of its residual in the exponent; rows
BATCH, RATE, MOMENTUM, DECAY = 128, 0.02, 0.9, 1e-4
GRID: dict[str, list] = {"k": [5, 20, 53, 130], "temperature": [0.7, 1.0, 1.4, 2.0]}
SIGMA = 2.0 ** np.arange(-3, 1)  # in multiples of the typical distance between neighbours
WAYS = {
    "before": "the network as it was",
    "steps": "trained on, plainly, as many steps",
    "plain": "trained on, plainly, as long",
    "joint": "**trained on, jointly**",
}


def measure(
    work: Work,
    *,
    weights: str = "results/networks/resnet8-100percent-256epochs-seed0-epoch128.safetensors",
    data: str = "../shared/data/cifar100",
    epochs: int = 3,
    seeds: int = 1,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> dict:
    """Train the last block and the head of a network on, both ways, and put a memory on each.

    Parameters
    ----------
    weights : str
        A trained CIFAR-ResNet (.safetensors, or its folder).
    data : str
        Folder of cifar-100-python, or of train/ and test/ mosaics.
    epochs : int
        Of joint training; plain training has as many steps, and as much time.
    seeds : int
        Repetitions.
    device : str
        Where the network lives.
    """
    if epochs < 1 or seeds < 1:
        raise ParameterError(f"epochs={epochs}, seeds={seeds}; expected at least one of each")
    return {"runs": work.map(run_of, [(weights, data, epochs, seed, device) for seed in range(seeds)], desc="joint")}


@dataclass
class Queue:
    """Keys of the last rows that were seen, their labels and what was said of them, each with its number."""

    keys: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    said: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def push(self, keys: Tensor, labels: Tensor, said: Tensor, rows: Tensor) -> None:
        """Remember rows, and forget the oldest."""
        new = {"keys": keys, "labels": labels, "said": said, "rows": rows}
        for name, values in new.items():
            held = getattr(self, name)
            joined = torch.cat([held, values.detach()]) if len(held) else values.detach()
            setattr(self, name, joined[-QUEUE:])


def residual(keys: Tensor, rows: Tensor, queue: Queue, outputs: int) -> Tensor:
    """The weighted mean of (label - what was said) over the queue, without a query's own row, (n, L).

    Kernel weights are softmax(-d² / σ²), σ² the median of the nearest distances squared; their gradients flow into the
    keys.
    """
    apart = torch.cdist(keys, queue.keys).square()
    apart = apart.masked_fill(queue.rows[None] == rows[:, None], torch.inf)
    typical = apart.detach().amin(dim=1).median().clamp_min(1e-12)
    weights = torch.softmax(-apart / typical, dim=1)
    return weights @ (one_hot(queue.labels, outputs).to(keys) - queue.said)


def joint_loss(logits: Tensor, keys: Tensor, labels: Tensor, rows: Tensor, queue: Queue) -> Tensor:
    """Cross-entropy of the network, and of the network with the residual in the exponent, in equal shares."""
    plain = cross_entropy(logits, labels)
    if not len(queue.rows):
        return plain
    corrected = logits + STRENGTH * residual(keys, rows, queue, logits.shape[1])
    return (1 - SHARE) * plain + SHARE * cross_entropy(corrected, labels)


def run_of(weights: str, data: str, epochs: int, seed: int, device: str) -> dict:
    """``ways``: by name the ``base``'s and the ``memory``'s accuracy in %, ``seconds`` and ``steps`` of training;
    ``joint over plain``: paired differences of both."""
    where = device_of(device)
    images, labels = networks.split(data, "train")
    asked, truth = networks.split(data, "test")
    network = load(weights).to(where)
    seen, mirrored, test = (front(network, some) for some in (images, images[:, :, ::-1], asked))
    right, ways = dict[str, dict[str, np.ndarray]](), dict[str, dict]()
    spent = 0.0
    for way in ("before", "joint", "steps", "plain"):
        network = load(weights).to(where)
        begun, steps = time.process_time(), 0
        if way != "before":
            steps = train(network, seen, mirrored, torch.from_numpy(labels), way, epochs, seed, spent)
        seconds = time.process_time() - begun
        spent = seconds if way == "joint" else spent
        right[way] = answered(network, seen, test, labels, truth)
        ways[way] = {name: percent(own) for name, own in right[way].items()} | {"seconds": seconds, "steps": steps}
    rng = np.random.default_rng(0)
    over = {name: list(paired(right["joint"][name], right["plain"][name], rng)[:3]) for name in ("base", "memory")}
    return {"ways": ways, "over": over}


@torch.no_grad()
def front(network: CifarResNet, images: np.ndarray) -> Tensor:
    """What all blocks but the last say of images, float16 (n, 32, 16, 16): this part stays as it is."""
    parts = []
    for start in range(0, len(images), 1000):
        x = normalise(np.ascontiguousarray(images[start : start + 1000])).to(network.fc.weight.device)
        parts.append(network.blocks[:-1](relu(network.bn(network.conv(x)))).half().cpu())
    return torch.cat(parts)


def back(network: CifarResNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and logits."""
    keys = network.blocks[-1](x.to(network.fc.weight)).mean(dim=(2, 3))
    return keys, network.fc(keys)


def train(
    network: CifarResNet,
    seen: Tensor,
    mirrored: Tensor,
    labels: Tensor,
    way: str,
    epochs: int,
    seed: int,
    seconds: float,
) -> int:
    """Train the last block and the head by SGD along a cosine, for `epochs`, or, ``plain``, for so many seconds of CPU
    time; the steps it took."""
    tail = [*network.blocks[-1].parameters(), *network.fc.parameters()]
    optimizer = torch.optim.SGD(tail, RATE, momentum=MOMENTUM, weight_decay=DECAY)
    chance, queue, begun, steps = torch.Generator().manual_seed(seed), Queue(), time.process_time(), 0
    total = epochs * -(-len(labels) // BATCH)
    network.blocks[-1].train()
    for rows in batches(len(labels), chance):
        done = (time.process_time() - begun) / seconds if way == "plain" else steps / total
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + np.cos(np.pi * done)) / 2
        flipped = torch.rand(len(rows), generator=chance) < 0.5
        x = torch.where(flipped[:, None, None, None], mirrored[rows], seen[rows])
        keys, logits = back(network, x)
        truth, own = labels[rows].to(logits.device), rows.to(logits.device)
        loss = joint_loss(logits, keys, truth, own, queue) if way == "joint" else cross_entropy(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if way == "joint":
            queue.push(keys, truth, torch.softmax(logits, dim=1), own)
        steps += 1
    network.eval()
    return steps


def batches(n: int, chance: torch.Generator) -> Iterator[Tensor]:
    """Rows in batches, all of them in a new order each time, for ever."""
    while True:
        yield from torch.randperm(n, generator=chance).split(BATCH)


@torch.no_grad()
def answered(
    network: CifarResNet, seen: Tensor, test: Tensor, labels: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    """Which test rows the network is right about, and the same with ResMem, tuned on the other half of them."""
    memory, queries = (encoded(network, *one) for one in ((seen, labels), (test, truth)))
    reader = rs.ResMem(rs.Memory(memory), k=1)
    grid = GRID | {"sigma": list(SIGMA * reader.memory.median_nn_distance())}
    return {
        "base": queries.logits.argmax().numpy() == truth,
        "memory": crossed(reader, queries, grid)[0] == truth,
    }


def encoded(network: CifarResNet, x: Tensor, labels: np.ndarray) -> Encoded:
    """Rows through the last block and the head."""
    parts = [back(network, part) for part in x.split(1000)]
    keys, logits = (torch.cat(some).cpu().numpy() for some in zip(*parts))
    return Encoded(keys, logits, labels)


def tables(results: dict) -> dict[str, Table]:
    """Every way, in the mean over seeds; joint over plain training for the same time, by seed."""
    runs, rows = results["runs"], []
    for way, label in WAYS.items():
        mean = {
            name: np.mean([run["ways"][way][name] for run in runs]) for name in ("base", "memory", "steps", "seconds")
        }
        gain = f"{mean['memory'] - mean['base']:+.2f}"
        numbers = (
            f"{mean['base']:.2f}",
            f"{mean['memory']:.2f}",
            gain,
            f"{mean['steps']:.0f}",
            f"{mean['seconds']:.0f}",
        )
        rows.append([label, *numbers])
    columns = ("accuracy, %", "alone", "with ResMem", "gain", "steps", "CPU seconds")
    over = [
        [str(seed), *(interval(run["over"][name], bold=True) for name in ("base", "memory"))]
        for seed, run in enumerate(runs)
    ]
    return {
        "ways": Table(columns, rows),
        "over": Table(("seed", "joint − plain, as long: alone", "with ResMem"), over),
    }


def draw(results: dict) -> Figure:
    """Accuracy of every way, alone and with a memory."""
    figure, ((axes,),) = panels(1, 1, (6, 3.2))
    for run in results["runs"]:
        for at, way in enumerate(WAYS):
            for name, colour, label in (("base", BASE, "alone"), ("memory", RESMEM, "with ResMem")):
                dot(axes, at, run["ways"][way][name], colour=colour, label=label)
    axes.set(ylabel="accuracy, %", xticks=range(len(WAYS)))
    axes.set_xticklabels([label.replace("*", "").replace(", ", ",\n") for label in WAYS.values()], fontsize=8)
    legend_below(figure, [axes])
    return figure
