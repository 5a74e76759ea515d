"""Which layer's data are a language model's keys, found by how the model is built and run.

Both papers find the input of the last layer's feed-forward network best, after its layer norm (kNN-LM, arXiv
1911.00172, §5, Table 5; ResMem, arXiv 2302.01576, §4.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from residua.errors import KeyModuleError


class _Run(NamedTuple):
    """One execution of a linear layer: its name, whether it widens, and on how many vectors it ran."""

    name: str
    widens: bool
    vectors: int


def ffn_key(model: nn.Module, run: Callable[[], object]) -> str | None:
    """The input of the last block's feed-forward network, as a key's name: ``"transformer.h.11.mlp.c_fc:input"``.

    `run` makes one forward pass. The last block is the element of a ``ModuleList`` that holds the last linear layer of
    any such element to run (the outermost list counts, so T5's is a block and not one of its three sub-layers). In it,
    the first linear layer to run that gives more numbers than it takes, belongs to no attention and sees every position
    once, is where the feed-forward network begins; None when there is no such layer.
    """
    modules = dict(model.named_modules())
    in_block = [(block, ran) for ran in _runs(model, run) if (block := _block(ran.name, modules)) is not None]
    if not in_block:
        return None
    last = in_block[-1][0]
    inside = [ran for block, ran in in_block if block == last]
    times, vectors = Counter(ran.name for ran in inside), max(ran.vectors for ran in inside)
    for ran in inside:
        # An expert of a mixture sees the positions routed to it, and no key can be read there for the others.
        everywhere = ran.vectors == vectors and times[ran.name] == 1
        if ran.widens and everywhere and not _of_attention(ran.name, last, modules):
            return f"{ran.name}:input"
    return None


def head_key(model: nn.Module) -> str:
    """The input of the layer that gives the logits, as a key's name: ``"lm_head:input"``."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for name, module in model.named_modules():
        if module is head:
            return f"{name}:input"
    expected = "expected a model with a language-modelling head, such as AutoModelForCausalLM gives"
    raise KeyModuleError(f"{type(model).__name__} has no output embeddings; {expected}")


def _runs(model: nn.Module, run: Callable[[], object]) -> list[_Run]:
    runs, handles = [], []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear):
            sizes = module.in_features, module.out_features
        elif type(module).__name__ == "Conv1D" and weight is not None and weight.ndim == 2:
            sizes = tuple(weight.shape)  # GPT-2's linear layer stores its weight the other way round
        else:
            continue

        def note(
            _: nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            name: str = name,
            sizes: tuple[int, ...] = sizes,
        ) -> None:
            given = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
            runs.append(_Run(name, sizes[1] > sizes[0], given.numel() // sizes[0]))

        handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return runs


def _block(name: str, modules: dict[str, nn.Module]) -> str | None:
    parts = name.split(".")
    depths = (n for n in range(1, len(parts)) if isinstance(modules[".".join(parts[:n])], nn.ModuleList))
    return next((".".join(parts[: n + 1]) for n in depths), None)


def _of_attention(name: str, block: str, modules: dict[str, nn.Module]) -> bool:
    """Whether any module between the block and this one, or this one, is attention by its class or its name."""
    parts = name.split(".")
    for depth in range(block.count(".") + 1, len(parts)):
        part, module = parts[depth].lower(), modules[".".join(parts[: depth + 1])]
        if "attn" in part or "attention" in part or "Attention" in type(module).__name__:
            return True
    return False
