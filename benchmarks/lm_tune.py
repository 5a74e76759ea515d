"""What tuning on text takes, and what it buys: the best interpolation, the best with 128 neighbours, and the cheapest
within 1 % of the best, scored on other documents beside the model alone.

Targets: scoring at most 1.3 times the model's own time over half a million tokens and 1.6 times over two million, at a
perplexity within 1 % of the best. One thread; CPU seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

import residua as rs
from benchmarks._language import MEMORY, MODEL, Language
from benchmarks._timing import one_thread, quartile
from benchmarks.lm_score import base, ours

BUDGET = 0.01
SIZES = (500_000, 2_000_000)
WAYS = {"best": {}, "k = 128": {"grid": {"k": [128]}}, "budget": {"budget": BUDGET}}


def tuned(memory: rs.Memory, validation: list[rs.Encoded], **options) -> tuple[rs.KNNLM, dict]:
    """A reader, and how it was chosen: CPU seconds, what they were spent on, settings and validation perplexity."""
    start = time.process_time()
    reader = rs.tune(rs.KNNLM(memory), validation, evidence=None, progress=False, **options)
    took = time.process_time() - start
    said = {"cpu_s": round(took, 2), "settings": len(reader.results_["k"]), **reader.params}
    said |= {"validation_perplexity": round(math.exp(-reader.best_score_), 3)}
    if "budget" in options:
        said |= {"skipped": round(reader.skipped_, 3)}
        said |= {"us_per_row": {k: round(1e6 * seconds, 1) for k, seconds in reader.costs_.items()}}
    return reader, said


def perplexities(language: Language, ways: dict[str, Callable], rounds: int) -> dict[str, dict]:
    """Of each way on the scored text, forward pass included: perplexity, and microseconds of a token."""
    batches = language.batches(language.texts.score)
    sums: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for batch in batches:
            rows, targets = language.encoder.encode(batch), torch.from_numpy(batch.labels)
            for name, way in ways.items():
                sums[name].append(float(way(rows, targets)[0].double().sum()))

        def work(way: Callable) -> Callable[[int], object]:
            def call(number: int) -> object:
                batch = batches[number % len(batches)]
                return way(language.encoder.encode(batch), torch.from_numpy(batch.labels))

            return call

        took = quartile({name: work(way) for name, way in ways.items()}, rounds, 1, 1)
    tokens = sum(map(len, batches))
    return {
        name: {
            "perplexity": round(math.exp(-sum(sums[name]) / tokens), 3),
            "times_base": round(took[name] / took["base"], 3),
        }
        for name in ways
    }


def of_size(folder: Path, tokens: int, eval_tokens: int, model: Path, rounds: int) -> dict:
    """All of it for a memory of so many tokens in `folder`."""
    language = Language(folder, tokens, eval_tokens, model)
    memory, validation = language.memory("knnlm-fast"), language.encoded(language.texts.tune)
    tuned(memory, validation[:1], grid={"k": [1]})  # what is loaded at first use is loaded
    found = {name: tuned(memory, validation, **options) for name, options in WAYS.items()}
    seen = sum(map(len, validation))
    del validation
    measured = perplexities(language, {"base": base} | {name: ours(one) for name, (one, _) in found.items()}, rounds)
    best = measured["best"]["perplexity"]
    return {
        "memory_tokens": len(memory),
        "tuned_on_tokens": seen,
        "index": memory.index.name,
        "tuning": {name: said for name, (_, said) in found.items()},
        "scoring": {name: said | {"over_best": round(said["perplexity"] / best, 4)} for name, said in measured.items()},
    }


def main(
    memory: Path = MEMORY,
    sizes: tuple[int, ...] = SIZES,
    eval_tokens: int = 40_000,
    model: Path = MODEL,
    rounds: int = 12,
) -> dict:
    """Each size has a folder of its own in `memory`; half of `eval_tokens` are tuned on."""
    with one_thread():
        return {
            "threads": 1,
            "budget": BUDGET,
            "targets": {"times_base": {"500000": 1.3, "2000000": 1.6}, "over_best": 1.01},
            "memories": {str(n): of_size(memory / f"{n}", n, eval_tokens, model, rounds) for n in sizes},
        }
