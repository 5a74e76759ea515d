"""Teacher-forced scoring with a memory of a million tokens, end to end: the model, ours, and the plain rival.

Targets: at most 2.5 times the model's own time, at a perplexity within 1 % of the recipe's (IVF4096,PQ64).
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch import Tensor

import residua as rs
from benchmarks._language import MEMORY, MODEL, Language, scored
from benchmarks._timing import in_turn
from residua.core import Encoded, Softmax
from residua.encoding import TokenBatch

STEPS = 4  # batches over which a step is timed


def ours(reader: rs.KNNLM):
    """A way to score: encoded rows and their next tokens to log-probabilities and the likeliest tokens (q,)."""

    def score(rows: Encoded, targets: Tensor) -> tuple[Tensor, Tensor]:
        return scored(reader, torch.as_tensor(rows.keys), rows.logits, targets)

    return score


def dense(rival):
    """The same, by the rival's table."""

    def score(rows: Encoded, targets: Tensor) -> tuple[Tensor, Tensor]:
        said = rival(torch.as_tensor(rows.keys), rows.logits.table)
        return said.gather(1, targets[:, None])[:, 0], said.argmax(dim=1)

    return score


def base(rows: Encoded, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The same, by the model alone."""
    said = Softmax(rows.logits)
    return said.log_prob(targets), said.argmax()


def compared(language: Language, ways: dict, batches: list[TokenBatch]) -> dict:
    """Tokens per second, perplexity and accuracy of each way, forward pass included, in turn over the same batches."""
    sums = {name: [0.0, 0.0, 0] for name in ways}
    tokens = sum(len(batch) for batch in batches)
    with torch.inference_mode():
        for number, batch in enumerate([batches[0], *batches]):
            targets = torch.from_numpy(batch.labels)
            for name, way in ways.items():
                start = time.perf_counter()
                logs, likeliest = way(language.encoder.encode(batch), targets)
                took = time.perf_counter() - start
                if number:  # the first batch comes twice, the first time to warm up
                    total = sums[name]
                    total[0] += took
                    total[1] -= float(logs.double().sum())
                    total[2] += int((likeliest == targets).sum())
    return {
        name: {
            "tokens_per_s": round(tokens / took),
            "times_base": round(took / sums["base"][0], 2),
            "perplexity": round(math.exp(loss / tokens), 3),
            "accuracy": round(right / tokens, 4),
        }
        for name, (took, loss, right) in sums.items()
    }


def steps(language: Language, reader: rs.KNNLM, batches: list[TokenBatch], repeat: int = 3) -> dict:
    """Milliseconds and share of each step of ours, over a thousand tokens.

    A step is the time of all up to it less that of all before it: the forward pass; the base's own log-probabilities
    and the gate; the search in compressed codes; exact distances of the nearest and the order; weighing and reading.
    """
    index, depth = reader.memory.index, getattr(reader.memory.index, "rerank", False)
    rows = [language.encoder.encode(batch) for batch in batches]
    targets = [torch.from_numpy(batch.labels) for batch in batches]

    def forward():
        for batch in batches:
            language.encoder.encode(batch)

    def asked() -> list[Tensor]:
        found = []
        for said, truth in zip(rows, targets):
            own = Softmax(said.logits, reader.temperature)
            own.log_prob(truth)
            skipped = reader.skip_mask(own)
            found.append(torch.as_tensor(said.keys) if skipped is None else torch.as_tensor(said.keys)[~skipped])
        return found

    queries = asked()

    def search(exact):
        index.rerank = exact
        for some in queries:
            reader.memory.search(some, reader.k)
        index.rerank = depth

    def whole():
        score = ours(reader)
        for said, truth in zip(rows, targets):
            score(said, truth)

    works = {"forward": forward, "asked": asked, "codes": lambda: search(False), "search": lambda: search(depth)}
    took = in_turn({**works, "whole": whole}, repeat)
    took = {name: 1e6 * seconds / sum(map(len, batches)) for name, seconds in took.items()}
    each = {
        "forward": took["forward"],
        "base_and_gate": took["asked"],
        "search": took["codes"],
        "rerank": max(took["search"] - took["codes"], 0.0),
        "weigh_and_read": max(took["whole"] - took["asked"] - took["search"], 0.0),
    }
    total = sum(each.values())
    return {
        "ms_per_1000_tokens": {name: round(ms, 2) for name, ms in each.items()},
        "share": {name: round(ms / total, 3) for name, ms in each.items()},
        "searched": round(sum(map(len, queries)) / sum(map(len, batches)), 3),
        "bound_by": max(each, key=each.get),
    }


def main(memory: Path = MEMORY, tokens: int = 1_000_000, eval_tokens: int = 40_000, model: Path = MODEL) -> dict:
    """Everything in one run over the same batches; settings are chosen on other documents."""
    language = Language(memory, tokens, eval_tokens, model)
    readers = language.readers()
    ways = {
        "base": base,
        "ours": ours(readers["ours"]),
        "ours, fast index, k as the recipe": ours(readers["fast"]),
        "ours, recipe": ours(readers["exact"]),
        "dense, recipe": dense(language.plain(readers["codes"])),
        "dense, recipe, recomputed distances": dense(language.plain(readers["exact"], recompute=True)),
    }
    batches = language.batches(language.texts.score)
    found = compared(language, ways, batches)
    recipe = min(found[name]["perplexity"] for name in ways if "recipe" in name and name.startswith("dense"))
    return {
        "threads": torch.get_num_threads(),
        "memory_tokens": len(readers["ours"].memory),
        "scored_tokens": sum(len(batch) for batch in batches),
        "index": {name: readers[name].memory.index.name for name in ("ours", "exact")},
        "settings": language.chosen(),
        "ways": found,
        "times_base_target": 2.5,
        "perplexity_over_recipe": round(found["ours"]["perplexity"] / recipe, 4),
        "perplexity_over_recipe_target": 1.01,
        "steps": {name: steps(language, readers[name], batches[:STEPS]) for name in ("ours", "fast", "exact")},
    }
