"""Table 5 of kNN-LM: which of the model's states is the better key."""

import torch

import residua as rs
from experiments.knnlm.language import Language, quick
from experiments.knnlm.sweep import sweep
from experiments.knnlm.texts import Texts, pairs
from experiments.published import WIKITEXT103_KEYS
from experiments.table import Table
from residua.encoding.key_layer import head_key
from residua.encoding.stream import text_encoder

NAMES = tuple(WIKITEXT103_KEYS)  # ffn after and before its norm, the model's output before and after
PART = 8  # one in so many of the memory's tokens, since each key needs a memory of its own


def placed(settings: dict, name: str, key: str) -> dict:
    """The best reader over a memory with one kind of key: it, and what ``Swept.best`` gives at T = 1."""
    language = Language(settings)
    texts = language.texts()
    memory = part(language, texts, key)
    best = sweep(memory, *language.sets(texts, memory)).best(temperature=1.0)
    return {"name": name, "key": key, "rows": len(memory), "dim": memory.dim, **best}


def part(language: Language, texts: Texts, key: str) -> rs.Memory:
    """The memory of a part of the texts; that of the feed-forward key holds residuals, which ResMem reads."""
    some = pairs(texts.memory, language.settings["memory_tokens"] // PART)
    storage = "top-m" if key == "ffn" else "none"
    return language.remember(some, "part", key=key, storage=storage, index=quick(language.settings["index"]))


def key_layers(model, tokenizer) -> dict[str, str]:
    """The paper's four keys that this model has: the inputs of the last feed-forward network and of the head, and
    what their layer norms are given, such as ``{"ffn input before layer norm": "transformer.h.3.ln_2:input", ...}``.
    """
    ffn, head = text_encoder(model, tokenizer).key, head_key(model)
    ends = (("ffn", ffn, *NAMES[:2]), ("head", head, *NAMES[:1:-1]))
    ran: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        for name, module in model.named_modules()
        if name in (ffn.removesuffix(":input"), head.removesuffix(":input")) or "Norm" in type(module).__name__
    ]
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 2, dtype=torch.int64, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for key, module, after, before in ends:
        found[after] = key
        earlier = ran[: ran.index(module.removesuffix(":input"))]
        if earlier and "Norm" in type(model.get_submodule(earlier[-1])).__name__:
            found[before] = f"{earlier[-1]}:input"
    return found


def table(found: list[dict]) -> Table:
    """Perplexity by key, the paper's beside."""
    rows = []
    for one in found:
        perplexities = f"{WIKITEXT103_KEYS[one['name']]:.2f}", f"{one['perplexity']:.2f}"
        rows.append([one["name"], *perplexities, f"{one['lmbda']:.2f}", f"{one['sigma']:.3g}"])
    return Table(("key", "paper", "ours", "λ", "σ"), rows)
