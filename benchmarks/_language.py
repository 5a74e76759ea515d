"""What the language-model benchmarks measure on: a small GPT-2 of source code, its memories, and the plain rival."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import residua as rs
from benchmarks._cifar import SHARED
from experiments.knnlm.texts import Text, own_texts, pairs
from residua.core import Encoded, Logits
from residua.encoding import TokenBatch, text_encoder
from residua.index import load_index
from residua.memory.manifest import MANIFEST

MODEL = SHARED / "models" / "code-gpt2"
MEMORY = Path(__file__).resolve().parents[1] / "out" / "code-gpt2-memory"
CUT = {"window": 256, "stride": 192}
K = 1024
ROOM = 0.003  # more perplexity than the recipe's on validation; a third of what is allowed on the scored text
FAST = [(probes, depth, k) for probes in (8, 16) for depth in (0, 64) for k in (128, 256, 1024)]
TUNED = {"temperature": [1.0]}  # the plain rival has none


class Language:
    """The model, its texts, and a folder with two memories of them: kNN-LM's recipe, and the fast index.

    Parameters
    ----------
    folder : Path
        Memories that are not there are built, which takes minutes; so is the choice of settings.
    tokens, eval_tokens : int
        How many are remembered (whole files), and how many are scored; half as many are tuned on.
    model : Path
        A model folder with ``split.json`` over CPython's library.
    """

    def __init__(self, folder: Path = MEMORY, tokens: int = 1_000_000, eval_tokens: int = 40_000, model: Path = MODEL):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.folder = Path(folder)
        self.model = AutoModelForCausalLM.from_pretrained(model).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        sizes = {"memory_tokens": tokens, "eval_tokens": eval_tokens}
        self.texts = own_texts(self.tokenizer, str(model), "", "", "", glob="**/*.py", **sizes)
        self.encoder = text_encoder(self.model, self.tokenizer, **CUT)

    def batches(self, texts: list[Text]) -> list[TokenBatch]:
        """Texts cut into windows, as every way is given them."""
        return list(self.encoder.batches(pairs(texts)))

    def encoded(self, texts: list[Text]) -> list[Encoded]:
        """Keys and logits of every token: 33 kB each, so for some ten thousand."""
        return [self.encoder.encode(batch) for batch in self.batches(texts)]

    def memory(self, name: str, *, probes: int | None = None, depth: int | bool | None = None) -> rs.Memory:
        """The memory with index `name`, which may probe and re-rank otherwise than it was built to."""
        folder = self.folder / name
        if not (folder / MANIFEST).exists():
            texts = pairs(self.texts.memory)
            rs.lm.remember(self.model, self.tokenizer, texts, folder, index=name, progress=False, **CUT)
        memory = rs.Memory.load(folder)
        if memory.index.exact or (probes is None and depth is None):
            return memory
        said = memory.index.to_json()
        said["params"] = said["params"] if probes is None else {**said["params"], "nprobe": probes}
        said["rerank"] = said["rerank"] if depth is None else depth
        memory.index = load_index(said, folder, None, torch.empty(0, dtype=torch.int64), device="cpu", n=memory.n_rows)
        return memory

    def readers(self) -> dict[str, rs.KNNLM]:
        """``codes`` and ``exact`` (the recipe, by its index's own distances and by recomputed ones), ``fast`` (the fast
        index at the same k) and ``ours`` (the fastest setting as good as the recipe): all tuned on validation.

        Tuned once, then kept beside the memories.
        """
        return {
            name: rs.KNNLM(
                self.memory(said["index"], probes=said["probes"], depth=said["depth"]), **said["reader"]["params"]
            )
            for name, said in self.chosen().items()
        }

    def chosen(self) -> dict:
        """The readers' settings, index and validation perplexity, in JSON types."""
        file = self.folder / "chosen.json"
        if not file.exists():
            found = self._choose()
            file.write_text(json.dumps(found, indent=2), encoding="utf-8")
        return json.loads(file.read_text(encoding="utf-8"))

    def plain(self, reader: rs.KNNLM, *, recompute: bool = False) -> Dense:
        """The rival with a reader's settings, over FAISS's own file of its index (a small memory's is flat)."""
        import faiss

        memory, said = reader.memory, reader.memory.index.to_json()
        if memory.index.exact:
            index, centre = faiss.IndexFlatL2(memory.dim), 0.0
            index.add(memory.keys.astype(np.float32))
        else:
            index = faiss.read_index(str(self.folder / "knnlm" / said["file"]))
            # What the memory and the index subtract from keys.
            centre = (memory.schema.key_centre + torch.tensor(said["params"].get("origin", 0.0))).float()
            faiss.ParameterSpace().set_index_parameter(index, "nprobe", said["params"]["nprobe"])

        def search(queries: Tensor) -> tuple[Tensor, Tensor]:
            squared, rows = index.search((queries - centre).numpy(), reader.k)
            return torch.from_numpy(rows), torch.from_numpy(squared)

        keys = torch.from_numpy(memory.keys.astype(np.float32)) if recompute else None
        return Dense(search, memory.column("label").long(), reader.lmbda, reader.sigma, keys=keys)

    # --- inside -----------------------------------------------------------------------------------------------

    def _choose(self) -> dict:
        """Settings in JSON types, by perplexity and time on the validation text."""
        val, found = self.encoded(self.texts.tune), {}
        recipe = self.memory("knnlm")
        k = min(K, len(recipe))
        for name, depth in (("codes", False), ("exact", k)):
            memory = self.memory("knnlm", depth=depth)
            reader = rs.tune(rs.KNNLM(memory, k=k), val, {"k": [k], **TUNED}, evidence=None, progress=False)
            found[name] = {"index": "knnlm", "probes": None, "depth": depth, **_said(reader)}
        allowed = min(said["validation_perplexity"] for said in found.values()) * (1 + ROOM)
        fastest = np.inf
        for probes, depth, k in sorted({(probes, depth, min(k, len(recipe))) for probes, depth, k in FAST}):
            memory = self.memory("knnlm-fast", probes=probes, depth=depth or False)
            reader = rs.tune(rs.KNNLM(memory, k=k), val, {"k": [k], **TUNED}, evidence=None, progress=False)
            said = {"index": "knnlm-fast", "probes": probes, "depth": depth or False}
            if (probes, depth, k) == (8, 64, min(K, len(recipe))):
                found["fast"] = {**said, **_said(reader)}
            room = allowed / _perplexity(reader) - 1
            if room >= 0 and reader.k:
                grid = {name: [reader.params[name]] for name in ("k", "sigma", "temperature", "lmbda")}
                reader = rs.tune(reader, val, grid, skip=room, evidence=None, progress=False)
            took = _seconds(reader, val)
            if (room >= 0 and took < fastest) or "ours" not in found:
                fastest = took if room >= 0 else np.inf
                found["ours"] = {**said, **_said(reader), "within": room >= 0}
        return found


