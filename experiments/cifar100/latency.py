"""Section 4.2's claim about cost: for one image, the network and its memory together take less than the next larger
network, and the memory is small."""

import time

import torch

import residua as rs
from experiments.cifar100.data import normalise
from experiments.cifar100.headline import fitting
from experiments.cifar100.networks import encoded, split
from experiments.cifar100.resnet import CifarResNet, load
from experiments.published import CIFAR100_RESNET8
from experiments.table import Table

REPEAT = 300
WARM_UP = 20


def latency(weights: str, data: str, fraction: float, seed: int, device: str) -> dict:
    """Median time for one image after another, three ways in turn, on the CPU.

    ``milliseconds`` (``base``; ``resmem``, the same network with its memory attached, at the paper's settings;
    ``next``, the network six layers deeper, whose weights do not matter), ``parameters`` (of ``base`` and ``next``),
    ``threads``, and ``megabytes`` (10^6 bytes) of the memory's ``keys`` and ``logits``.
    """
    remembered, _ = encoded(weights, data, fraction, seed, device)
    memory = rs.Memory(remembered)
    base, own = load(weights), load(weights)
    with torch.random.fork_rng(devices=[]):
        deeper = CifarResNet(base.depth + 6).eval()
    images, ways = split(data, "test")[0], {"base": base, "resmem": own, "next": deeper}
    taken = {name: [] for name in ways}
    with rs.attach(own, rs.ResMem(memory, **fitting(memory))), torch.inference_mode():
        for i in range(WARM_UP + REPEAT):
            x = normalise(images[i % len(images)][None])
            for name, network in ways.items():
                start = time.perf_counter()
                network(x)
                taken[name].append(1000 * (time.perf_counter() - start))
    return {
        "milliseconds": {name: float(torch.tensor(times[WARM_UP:]).median()) for name, times in taken.items()},
        "parameters": {name: sum(p.numel() for p in ways[name].parameters()) for name in ("base", "next")},
        "threads": torch.get_num_threads(),
        "megabytes": {"keys": remembered.keys.nbytes / 1e6, "logits": remembered.logits.dense().nbytes / 1e6},
    }


def table(depth: int, found: dict) -> Table:
    """Milliseconds, the paper's beside ours."""
    paper, ours = CIFAR100_RESNET8["milliseconds"], found["milliseconds"]
    parameters = {name: f"{count:,}" for name, count in found["parameters"].items()}
    both = paper["resnet8"] + paper["search"]
    rows = [
        [f"ResNet-{depth}, {parameters['base']} parameters", f"{paper['resnet8']}", f"{ours['base']:.2f}"],
        [f"ResNet-{depth} with its memory", f"{both:.1f}", f"{ours['resmem']:.2f}"],
        [f"ResNet-{depth + 6}, {parameters['next']} parameters", f"{paper['resnet14']}", f"{ours['next']:.2f}"],
    ]
    threads = "1 CPU thread" if found["threads"] == 1 else f"{found['threads']} CPU threads"
    return Table((f"milliseconds an image, on {threads}", "paper (ResNet-8, 14)", "ours"), rows)
