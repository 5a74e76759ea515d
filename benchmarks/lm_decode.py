"""Greedy decoding by ``model.generate`` at batch 1, 8 and 64: the model, attached to a memory, and the plain rival.

Target: at batch 8 at most 1.5 times the model's own time per token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import residua as rs
from benchmarks._language import MEMORY, MODEL, Dense, Language
from benchmarks._timing import in_turn
from residua.core import DenseLogits, Softmax
from residua.encoding.capture import Capture

PROMPT, NEW = 64, 64  # tokens given, and tokens made


@contextmanager
def patched(model: torch.nn.Module, key: str, rival: Dense) -> Iterator[None]:
    """The rival on every position of a model's forward pass."""

    def replace(_, __, output):
        keys, said = capture.take(), output.logits
        keys = keys[:, -said.shape[1] :].reshape(-1, keys.shape[-1])
        output.logits = rival(keys, said.reshape(-1, said.shape[-1])).view(said.shape)
        return output

    with Capture(model, key, pool=False) as capture:
        hook = model.register_forward_hook(replace)
        try:
            yield
        finally:
            hook.remove()


def prompts(language: Language, count: int, length: int = PROMPT) -> Tensor:
    """Beginnings of windows of the scored text, int64 (count, length)."""
    found = [w.tokens[:length] for batch in language.batches(language.texts.score) for w in batch.windows]
    found = [tokens for tokens in found if len(tokens) == length]
    return torch.from_numpy(np.stack([found[i % len(found)] for i in range(count)]))


def decoded(model, given: Tensor, new: int = NEW) -> list[float]:
    """Milliseconds of each new token but the first, which reads the prompt."""
    from transformers import StoppingCriteria

    class Clock(StoppingCriteria):
        def __init__(self):
            self.times: list[float] = []

        def __call__(self, input_ids, scores, **_):
            self.times.append(time.perf_counter())
            return torch.zeros(len(input_ids), dtype=torch.bool)

    clock = Clock()
    length = {"min_new_tokens": new, "max_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    model.generate(given, attention_mask=torch.ones_like(given), stopping_criteria=[clock], **length)
    return (1000 * np.diff(clock.times)).tolist()


def speeds(model, ways: dict[str, Callable[[], AbstractContextManager]], given: Tensor, repeat: int, new: int) -> dict:
    """Milliseconds per step (a new token of every sequence) and tokens per second of each way, in turn."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(repeat + 1):
        for name, way in ways.items():
            with way():
                times = decoded(model, given, new)
            if round_:
                taken[name] += times
    middle = {name: float(np.median(times)) for name, times in taken.items()}
    return {
        name: {
            "p50_ms": round(middle[name], 3),
            "p99_ms": round(float(np.percentile(times, 99)), 3),
            "tokens_per_s": round(1000 * len(given) / float(np.mean(times))),
            "times_base": round(middle[name] / middle["base"], 2),
        }
        for name, times in taken.items()
    }


def steps(language: Language, reader: rs.KNNLM, given: Tensor, repeat: int = 30) -> dict:
    """Milliseconds of what ours adds to one step: the search, and all else from the model's logits to its answer."""
    with torch.inference_mode(), Capture(language.model, language.encoder.key, pool=False) as capture:
        said = language.model(given).logits[:, -1]
        keys = capture.take()[:, -1]
    logits = DenseLogits(said)
    skipped = reader.skip_mask(Softmax(logits, reader.temperature))
    queries = keys if skipped is None else keys[~skipped]
    works = {
        "search": lambda: reader.memory.search(queries, reader.k),
        "whole": lambda: [now.log_probabilities() for _, now in reader.read(keys, logits)],
    }
    took = in_turn(works, repeat)
    return {
        "searched": len(queries),
        "search_ms": round(1000 * took["search"], 3),
        "gate_weigh_and_read_ms": round(1000 * max(took["whole"] - took["search"], 0.0), 3),
    }


def main(
    memory: Path = MEMORY,
    tokens: int = 1_000_000,
    eval_tokens: int = 40_000,
    model: Path = MODEL,
    batches: tuple[int, ...] = (1, 8, 64),
    prompt: int = PROMPT,
    new: int = NEW,
    repeat: int = 5,
) -> dict:
    """The settings are those of ``lm_score``."""
    language = Language(memory, tokens, eval_tokens, model)
    readers, net = language.readers(), language.model
    codes, exact = language.plain(readers["codes"]), language.plain(readers["exact"], recompute=True)
    ways = {
        "base": nullcontext,
        "ours": lambda: rs.attach(net, readers["ours"]),
        "ours, fast index, k as the recipe": lambda: rs.attach(net, readers["fast"]),
        "dense, recipe": lambda: patched(net, language.encoder.key, codes),
        "dense, recipe, recomputed distances": lambda: patched(net, language.encoder.key, exact),
    }
    out = {
        "threads": torch.get_num_threads(),
        "memory_tokens": len(readers["ours"].memory),
        "settings": language.chosen(),
        "prompt_tokens": prompt,
        "new_tokens": new,
        "times_base_target_at_batch_8": 1.5,
    }
    for count in batches:
        given = prompts(language, count, prompt)
        found = speeds(net, ways, given, repeat, new)
        added = steps(language, readers["ours"], given)
        parts = {
            "forward": found["base"]["p50_ms"],
            "search": added["search_ms"],
            "read": added["gate_weigh_and_read_ms"],
        }
        out[f"batch {count}"] = {**found, "added_by_ours": added, "bound_by": max(parts, key=parts.get)}
    return out
