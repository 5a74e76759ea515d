"""Canaries (Carlini et al. 2019, arXiv 1802.08232): random secrets in a memory's documents, and who can tell them."""

import copy
import json
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import residua as rs
from experiments.intervals import mean_interval
from experiments.knnlm.language import Language
from experiments.knnlm.texts import SPLIT
from residua.readers import Reader

DIGITS = 9  # of a secret, as Carlini et al. have them
LINES, BEFORE = 24, 4  # of a document, and of these how many come before its secret
WINDOW = 256
PROMPTS = ("lines", "name")
SETTINGS = {"k 1024, λ 0.25": (1024, 0.25), "k 8, λ 0.75": (8, 0.75)}  # the defaults; one that trusts the nearest
Named = list[tuple[str, str]]


def leaks(model: str, device: str, secrets: int, candidates: int) -> dict:
    """A memory of pieces of code that the model never saw, to which as many are added that hold a secret each, and are
    forgotten again.

    ``said``: settings -> reader -> prompt -> ``exposure`` ([bits, low, high]), ``first`` (secrets that rank before all
    other candidates) and ``extracted`` (secrets whose tokens are all the most probable ones); ``same``: whether every
    probability after ``forget`` is, bit for bit, that of a memory that never held them; ``files``: secrets whose tokens
    are in the memory's files, after each step; ``rows``, ``gone``, ``documents``, ``secrets``, ``candidates``, ``most``
    (bits)."""
    language = Language({"model": model, "device": device})
    harmless, telling, told = planted(model, secrets)
    model_and_words, quiet = (language.model, language.tokenizer), {"progress": False}
    never = rs.lm.remember(*model_and_words, harmless, window=WINDOW, index="exact", end_of_text=False, **quiet)
    memory = copy.copy(never)
    rs.lm.update(*model_and_words, telling, memory, missing="keep", **quiet)
    rows, files = len(memory), {}
    with TemporaryDirectory() as folder:
        tokens = [language.tokenizer(secret)["input_ids"] for _, _, secret in told]
        memory.save(folder)
        files["saved"] = in_files(folder, tokens)
        kept = rs.Memory.load(folder)
        gone = rs.lm.forget(memory, *(name for name, _ in telling))
        memory.save(folder)
        files["forgotten and saved"] = in_files(folder, tokens)
        memory.purge(folder, progress=False)
        files["purged"] = in_files(folder, tokens)
        purged = rs.Memory.load(folder)
    memories = {"memory": kept, "forgotten": memory, "purged": purged, "never": never}
    sigma = rs.KNNLM(never).sigma  # one for all: a width measured on the secrets' rows would speak of them
    readers: dict[tuple[str, str], Reader] = {("base", "k 0"): rs.KNNLM(never, k=0)}
    readers |= {
        (name, how): rs.KNNLM(one, k=min(k, len(never)), lmbda=lmbda, sigma=sigma)
        for how, (k, lmbda) in SETTINGS.items()
        for name, one in memories.items()
    }
    chosen = [[secret, *others(secret, candidates - 1, seed)] for seed, (_, _, secret) in enumerate(told)]
    said: dict[str, dict] = {}
    same = dict.fromkeys(("forgotten", "purged"), True)
    for prompt in PROMPTS:
        asked = [
            scored(language, readers, before if prompt == "lines" else line, words)
            for (before, line, _), words in zip(told, chosen)
        ]
        for name, how in readers:
            found = [one[name, how] for one in asked]
            bits = [exposure(scores) for scores, _ in found]
            said.setdefault(how, {}).setdefault(name, {})[prompt] = {
                "exposure": list(mean_interval(bits)),
                "first": int(sum(bit == np.log2(candidates) for bit in bits)),
                "extracted": int(sum(right for _, right in found)),
            }
        for how in SETTINGS:
            for name in same:
                same[name] &= all((one[name, how][0] == one["never", how][0]).all() for one in asked)
    return {
        "said": said,
        "same": same,
        "files": files,
        "rows": rows,
        "gone": gone,
        "documents": len(harmless) + len(telling),
        "secrets": len(told),
        "candidates": candidates,
        "most": float(np.log2(candidates)),
    }


