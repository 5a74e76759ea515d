"""A small mixture of experts and a small hybrid, trained here: is the feed-forward input the better key there, too?"""

import sysconfig
from pathlib import Path

import torch
from matplotlib.figure import Figure
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BambaConfig,
    BambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
)

import residua as rs
from experiments.table import Table
from experiments.work import Work
from residua.encoding.key_layer import head_key
from residua.encoding.stream import text_encoder

LEARNED = (
    "email",
    "json",
    "http",
    "html",
    "xml",
    "logging",
    "importlib",
    "multiprocessing",
)
OTHER = ("asyncio",)  # remembered, tuned and scored on, file by file
WINDOW, WIDTH, VOCABULARY = 128, 128, 1024
SHARED = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": WINDOW,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
MIXTURE = {"num_hidden_layers": 3, "intermediate_size": 256, "num_local_experts": 4, "num_experts_per_tok": 2}
HYBRID = {
    "num_hidden_layers": 3,
    "intermediate_size": 384,
    "attn_layer_indices": [1],  # the last block mixes by Mamba-2
    "mamba_n_heads": 8,
    "mamba_d_head": 32,
    "mamba_d_state": 16,
    "mamba_chunk_size": 32,
}
MODELS = {
    "mixture of experts (Mixtral)": lambda: MixtralForCausalLM(MixtralConfig(**SHARED, **MIXTURE)),
    "hybrid (Bamba)": lambda: BambaForCausalLM(BambaConfig(**SHARED, **HYBRID)),
}
MIXERS = ("mamba", "self_attn")  # what a block of these mixes positions with


def measure(work: Work, *, steps: int = 600) -> dict:
    """Train each on a part of Python's standard library, and remember another part by each of three keys.

    Parameters
    ----------
    steps : int
        Of training, on 16 windows each.
    """
    return {"steps": steps, "models": dict(zip(MODELS, work.map(compare, [(n, steps) for n in MODELS], "models")))}


def compare(name: str, steps: int) -> dict:
    """``base`` (perplexity), ``tokens`` and ``documents`` scored, ``memory`` (tokens), and ``keys``: what -> its module
    and the tuned reader's ``perplexity`` with its ``change`` in % [it, low, high]."""
    learned, (remembered, tuned_on, scored) = files(LEARNED), split(files(OTHER))
    tokenizer = tokenizer_of(learned)
    model = trained(MODELS[name](), tokenizer, learned, steps)
    found = {}
    for what, key in keys_of(model, tokenizer).items():
        memory = rs.lm.remember(model, tokenizer, remembered, key=key, index="exact", progress=False)
        reader = rs.tune(rs.KNNLM(memory, k=64), rs.lm.encode(model, tokenizer, tuned_on, like=memory), progress=False)
        result = rs.lm.evaluate(model, tokenizer, scored, reader, progress=False)
        change = [result.perplexity_ratio, *(result.perplexity_ratio_interval or (1, 1))]
        found[what] = {"key": memory.source.key, "perplexity": result.perplexity}
        found[what]["change"] = [100 * (edge - 1) for edge in change]
    about = {"memory": len(memory), "tokens": result.n, "documents": result.n_groups}
    return {"base": result.base_perplexity, **about, "keys": found}


def files(packages: tuple[str, ...]) -> list[tuple[str, str]]:
    """Names and texts of the files of packages of the standard library."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found = [file for package in packages for file in sorted((library / package).glob("*.py"))]
    return [(f"{file.parent.name}/{file.name}", text) for file in found if (text := file.read_text("utf-8")).strip()]


def split(texts: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], ...]:
    """Of every four files two are remembered, one is tuned on and one scored."""
    return [text for n, text in enumerate(texts) if n % 4 < 2], texts[2::4], texts[3::4]


def tokenizer_of(texts: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of these texts."""
    bpe = ByteLevelBPETokenizer()
    train = [text for _, text in texts]
    bpe.train_from_iterator(train, vocab_size=VOCABULARY, special_tokens=["<end>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token="<end>", eos_token="<end>")


def trained(model: torch.nn.Module, tokenizer, texts: list[tuple[str, str]], steps: int) -> torch.nn.Module:
    """The model after some steps over windows of the texts."""
    torch.manual_seed(0)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    ids = torch.tensor([token for _, text in texts for token in [0, *tokenizer(text, verbose=False)["input_ids"]]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.stack([ids[start : start + WINDOW] for start in torch.randint(len(ids) - WINDOW, (16,))])
        model(batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


def keys_of(model: torch.nn.Module, tokenizer) -> dict[str, str]:
    """The key that is found, the input of what mixes positions in the last block, and that of the head."""
    last = model.model.layers[-1]
    mixer = next(name for name in MIXERS if getattr(last, name, None) is not None)
    within = next(name for name, one in getattr(last, mixer).named_modules() if isinstance(one, torch.nn.Linear))
    mixing = f"model.layers.{len(model.model.layers) - 1}.{mixer}.{within}:input"
    return {"feed-forward": text_encoder(model, tokenizer).key, "mixer": mixing, "head": head_key(model)}


def tables(results: dict) -> dict[str, Table]:
    """Perplexity with each key."""
    rows = []
    for name, one in results["models"].items():
        rows.append([name, "none (the model alone)", f"{one['base']:.2f}", "", ""])
        for what, found in one["keys"].items():
            change, low, high = found["change"]
            rows.append(
                ["", what, f"{found['perplexity']:.2f}", f"{change:.1f} [{low:.1f}, {high:.1f}]", f"`{found['key']}`"]
            )
    return {"keys": Table(("model", "key: the input of the", "perplexity", "change, %", "module"), rows)}


def draw(results: dict) -> Figure:
    """Perplexity with each key, beside the model alone."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    for axes, (name, one) in zip(figure.subplots(1, 2), results["models"].items()):
        values = {"no memory": one["base"]} | {what: found["perplexity"] for what, found in one["keys"].items()}
        axes.barh(list(values)[::-1], list(values.values())[::-1])
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("perplexity")
    return figure
