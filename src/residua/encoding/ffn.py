"""Which layer's data are a language model's keys, found by how the model is built and run.

Both papers find the input of the last layer's feed-forward network best, after its layer norm (kNN-LM, arXiv
1911.00172, §5, Table 5; ResMem, arXiv 2302.01576, §4.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from residua.errors import KeyModuleError


@dataclass(frozen=True)
class _Run:
    """One execution of a linear layer: its name, whether it widens, and on how many vectors it ran."""

    name: str
    widens: bool
    vectors: int


def ffn_key(model: nn.Module, run: Callable[[], object]) -> str | None:
    """The input of the last block's feed-forward network, as a key's name: ``"transformer.h.11.mlp.c_fc:input"``.

    The last block is the element of a ``ModuleList`` that holds the last linear layer of any such element to run (the
    outermost list counts, so T5's is a block and not one of its three sub-layers). In it, the first linear layer to
    run that gives more numbers than it takes, belongs to no attention and sees every position once, is where the
    feed-forward network begins.

    Parameters
    ----------
    model : nn.Module
        A language model.
    run : callable
        Makes one forward pass.

    Returns
    -------
    str or None
        None when there is no such layer.

    Examples
    --------
    >>> import torch
    >>> block = lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> class Model(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.blocks = nn.ModuleList([block(), block()])
    ...     def forward(self, x):
    ...         for one in self.blocks:
    ...             x = x + one(x)
    ...         return x
    >>> model = Model()
    >>> ffn_key(model, lambda: model(torch.zeros(2, 3, 4)))
    'blocks.1.1:input'
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
    """The input of the layer that gives the logits, as a key's name: ``"lm_head:input"``.

    Raises
    ------
    KeyModuleError
        When the model names no such layer (``get_output_embeddings()``).
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for name, module in model.named_modules():
        if head is not None and module is head:
            return f"{name}:input"
    raise KeyModuleError(
        f"{type(model).__name__} has no output embeddings; expected a model with a language-modelling head, such as "
        "AutoModelForCausalLM gives"
    )


def _runs(model: nn.Module, run: Callable[[], object]) -> list[_Run]:
    runs, handles = [], []
    for name, module in model.named_modules():
        sizes = _sizes(module)
        if sizes is not None:

            def note(_, args, kwargs, name=name, sizes=sizes):
                given = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
                runs.append(_Run(name, sizes[1] > sizes[0], given.numel() // sizes[0]))

            handles.append(module.register_forward_pre_hook(note, with_kwargs=True))
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return runs


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a linear layer. GPT-2's is transformers' Conv1D, which stores its weight the other way round."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D" and module.weight.ndim == 2:
        return tuple(module.weight.shape)
    return None


def _block(name: str, modules: dict[str, nn.Module]) -> str | None:
    parts = name.split(".")
    for depth in range(1, len(parts)):
        if isinstance(modules[".".join(parts[:depth])], nn.ModuleList):
            return ".".join(parts[: depth + 1])
    return None


def _of_attention(name: str, block: str, modules: dict[str, nn.Module]) -> bool:
    """Whether any module between the block and this one, or this one, is attention by its class or its name."""
    parts, above = name.split("."), len(block.split("."))
    for depth in range(above + 1, len(parts) + 1):
        part = parts[depth - 1].lower()
        if "attn" in part or "attention" in part or "Attention" in type(modules[".".join(parts[:depth])]).__name__:
            return True
    return False