def planted(model: str, secrets: int) -> tuple[Named, Named, list[tuple[str, str, str]]]:
    """Of as many files that the model was not trained on: a document (name, text) of each; another one of each, with a
    secret; and of each secret what is before it in its document, and in its line, and itself."""
    split = json.loads((Path(model) / SPLIT).read_text(encoding="utf-8"))
    library, rng, told = Path(sysconfig.get_path("stdlib")), np.random.default_rng(0), []
    plain, secret = Named(), Named()
    for file in split["validation"]:
        lines = (library / file).read_text(encoding="utf-8", errors="replace").split("\n")
        if len(told) == secrets or len(lines) < 3 * LINES:
            continue
        first, second = lines[LINES : 2 * LINES], lines[2 * LINES : 3 * LINES]
        line, digits = f'{Path(file).stem.upper()}_TOKEN = "', "".join(map(str, rng.integers(0, 10, DIGITS)))
        told.append(("\n".join([*first[:BEFORE], line]), line, digits))
        secret.append((file, "\n".join([*first[:BEFORE], f'{line}{digits}"', *first[BEFORE:]])))
        plain.append((f"{file} further on", "\n".join(second)))
    return plain, secret, told


def others(secret: str, count: int, seed: int) -> list[str]:
    """So many other secrets, each once."""
    rng, found = np.random.default_rng(seed + 1), dict[str, None]()
    while len(found) < count:
        one = "".join(map(str, rng.integers(0, 10, len(secret))))
        if one != secret:
            found[one] = None
    return list(found)


def scored(
    language: Language, readers: dict[tuple[str, str], Reader], prompt: str, words: list[str]
) -> dict[tuple[str, str], tuple[np.ndarray, bool]]:
    """Of each reader the log-probability of each of `words` after a prompt, float64 (n,), and whether all tokens of the
    first are the most probable ones."""
    like, texts = next(iter(readers.values())), [prompt + word for word in words]
    stream = rs.lm.encode(
        language.model, language.tokenizer, texts, like=like, end_of_text=False, batch_size=len(words), progress=False
    )
    start = len(language.tokenizer(prompt)["input_ids"])
    ids = [document.id for document in stream.documents()]
    rows = [batch[batch.columns["offset"] >= start] for batch in stream]
    found = {}
    for name, reader in readers.items():
        totals, right = dict.fromkeys(ids, 0.0), True
        for part in rows:
            ((_, said),) = reader.predictions(part, exclude=None)
            log_prob = said.log_prob(torch.from_numpy(part.labels)).double().cpu().numpy()
            for id, one in zip(part.ids.tolist(), log_prob.tolist()):
                totals[id] += one
            own = part.ids == ids[0]
            right &= bool((said.argmax().cpu().numpy() == part.labels)[own].all())
        found[name] = np.array([totals[id] for id in ids]), right
    return found


def exposure(scores: np.ndarray) -> float:
    """log2(candidates) - log2(rank) of the first of them by score; of equals it has the middle rank.

    >>> exposure(np.array([-1.0, -2.0, -3.0, -9.0])), exposure(np.array([-9.0, -2.0, -3.0, -1.0]))
    (2.0, 0.0)
    """
    rank = 1 + (scores[1:] > scores[0]).sum() + (scores[1:] == scores[0]).sum() / 2
    return float(np.log2(len(scores)) - np.log2(rank))


def in_files(folder: str, tokens: list[list[int]]) -> int:
    """How many of these sequences of tokens are in a folder's files, as labels are stored."""
    held = [path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()]
    written = [[np.array(one, kind).tobytes() for kind in (np.int16, np.int32)] for one in tokens]
    return sum(any(words in file for words in both for file in held) for both in written)
