"""What a GPU makes of exact search, of scoring text with kNN-LM, and of decoding with a memory.

Needs a CUDA GPU, torch and, for text, transformers; what is missing is left out and named. Models have random weights:
how long they take does not depend on what they have learnt.
"""

from __future__ import annotations

import importlib.util
import statistics
import sysconfig
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

import residua as rs

ROWS, QUERIES = 1_000_000, 2048
DIMS, KS = (64, 256, 1024), (53, 1024)
SHARE_TARGET = 0.6  # of the card's own float32 matrix products
MODELS = {
    "10 M": {"n_layer": 4, "n_embd": 256, "n_head": 4},
    "85 M": {"n_layer": 12, "n_embd": 768, "n_head": 12},
    "1.4 B": {"n_layer": 48, "n_embd": 1536, "n_head": 24},
}
MEMORY_TOKENS, SCORED_TOKENS, WINDOW, VOCABULARY = 500_000, 20_000, 256, 8192
BATCHES, PROMPT, NEW = (1, 8, 64), 64, 32


def milliseconds(work: Callable[[], object], repeat: int = 7) -> float:
    """Median time of `work`, until the GPU has done it."""
    times = []
    for turn in range(repeat + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if turn:
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def matrix_rate(n: int = 8192) -> dict:
    """TFLOP/s of square products: the card's own rate in float32, TF32 and bfloat16."""
    found, before = {}, torch.get_float32_matmul_precision()
    for name, precision, dtype in (
        ("float32", "highest", torch.float32),
        ("tf32", "high", torch.float32),
        ("bfloat16", "highest", torch.bfloat16),
    ):
        torch.set_float32_matmul_precision(precision)
        a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
        found[name] = round(2 * n**3 / milliseconds(lambda a=a, b=b: a @ b) / 1e9, 1)
    torch.set_float32_matmul_precision(before)
    return found


def search(rate: float) -> dict:
    """Exact search of a batch over a million rows: its time, and the share of the card's float32 rate that its
    2·q·n·d operations reach; beside it the products alone, and ``topk`` over whole rows of them."""
    found = {}
    for dim in DIMS:
        torch.manual_seed(0)
        keys = torch.randn(ROWS, dim)
        memory = rs.Memory(
            rs.Encoded(keys.numpy(), np.zeros((ROWS, 2), np.float32), np.zeros(ROWS, int)), device="cuda"
        )
        on_card, queries = keys.cuda(), torch.randn(QUERIES, dim, device="cuda")
        norms = on_card.square().sum(dim=1)

        def products(k=None, queries=queries, on_card=on_card, norms=norms):
            for part in queries.split(256):
                scores = torch.addmm(norms, part, on_card.T, alpha=-2)
                if k is not None:
                    scores.topk(k, largest=False)

        bare = milliseconds(products)
        for k in KS:
            took = milliseconds(lambda k=k, queries=queries, memory=memory: memory.search(queries, k))
            plain = milliseconds(lambda k=k: products(k), repeat=3)
            reached = 2 * QUERIES * ROWS * dim / took / 1e9
            found[f"d {dim}, k {k}"] = {
                "ms": round(took, 2),
                "tflops": round(reached, 1),
                "share_of_float32_rate": round(reached / rate, 3),
                "products_alone_ms": round(bare, 2),
                "addmm_topk_ms": round(plain, 2),
                "times_addmm_topk": round(took / plain, 2),
            }
        one = queries[:1]
        found[f"d {dim}, one query"] = {"ms": round(milliseconds(lambda m=memory, q=one: m.search(q, 53), 30), 3)}
        del memory, on_card
    return found


def tokenizer_and_texts() -> tuple:
    """A byte-level BPE of Python's own library, and its files."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(path for path in library.rglob("*.py") if "site-packages" not in path.parts)
    texts = [(path.name, path.read_text("utf-8", "replace")) for path in files]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator((text for _, text in texts), VOCABULARY, show_progress=False, special_tokens=["<end>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token="<end>", eos_token="<end>")
    counts = np.cumsum([len(ids) for ids in fast([text for _, text in texts], verbose=False)["input_ids"]])
    cut, end = np.searchsorted(counts, [SCORED_TOKENS, SCORED_TOKENS + MEMORY_TOKENS])
    return fast, texts[: cut + 1], texts[cut + 1 : end + 1]


def text() -> dict:
    """Scoring and decoding with a kNN-LM over exact search, against the model alone, for models of three sizes."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer, scored, remembered = tokenizer_and_texts()
    found = {}
    for name, sizes in MODELS.items():
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=VOCABULARY, n_positions=WINDOW, **sizes, bos_token_id=0, eos_token_id=0)
        model = GPT2LMHeadModel(config).cuda().to(torch.bfloat16).eval()
        cut = {"window": WINDOW, "stride": 192, "batch_size": 64}
        start = time.perf_counter()
        memory = rs.lm.remember(
            model, tokenizer, remembered, index="exact", device="cuda", progress=False, key_dtype="float32", **cut
        )
        built = time.perf_counter() - start
        measured: dict = {"rows": len(memory), "key": memory.dim, "tokens_built_per_s": round(len(memory) / built)}
        data = rs.lm.encode(model, tokenizer, scored, like=memory, batch_size=64, progress=False)
        measured["scoring"] = scoring(data, memory)
        measured["decoding"] = decoding(model, tokenizer, scored[0][1], memory)
        found[name] = measured
        del memory, model
        torch.cuda.empty_cache()
    return found


