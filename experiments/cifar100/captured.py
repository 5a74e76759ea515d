"""Training on a GPU, several networks at once, each step one CUDA graph.

A step of a small network is some two hundred kernels of a few microseconds, less than it takes to ask for each: a graph
asks once. And one such network fills a part of the card, so others train beside it, each in a stream of its own.
"""

import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from experiments.cifar100.recipe import Recipe, moved, moves
from experiments.cifar100.train import begun, drawn, mark, save

EVERY = 10.0  # seconds between checkpoints


class Captured:
    """One network on its way: the same recipe, order and crops as ``train``, with TF32 convolutions.

    `images` uint8 (n, 32, 32, 3) and `labels` int64 (n,) lie on the GPU.
    """

    def __init__(self, recipe: Recipe, images: Tensor, labels: Tensor, folder: Path):
        self.recipe, self.folder, self._images, self._labels = recipe, folder, images, labels
        self.model, optimizer, self.history = begun(recipe, folder, "cuda")
        self.history["gpu"] = torch.cuda.get_device_name()
        # The rate is a number on the card, which a graph reads anew each time.
        self._rate = torch.zeros((), device="cuda")
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), self._rate, recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
        for parameter in self.model.parameters():
            kept = optimizer.state[parameter].get("momentum_buffer")
            self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter) if kept is None else kept
        n = len(images)
        self._sizes = [recipe.batch] * (n // recipe.batch) + [n % recipe.batch] * (n % recipe.batch > 0)
        self._at, self._step = (torch.zeros(1, dtype=torch.int64, device="cuda") for _ in range(2))
        self._total = torch.zeros((), device="cuda")
        self._rates = torch.zeros(len(self._sizes), device="cuda")
        self._order = torch.zeros(n, dtype=torch.int64, device="cuda")
        self._moves = [
            torch.zeros(n, 1, dtype=dtype, device="cuda") for dtype in (torch.int64, torch.int64, torch.bool)
        ]
        self._stream = torch.cuda.Stream()
        self._graphs = {size: self._captured(size) for size in dict.fromkeys(self._sizes)}
        self._saved = self._began = time.perf_counter()

    @property
    def epoch(self) -> int:
        """How many are done."""
        return len(self.history["loss"])

    @property
    def finished(self) -> bool:
        """Whether all are."""
        return self.epoch == self.recipe.epochs

    def begin(self) -> None:
        """Ask for the next epoch, without waiting for it."""
        self._began, epoch, n = time.perf_counter(), self.epoch, len(self._order)
        order, generator = drawn(self.recipe, epoch, n)
        each = zip(*(moves(size, generator) for size in self._sizes))
        ends = np.cumsum(self._sizes)
        rates = torch.tensor([self.recipe.rate(epoch + end / n) for end in ends.tolist()])
        with torch.cuda.stream(self._stream):
            for there, here in zip((self._order, self._rates, *self._moves), (order, rates, *map(torch.cat, each))):
                there.copy_(here.pin_memory(), non_blocking=True)
            for counter in (self._at, self._step, self._total):
                counter.zero_()
            for size in self._sizes:
                self._graphs[size].replay()

    def end(self) -> None:
        """Wait for the epoch that was begun, and keep what it made."""
        self._stream.synchronize()
        self.history["loss"].append(float(self._total) / len(self._order))
        self.history["seconds"].append(time.perf_counter() - self._began)
        if self.epoch in self.recipe.marks:
            mark(self.model, self.epoch, self.folder)
        if self.finished or time.perf_counter() - self._saved > EVERY:
            self.keep()

    def keep(self) -> None:
        """Write a checkpoint."""
        save(self.model, self.optimizer, self.recipe, self.history, self.folder)
        self._saved = time.perf_counter()

    def _advance(self, size: int) -> None:
        places = self._at + torch.arange(size, device="cuda")
        rows = self._order[places]
        images = moved(self._images[rows], *(part[places] for part in self._moves))
        loss = torch.nn.functional.cross_entropy(self.model(images), self._labels[rows])
        loss.backward()
        self._rate.copy_(self._rates.index_select(0, self._step)[0])
        self.optimizer.step()
        self._total += loss.detach() * size
        self._at += size
        self._step += 1

    def _captured(self, size: int) -> torch.cuda.CUDAGraph:
        """The graph of a step; what trying it out changed is put back."""
        self.model.train()
        torch.backends.cudnn.benchmark = True
        momenta = [self.optimizer.state[parameter]["momentum_buffer"] for parameter in self.model.parameters()]
        kept = [tensor.clone() for tensor in (*self.model.state_dict().values(), *momenta)]
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(3):  # libraries choose their kernels, and make their buffers
                self._advance(size)
                self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._advance(size)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for tensor, before in zip((*self.model.state_dict().values(), *momenta), kept):
                tensor.copy_(before)
        for counter in (self._at, self._step):
            counter.zero_()
        torch.cuda.synchronize()
        return graph


def train_together(trainings: list[Captured], until: float = math.inf) -> None:
    """Train networks beside each other until all are finished, or ``time.perf_counter()`` says `until`; what was done
    is kept.
    """
    going = [one for one in trainings if not one.finished]
    try:
        with tqdm(total=sum(one.recipe.epochs - one.epoch for one in going), unit="epoch", disable=None) as bar:
            while going and time.perf_counter() < until:
                for one in going:
                    one.begin()
                for one in going:
                    one.end()
                bar.update(len(going))
                going = [one for one in going if not one.finished]
    finally:
        for one in going:
            one.keep()
