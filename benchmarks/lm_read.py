"""Weighing and combining alone, the search excluded: the sparse stream against a dense [T, V] table (target: 3x)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import residua as rs
from benchmarks._language import Dense, scored
from benchmarks._timing import in_turn
from residua.core import AbsentLogits, DenseLogits, Encoded, Neighbours

ROWS = 200_000
LMBDA, SIGMA = 0.25, 40.0


class Given:
    """In place of a memory's index: each query's neighbours are known, and its key is its number."""

    def __init__(self, index, neighbours: Neighbours, centre: float):
        self.index, self.neighbours, self.centre = index, neighbours, centre

    def __getattr__(self, name: str):
        return getattr(self.index, name)

    def search(self, queries: Tensor, k: int, keys: Tensor | None) -> Neighbours:
        """Those of the numbered queries, which come in order."""
        first = round(float(queries[0, 0]) + self.centre)  # a memory hands over what keys differ by from their centre
        return self.neighbours[first : first + len(queries)]


def given(queries: int, k: int, vocabulary: int, rows: int = ROWS) -> tuple[rs.KNNLM, Tensor, Tensor, Tensor]:
    """A reader of neighbours that are known, the queries' numbers (q, 1) as keys, logits (q, V) and next tokens (q,).

    Labels are as frequent as words are (Zipf), and distances spread as those of a small GPT-2's keys.
    """
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    frequent = 1 / np.arange(1, vocabulary + 1)
    labels = rng.choice(vocabulary, rows, p=frequent / frequent.sum())
    keys = np.arange(rows, dtype=np.float32)[:, None]
    said = AbsentLogits(rows, vocabulary)
    columns = {"offset": np.arange(rows)}
    about = Encoded(keys, said, labels, np.zeros(rows, np.int64), columns=columns, task="classification")
    memory = rs.Memory(about, storage="none")
    found = torch.randint(rows, (queries, k), generator=generator)
    distances = (6 + 6 * torch.rand(queries, k, generator=generator)).sort(dim=1).values
    memory.index = Given(memory.index, Neighbours(found, distances), float(memory.schema.key_centre[0]))
    logits = torch.randn(queries, vocabulary, generator=generator) * 3
    targets = torch.from_numpy(rng.choice(labels, queries))
    reader = rs.KNNLM(memory, k=k, lmbda=LMBDA, sigma=SIGMA)
    return reader, torch.arange(queries, dtype=torch.float32)[:, None], logits, targets


def measured(queries: int, k: int, vocabulary: int, repeat: int) -> dict:
    """Both ways, for scoring (the target's log-probability and the likeliest token) and for generation (all V)."""
    reader, keys, logits, targets = given(queries, k, vocabulary)
    near = reader.memory.index.neighbours
    squared = near.distances.square()
    dense = Dense(lambda queries: (near.rows, squared), reader.memory.column("label").long(), LMBDA, SIGMA)

    def ours() -> tuple[Tensor, Tensor]:
        return scored(reader, keys, DenseLogits(logits), targets)

    def rival() -> tuple[Tensor, Tensor]:
        said = dense(keys, logits)
        return said.gather(1, targets[:, None])[:, 0], said.argmax(dim=1)

    def ours_all() -> Tensor:
        return torch.cat([now.log_probabilities() for _, now in reader.read(keys, DenseLogits(logits))])

    differ = float((ours()[0] - rival()[0]).abs().max())
    took = in_turn(
        {"ours": ours, "dense": rival, "ours_all": ours_all, "dense_all": lambda: dense(keys, logits)}, repeat
    )
    micro = {name: round(1e6 * seconds / queries, 1) for name, seconds in took.items()}
    # What any way must read once: the logits, and each neighbour's row number, distance and label.
    moved = queries * (4 * vocabulary + k * (8 + 4 + 4))
    return {
        "k": k,
        "vocabulary": vocabulary,
        "largest_difference": differ,
        "score_us_per_query": {"ours": micro["ours"], "dense": micro["dense"]},
        "score_speedup": round(took["dense"] / took["ours"], 2),
        "log_probabilities_us_per_query": {"ours": micro["ours_all"], "dense": micro["dense_all"]},
        "log_probabilities_speedup": round(took["dense_all"] / took["ours_all"], 2),
        "score_gb_per_s": round(moved / took["ours"] / 1e9, 2),
    }


def main(queries: int = 4096, ks=(128, 1024), vocabularies=(8192, 50_257), repeat: int = 5) -> dict:
    """All shapes in one run."""
    return {
        "threads": torch.get_num_threads(),
        "queries": queries,
        "speedup_target": 3,
        "shapes": [measured(queries, k, vocabulary, repeat) for vocabulary in vocabularies for k in ks],
    }
