"""One workload, timed in this process, by public names alone: what ``benchmarks.compare`` runs in each installation.

``python workloads.py NAME`` prints JSON: CPU and wall-clock seconds of each measure, and what was computed (accuracy,
perplexity, checksums), so that two versions are seen to have done the same work. ``python workloads.py prepare`` makes
what the others only load, once: arrays, texts and memory folders, which every version must read.

Nothing here imports another module of this folder, and nothing but public names of residua: the versions compared may
share no more than those.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

SHARED = Path(os.environ.get("RESIDUA_SHARED", Path(__file__).resolve().parents[2] / "shared"))
CACHE = Path(tempfile.gettempdir()) / "residua-compare"

PAPER = {"k": 53, "sigma": 0.7, "temperature": 1.4}
IMAGES = 300  # one at a time
MEMORY_TOKENS, SCORED_TOKENS, DOCUMENTS = 500_000, 10_000, 20
INDEX = {"index": "IVF512,PQ128x4fs", "index_params": {"nprobe": 8, "rerank": 64}}
PROMPT, NEW = 64, 48
QUERIES = 2048  # searched at a time

WORKLOADS: dict[str, Callable] = {}


class Clock:
    """Seconds of each measure, CPU (of all threads) and wall clock; a measure may be taken several times.

    With `turns` it says "ready" before each time, and waits for a line: two processes at the same workload take turns.
    """

    def __init__(self, turns: bool = False):
        self.turns = turns
        self._taken: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self.turns:
            print("ready", flush=True)
            if not sys.stdin.readline():
                raise SystemExit("nobody takes the other turn any more")
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        took = time.process_time() - cpu, time.perf_counter() - wall
        self._taken.setdefault(name, []).append(took)

    @property
    def measures(self) -> dict[str, dict[str, list[float]]]:
        """All times of each, in order."""
        return {
            name: {"cpu_s": [cpu for cpu, _ in taken], "wall_s": [wall for _, wall in taken]}
            for name, taken in self._taken.items()
        }


def workload(function: Callable) -> Callable:
    """Register ``function(clock, cache, shared) -> dict`` of what was computed."""
    WORKLOADS[function.__name__] = function
    return function


def checksum(values) -> int:
    """Of integers, in order."""
    return zlib.crc32(np.ascontiguousarray(np.asarray(values), dtype=np.int64).tobytes())


# --- images ---------------------------------------------------------------------------------------------------


@workload
def scores(clock: Clock, cache: Path, shared: Path) -> dict:
    """``ResMem.scores`` of 10 000 CIFAR-100 test rows over 50 000, keys of 64, after one that keeps its table."""
    import residua as rs

    reader, test = rs.ResMem(rs.Memory(cifar(cache, "train")), **PAPER), cifar(cache, "test")
    said = reader.scores(test)
    for _ in range(3):
        with clock("scores"):
            reader.scores(test)
    for _ in range(2):
        with clock("predict_proba"):
            proper = reader.predict_proba(test)
    truth = np.arange(len(test)), test.labels
    return {
        "accuracy": float((said.argmax(axis=1) == test.labels).mean()),
        "mean_score_of_truth": round(float(said[truth].mean()), 6),
        "log_loss": round(float(-np.log(proper[truth]).mean()), 6),
    }


@workload
def latency(clock: Clock, cache: Path, shared: Path) -> dict:
    """ResNet-8, one image at a time: the network alone, and attached to 50 000 rows over two indexes."""
    import torch

    import residua as rs

    held = np.load(cache / "images.npz")
    images, labels = torch.from_numpy(held["images"]).split(1), held["labels"]
    memories = {"exact": rs.Memory(cifar(cache, "train")), "PQ32x4fs": rs.Memory.load(cache / "cifar-pq")}
    ways = {"base": resnet(shared)}
    for name, memory in memories.items():
        ways[name] = resnet(shared)
        rs.attach(ways[name], rs.ResMem(memory, **PAPER), key="fc:input")
    said = {}
    with torch.inference_mode():
        for model in ways.values():
            for image in images[:10]:
                model(image)
        for name, model in list(ways.items()) * 5:
            with clock(name):
                said[name] = [model(image) for image in images]
    found = {name: torch.cat(answers).argmax(dim=1).numpy() for name, answers in said.items()}
    return {f"accuracy_{name}": float((classes == labels).mean()) for name, classes in found.items()}


@workload
def tune(clock: Clock, cache: Path, shared: Path) -> dict:
    """``rs.tune`` on 3 600 settings: 50 000 remembered rows, 5 000 validation rows."""
    import residua as rs

    memory, val = rs.Memory(cifar(cache, "train")), cifar(cache, "test")[0::2]
    # Its name in version 0.1 was another.
    typical = memory.median_nn_distance if hasattr(memory, "median_nn_distance") else memory.typical_distance
    grid = {
        "k": np.unique(np.geomspace(1, 500, 22).round().astype(int))[-20:],
        "sigma": typical() * 2.0 ** np.arange(-4, 3.5, 0.5),
        "temperature": np.geomspace(0.25, 5, 12),
    }
    rs.tune(
        rs.ResMem(memory),
        val[:200],
        {**grid, "temperature": [1.0]},
        objective="accuracy",
        evidence=None,
        progress=False,
    )
    with clock("tune"):
        best = rs.tune(rs.ResMem(memory), val, grid, objective="accuracy", evidence=None, progress=False)
    accuracy = float((best.predict(val) == val.labels).mean())
    return {
        "settings": int(np.prod([len(values) for values in grid.values()])),
        "accuracy": accuracy,
        "k": int(best.k),
        "sigma": round(float(best.sigma), 6),
        "temperature": round(float(best.temperature), 6),
    }


def cifar(cache: Path, split: str):
    """A split's rows, from the cached arrays."""
    import residua as rs

    with np.load(cache / f"cifar-{split}.npz") as held:
        return rs.Encoded(held["keys"], held["logits"], held["labels"])