def scoring(data, memory: rs.Memory) -> dict:
    """Milliseconds for the scored text: the model's pass alone, and with log-probabilities of the base or kNN-LM."""

    def score(reader) -> None:
        for part, prediction in reader.predictions(data):
            prediction.log_prob(torch.as_tensor(part.labels))

    took = {"forward": milliseconds(lambda: [None for _ in data], 3)}
    took["base"] = milliseconds(lambda: score(rs.KNNLM(memory, k=0)), 3)
    for k in (128, 1024):
        took[f"k {k}"] = milliseconds(lambda k=k: score(rs.KNNLM(memory, k=k, sigma=10.0)), 3)
    out = {name: {"ms": round(ms, 1), "times_base": round(ms / took["base"], 2)} for name, ms in took.items()}
    parts = list(data)
    search = milliseconds(lambda: [memory.search(part.keys, 1024) for part in parts], 3)
    return out | {"search alone, k 1024": {"ms": round(search, 1), "times_base": round(search / took["base"], 2)}}


def decoding(model, tokenizer, words: str, memory: rs.Memory) -> dict:
    """Milliseconds of a step of greedy decoding: the model, and with kNN-LM attached."""
    tokens = tokenizer(words, verbose=False)["input_ids"][:PROMPT]
    found = {}
    for batch in BATCHES:
        given = torch.tensor([tokens] * batch, device="cuda")
        length = {"min_new_tokens": NEW, "max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}

        def decode(given=given, length=length):
            model.generate(given, attention_mask=torch.ones_like(given), **length)

        took = {}
        for name, reader in (("base", None), ("k 128", 128), ("k 1024", 1024)):
            attached = rs.attach(model, rs.KNNLM(memory, k=reader, sigma=10.0)) if reader else nullcontext()
            with attached:
                took[name] = milliseconds(decode, 3) / NEW
        found[f"batch {batch}"] = {
            name: {"ms_per_step": round(ms, 3), "times_base": round(ms / took["base"], 2)} for name, ms in took.items()
        }
    return found


def main() -> dict:
    """Everything that this machine can run."""
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU is seen by torch here; nothing was measured")
    missing = [name for name in ("transformers", "tokenizers", "faiss", "cuvs") if not importlib.util.find_spec(name)]
    rates = matrix_rate()
    out = {"missing": missing, "matrix_tflops": rates, "share_target": SHARE_TARGET, "search": search(rates["float32"])}
    if not {"transformers", "tokenizers"} & set(missing):
        out["text"] = text()
    return out
