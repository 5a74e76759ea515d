"""Building a memory of text against a bare forward pass over the same windows (target: at most 1.10 times as long)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import residua as rs
from benchmarks._language import CUT, MODEL, Language
from benchmarks._timing import in_turn
from residua.encoding.language_model import padded

TOKENS = 60_000


def main(tokens: int = TOKENS, model: Path = MODEL, repeat: int = 3) -> dict:
    """In turn: the model alone, its keys (logits not asked for), keys and logits, and the whole streamed build with
    tokenizer, exact index and files; code-gpt2 on source code."""
    language = Language(tokens=tokens, eval_tokens=1000, model=model)
    batches = language.batches(language.texts.memory)
    inputs = [padded([window.tokens for window in batch.windows], 0, "cpu") for batch in batches]
    keys_only = type(language.encoder)(
        language.model, language.tokenizer, windowing=language.encoder.windowing, logits=False
    )

    def forward():
        with torch.inference_mode():
            for ids, mask in inputs:
                language.model(input_ids=ids, attention_mask=mask)

    def encode(encoder):
        for batch in batches:
            encoder.encode(batch)

    def build():
        texts = [(text.name, text.text) for text in language.texts.memory]
        with tempfile.TemporaryDirectory() as folder:
            rs.lm.remember(language.model, language.tokenizer, texts, folder, index="exact", progress=False, **CUT)

    works = {
        "forward": forward,
        "keys": lambda: encode(keys_only),
        "keys_and_logits": lambda: encode(language.encoder),
        "build": build,
    }
    took = in_turn(works, repeat)
    rows = sum(map(len, batches))
    return {
        "tokens": rows,
        "window": CUT,
        "tokens_per_s": {name: round(rows / seconds) for name, seconds in took.items()},
        "times_forward": {name: round(seconds / took["forward"], 3) for name, seconds in took.items()},
        "target_ratio": 1.10,
    }