def resnet(shared: Path):
    """The trained CIFAR-ResNet-8, in evaluation mode; its key is the input of ``fc``."""
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file
    from torch import nn

    class Block(nn.Module):
        def __init__(self, before: int, channels: int):
            super().__init__()
            self.stride, self.pad = (1 if before == channels else 2), (channels - before) // 2
            self.conv1 = nn.Conv2d(before, channels, 3, stride=self.stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)

        def forward(self, x):
            shortcut = x[:, :, :: self.stride, :: self.stride]
            if self.pad:
                shortcut = F.pad(shortcut, (0, 0, 0, 0, self.pad, self.pad))
            x = F.relu(self.bn1(self.conv1(x)))
            return F.relu(self.bn2(self.conv2(x)) + shortcut)

    class ResNet8(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
            self.blocks = nn.Sequential(Block(16, 16), Block(16, 32), Block(32, 64))
            self.fc = nn.Linear(64, 100)

        def forward(self, x):
            return self.fc(self.blocks(F.relu(self.bn(self.conv(x)))).mean(dim=(2, 3)))

    with torch.random.fork_rng(devices=[]):
        model = ResNet8()
    model.load_state_dict(load_file(shared / "models" / "cifar100-resnet8" / "model.safetensors"))
    return model.eval()


# --- language models ------------------------------------------------------------------------------------------


@workload
def lm_score(clock: Clock, cache: Path, shared: Path) -> dict:
    """``rs.evaluate`` of encoded tokens: search, weigh and read, without the model's forward pass."""
    import residua as rs

    memory, batches = encoded(cache, shared, DOCUMENTS)
    found = {"tokens": sum(map(len, batches))}
    for k in (1024, 128):
        reader = rs.KNNLM(memory, k=k, lmbda=0.25)
        measured(reader, batches[0][:512])
        for _ in range(3):
            with clock(f"k={k}"):
                perplexity, accuracy, base = measured(reader, batches)
        found |= {f"perplexity_k={k}": perplexity, f"accuracy_k={k}": accuracy}
    return found | {"perplexity_base": base, "sigma": float(reader.sigma)}


def measured(reader, batches) -> tuple[float, float, float]:
    """Perplexity and accuracy with the memory, and the base's perplexity, by the names of either version.

    Version 0.1 had no label k-NN for tokens; the other leaves it out here.
    """
    import residua as rs

    if not hasattr(rs.Memory, "median_nn_distance"):
        result = rs.evaluate(reader, batches, n_bootstrap=1)
        return result.perplexity_memory, result.memory, result.perplexity_base
    result = rs.evaluate(reader, batches, n_bootstrap=1, label_knn=False)
    return result.perplexity, result.accuracy, result.base_perplexity


@workload
def lm_read(clock: Clock, cache: Path, shared: Path) -> dict:
    """The search alone, and scoring whole; what they differ by is reading. And probabilities of every token."""
    import residua as rs

    memory, batches = encoded(cache, shared, DOCUMENTS // 2)
    blocks = [batch.keys[start : start + QUERIES] for batch in batches for start in range(0, len(batch), QUERIES)]
    found = {"tokens": sum(map(len, batches))}
    for k in (1024, 128):
        reader = rs.KNNLM(memory, k=k, lmbda=0.25)
        measured(reader, batches[0][:512])
        reader.predict_proba(batches[0][:512])
        for _ in range(3):
            with clock(f"search, k={k}"):
                nearest = [memory.search(keys, k).distances[:, 0] for keys in blocks]
            with clock(f"score, k={k}"):
                perplexity = measured(reader, batches)[0]
        for _ in range(2):
            said = None  # two tables of probabilities at a time would be 300 MB
            with clock(f"predict_proba, k={k}"):
                said = [reader.predict_proba(batch) for batch in batches]
        truth = [rows[np.arange(len(rows)), batch.labels] for rows, batch in zip(said, batches)]
        found |= {
            f"perplexity_k={k}": perplexity,
            f"perplexity_of_proba_k={k}": float(np.exp(-np.log(np.concatenate(truth)).mean())),
            f"mean_nearest_k={k}": round(float(np.concatenate([near.numpy() for near in nearest]).mean()), 5),
        }
    return found


@workload
def lm_decode(clock: Clock, cache: Path, shared: Path) -> dict:
    """Greedy ``model.generate`` at batch 1 and 8: the model alone, and attached to its memory."""
    import torch

    import residua as rs

    model, tokenizer = language_model(shared)
    memory, found = rs.Memory.load(cache / "lm-memory"), {}
    texts = json.loads((cache / "texts.json").read_text(encoding="utf-8"))["scored"]
    prompts = [tokenizer(text)["input_ids"][:PROMPT] for _, text in texts]
    prompts = torch.tensor([tokens for tokens in prompts if len(tokens) == PROMPT])
    readers = {"base": None} | {f"k={k}": rs.KNNLM(memory, k=k, lmbda=0.25) for k in (1024, 128)}
    for batch, repeat in ((1, 8), (8, 4)):
        for name, reader in readers.items():
            handle = rs.attach(model, reader) if reader is not None else None
            generated(model, prompts[:batch], 4)
            made = []
            for number in range(repeat):
                given = prompts[number : number + batch]  # another beginning each time
                with clock(f"batch {batch}, {name}"):
                    made.append(generated(model, given, NEW))
            if handle is not None:
                handle.detach()
            found[f"tokens_batch {batch}, {name}"] = checksum(torch.cat(made))
    return found


def generated(model, given, new: int):
    """The `new` likeliest next tokens, one after the other, int64 (batch, new)."""
    import torch

    length = {"min_new_tokens": new, "max_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    return model.generate(given, attention_mask=torch.ones_like(given), **length)[:, given.shape[1] :]


def language_model(shared: Path):
    """The GPT-2 of source code, in evaluation mode, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = shared / "models" / "code-gpt2"
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def encoded(cache: Path, shared: Path, documents: int) -> tuple:
    """The memory of half a million tokens, and the first `documents` of the scored texts as encoded batches."""
    import residua as rs

    model, tokenizer = language_model(shared)
    memory = rs.Memory.load(cache / "lm-memory")
    texts = json.loads((cache / "texts.json").read_text(encoding="utf-8"))["scored"][:documents]
    batches = list(rs.lm.encode(model, tokenizer, [tuple(pair) for pair in texts], like=memory))
    return memory, batches


# --- made once ------------------------------------------------------------------------------------------------


def prepare(cache: Path, shared: Path) -> None:
    """Write into `cache` what is not there yet."""
    import residua as rs

    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "images.npz").exists():
        _encode_cifar(cache, shared)
    if not (cache / "cifar-pq" / "manifest.json").exists():
        rs.Memory(cifar(cache, "train"), index="PQ32x4fs", overfetch=8).save(cache / "cifar-pq")
    if not (cache / "texts.json").exists():
        _texts(cache, shared)
    if not (cache / "lm-memory" / "manifest.json").exists():
        model, tokenizer = language_model(shared)
        texts = json.loads((cache / "texts.json").read_text(encoding="utf-8"))["remembered"]
        options = {**INDEX, "window": 256, "storage": "none", "key_dtype": "float16", "progress": False}
        rs.lm.remember(model, tokenizer, [tuple(pair) for pair in texts], cache / "lm-memory", **options)


def _encode_cifar(cache: Path, shared: Path) -> None:
    import torch

    import residua as rs

    model = resnet(shared)
    for split, tiles in (("train", (20, 25)), ("test", (10, 10))):
        images, labels = _mosaics(shared / "data" / "cifar100" / split, *tiles)
        parts = []
        for start in range(0, len(images), 5000):  # normalised a part at a time: all would be 600 MB
            some = slice(start, start + 5000)
            parts.append(rs.encode(model, (_normalised(images[some]), torch.from_numpy(labels[some])), progress=False))
        keys = np.concatenate([part.keys for part in parts])
        logits = np.concatenate([np.asarray(part.logits) for part in parts])
        _write(cache / f"cifar-{split}.npz", keys=keys, logits=logits, labels=labels)
    chosen = np.linspace(0, len(images) - 1, IMAGES).astype(int)  # of all classes; they come class by class
    _write(cache / "images.npz", images=_normalised(images[chosen]).numpy(), labels=labels[chosen])


def _mosaics(folder: Path, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (n, 32, 32, 3), class by class in alphabetical order, and their labels."""
    from PIL import Image

    files = sorted(folder.glob("*.webp"))
    mosaics = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    tiles = np.stack(mosaics).reshape(len(files), rows, 32, columns, 32, 3).swapaxes(2, 3)
    return tiles.reshape(-1, 32, 32, 3), np.repeat(np.arange(len(files)), rows * columns)


def _normalised(images: np.ndarray):
    import torch

    mean, std = torch.tensor([0.5071, 0.4865, 0.4409]), torch.tensor([0.2673, 0.2564, 0.2762])
    return ((torch.from_numpy(images).float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def _texts(cache: Path, shared: Path) -> None:
    """The model's training files are remembered; of its validation files every second one is scored.

    Both in the order of their names' hashes, as the benchmarks beside this one take them.
    """
    split = json.loads((shared / "models" / "code-gpt2" / "split.json").read_text(encoding="utf-8"))
    if split["python"] != platform.python_version():
        raise SystemExit(f"the model's split is of Python {split['python']}'s library, and this is another version")
    remembered, held_out = (
        sorted(split[part], key=lambda name: hashlib.sha256(name.encode()).digest()) for part in ("train", "validation")
    )
    _, tokenizer = language_model(shared)
    scored = list(_until(tokenizer, held_out[1::2], SCORED_TOKENS, SCORED_TOKENS // DOCUMENTS))
    texts = {"remembered": list(_until(tokenizer, remembered, MEMORY_TOKENS)), "scored": scored}
    part = cache / "texts.json.part"
    part.write_text(json.dumps(texts), encoding="utf-8")
    part.replace(cache / "texts.json")


def _until(tokenizer, names: list[str], tokens: int, each: int | None = None) -> Iterator[tuple[str, str]]:
    """(name, text) of library files until they hold about so many tokens; of each, about the first `each`."""
    library = Path(sysconfig.get_path("stdlib"))
    for name in names:
        text = (library / name).read_bytes().decode("utf-8", "replace")
        count = len(tokenizer(text)["input_ids"])
        wanted = min(tokens, each or tokens)
        if count:
            yield name, text[: len(text) * wanted // max(count, wanted)]
            tokens -= min(count, wanted)
        if tokens <= 0:
            return


def _write(path: Path, **arrays) -> None:
    """Whole or not at all."""
    part = path.with_name(f"part-{path.name}")
    np.savez(part, **arrays)
    part.replace(path)


def main(arguments: list[str]) -> None:
    """Run one and print its JSON, alone on the last line of standard output."""
    parser = argparse.ArgumentParser(prog="python workloads.py", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["prepare", *WORKLOADS])
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of what is made once")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of data and trained models")
    parser.add_argument("--turns", action="store_true", help="wait for a line of input before each measure")
    options = parser.parse_args(arguments)
    if options.name == "prepare":
        prepare(options.cache, options.shared)
        print("{}")
        return
    clock = Clock(options.turns)
    computed = WORKLOADS[options.name](clock, options.cache, options.shared)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"measures": clock.measures, "computed": computed, "peak_mib": peak}))


if __name__ == "__main__":
    main(sys.argv[1:])