class Dense:
    """What ``knn-transformers`` does at every forward pass, in plain torch and FAISS.

    It searches, spreads softmax(-squared distance / sigma) into a table (T, V) of zeros, takes its logarithm, and
    interpolates with the model's log-probabilities by logaddexp.

    Parameters
    ----------
    search : callable
        Queries (T, d) to rows and squared distances (T, k), as FAISS gives them.
    labels : int64 Tensor of shape (n,)
    lmbda, sigma : as in ``rs.KNNLM``
    keys : Tensor of shape (n, d), optional
        Distances are recomputed from the retrieved ones.
    """

    GATHERED = 2**26  # numbers of keys at a time: it gathers all at once, which here would be 4 GB

    def __init__(self, search: Callable, labels: Tensor, lmbda: float, sigma: float, *, keys: Tensor | None = None):
        self._search, self.labels, self.sigma, self.keys = search, labels, sigma, keys
        self.shares = torch.tensor([lmbda, 1 - lmbda]).log()

    def search(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and squared distances (T, k)."""
        rows, squared = self._search(queries)
        if self.keys is None:
            return rows, squared
        step = max(1, self.GATHERED // (rows.shape[1] * queries.shape[1]))
        pieces = zip(rows.split(step), queries.split(step))
        exact = [(self.keys[near].float() - some[:, None]).square().sum(dim=2) for near, some in pieces]
        return rows, torch.cat(exact).masked_fill_(rows < 0, torch.inf)

    def read(self, rows: Tensor, squared: Tensor, logits: Tensor) -> Tensor:
        """Log-probabilities (T, V) of neighbours and the model's logits."""
        weights = torch.softmax(-squared / self.sigma, dim=-1)
        table = torch.zeros(logits.shape).scatter_add(1, self.labels[rows], weights).log()
        table = torch.nan_to_num(table, nan=None, neginf=-10_000.0)
        base = torch.log_softmax(logits.float(), dim=-1)
        return torch.logaddexp(base + self.shares[1], table + self.shares[0])

    def __call__(self, queries: Tensor, logits: Tensor) -> Tensor:
        """Log-probabilities (T, V) of T positions."""
        return self.read(*self.search(queries), logits)


def scored(reader: rs.KNNLM, keys: Tensor, logits: Logits, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The reader's log-probabilities of the targets, and the likeliest tokens, each (q,)."""
    found = [(now.log_prob(targets[rows]), now.argmax()) for rows, now in reader.read(keys, logits)]
    return tuple(map(torch.cat, zip(*found)))


def _said(reader: rs.KNNLM) -> dict:
    return {
        "validation_perplexity": _perplexity(reader),
        "skipped": getattr(reader, "skipped_", 0.0),
        "reader": reader.to_json(),
    }


def _perplexity(reader: rs.KNNLM) -> float:
    return float(np.exp(-reader.best_score_))


def _seconds(reader: rs.KNNLM, data: list[Encoded]) -> float:
    """Of scoring encoded text with a memory, without the model's part; the quicker of two."""
    took = []
    for _ in range(2):
        start = time.perf_counter()
        for batch in data:
            scored(reader, torch.as_tensor(batch.keys), batch.logits, torch.as_tensor(batch.labels))
        took.append(time.perf_counter() - start)
    return min(took)
