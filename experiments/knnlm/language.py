"""A language model, and the memories made with it, each built once and kept on disk."""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import residua as rs
from experiments.knnlm.cached_index import CachedIndex
from experiments.knnlm.texts import Text, Texts, domain_texts, own_texts, pairs
from experiments.machine import device_of
from residua.core import Encoded
from residua.encoding.fingerprint import source_of_module
from residua.errors import InputError, MissingDependencyError
from residua.memory.manifest import MANIFEST
from residua.readers import Reader

# Most texts are cut to a number of tokens: where they end nothing ends.
PIECES = {"end_of_text": False, "split_special_tokens": False}
K = 1024  # the paper's, and the most neighbours that compete


class Language:
    """A model, its tokenizer, and how it reads; `settings` are the experiment's options."""

    def __init__(self, settings: dict):
        self.settings = settings
        self.model, self.tokenizer = _loaded(settings["model"], settings["device"])

    def texts(self, folder: str | None = None) -> Texts:
        """The documents of the model's own domain, or of another's folder."""
        names = ("model", "device", "texts", "validation", "test", "glob", "memory_tokens", "eval_tokens")
        return _texts(folder, **{name: self.settings[name] for name in names})

    def remember(
        self, texts: list[tuple[str, str]], what: str, *, key="ffn", storage="none", index: str | None = None
    ) -> rs.Memory:
        """A memory of texts: from its folder where it is there, else built, or its build resumed.

        Its neighbours are searched once for each query.
        """
        options = {name: self.settings[name] for name in ("window", "stride")}
        options |= {"index": index or self.settings["index"], "key": key, "storage": storage}
        source = source_of_module(self.model, "").to_json()
        digest = hashlib.sha256(json.dumps([source, options, texts]).encode()).hexdigest()[:12]
        folder = Path(self.settings["checkpoints"]) / f"{what}-{digest}"
        if (folder / MANIFEST).exists():
            memory = rs.Memory.load(folder)
        else:
            memory = rs.lm.remember(self.model, self.tokenizer, texts, folder, progress=False, **PIECES, **options)
        return searched_once(memory)

    def encoded(self, texts: list[Text], memory: rs.Memory) -> Iterable[Encoded]:
        """Token batches of documents."""
        return rs.lm.encode(self.model, self.tokenizer, pairs(texts), like=memory)

    def sets(self, texts: Texts, memory: rs.Memory) -> tuple[Iterable[Encoded], Iterable[Encoded]]:
        """Token batches of the documents to tune on, and of those to score."""
        return self.encoded(texts.tune, memory), self.encoded(texts.score, memory)

    def evaluate(self, texts: list[Text], reader: Reader) -> dict:
        """A reader's settings and what it scores on documents, beside the base: perplexity, and shares in %, with 95 %
        intervals."""
        found = rs.lm.evaluate(self.model, self.tokenizer, pairs(texts), reader, label_knn=False, progress=False)
        ratio = [found.perplexity_ratio, *(found.perplexity_ratio_interval or (None, None))]
        gain = [found.gain, *(found.gain_interval or (None, None))]  # one document has no intervals
        return {
            "settings": settings_of(reader),
            "perplexity": found.perplexity,
            "change": [None if edge is None else 100 * (edge - 1) for edge in ratio],
            "accuracy": 100 * found.accuracy,
            "gain": [None if edge is None else 100 * edge for edge in gain],
            "tpr": 100 * found.tpr,
            "fpr": 100 * found.fpr,
            "base": {"perplexity": found.base_perplexity, "accuracy": 100 * found.base_accuracy},
            "tokens": found.n,
            "documents": found.n_groups,
        }


def searched_once(memory: rs.Memory) -> rs.Memory:
    """The memory, with an index that keeps its answers."""
    memory.index = CachedIndex(memory.index, min(K, len(memory)))
    return memory


def quick(index: str) -> str:
    """The index of a memory that one table needs: the paper's recipe takes too long to train for each of them."""
    return "knnlm-fast" if index == "knnlm" else index


def settings_of(reader: Reader) -> dict:
    """A reader's tuned settings in JSON types."""
    params = reader.to_json()["params"]
    names = ("k", "sigma", "temperature", "lmbda", "window", "theta")
    return {name: params[name] for name in names if name in params}


@lru_cache(maxsize=1)
def _loaded(model: str, device: str):
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError('a language model needs transformers: pip install "residua[lm]"') from error
    try:
        loaded, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise InputError(f"model={model!r} is no causal language model with a tokenizer: {error}") from error
    return loaded.to(device_of(device)).eval(), tokenizer


@lru_cache(maxsize=4)
def _texts(folder: str | None, model: str, device: str, texts: str, validation: str, test: str, **sizes) -> Texts:
    _, tokenizer = _loaded(model, device)
    if folder is not None:
        return domain_texts(tokenizer, folder, **sizes)
    return own_texts(tokenizer, model, texts, validation, test, **sizes)
