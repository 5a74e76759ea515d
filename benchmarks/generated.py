"""Encoded rows by the million, where there is no model to ask, always the same ones.

    python -m benchmarks.generated rows/ --rows 10000000

writes ``rows-00.npz``, … of half a million rows each, and ``queries.npz``, 2 000 more that are in none of these. Keys
are the clusters of ``growth``, here of 64 dimensions; a cluster has one of 16 classes, and the model is right about
nine clusters of ten.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

import residua as rs
from benchmarks.growth import CLUSTERS, Keys

DIM, CLASSES, EACH, QUERIES = 64, 16, 500_000, 2_000
APART = 10**6  # of the seeds of queries and of what is added later


class Rows:
    """Blocks of rows by their number."""

    def __init__(self, dim: int = DIM) -> None:
        self.keys, rng = Keys(dim), np.random.default_rng(7)
        self.said = np.where(rng.random(CLUSTERS) < 0.9, np.arange(CLUSTERS), rng.integers(CLUSTERS, size=CLUSTERS))

    def __call__(self, number: int, count: int) -> rs.Encoded:
        keys, cluster = self.keys(number, count)
        logits = np.random.default_rng([8, number]).standard_normal((count, CLASSES), dtype=np.float32)
        logits[np.arange(count), self.said[cluster] % CLASSES] += 3
        return rs.Encoded(keys, logits, cluster % CLASSES)


def write(folder: Path, n: int, dim: int = DIM, each: int = EACH) -> list[Path]:
    """The files of `n` rows, one at a time; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, written = Rows(dim), list[Path]()
    rows(APART, QUERIES).save(folder / "queries.npz")
    for number, first in enumerate(tqdm(range(0, n, each), unit="file")):
        written.append(folder / f"rows-{number:02}.npz")
        rows(number, min(each, n - first)).save(written[-1])
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Encoded rows by the million.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--dim", type=int, default=DIM)
    given = parser.parse_args()
    write(given.folder, given.rows, given.dim)
