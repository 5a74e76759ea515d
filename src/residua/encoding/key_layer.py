"""Which layer's data are a language model's keys, found by what the model's modules do when it runs.

Both papers find the input of the last layer's feed-forward network best, after its layer norm (kNN-LM, arXiv
1911.00172, §5, Table 5; ResMem, arXiv 2302.01576, §4.3).
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from residua.core.source import ADAPTED, bare
from residua.encoding.capture import at_least_float32
from residua.errors import KeyModuleError

# What an answer may move by, beside its length, when other positions change: sums in another order, 8-bit steps.
ROUNDED = 0.01


class _Place(NamedTuple):
    """A call of a module in one forward pass."""

    name: str
    number: int  # how often the module had run before


@dataclass
class _Call:
    """What a module was given, and said: one vector for each position, (positions, width)."""

    itself: Tensor  # the input; kept, so that no other tensor comes to lie in its place
    given: Tensor  # copies, which no later layer changes in place
    said: Tensor | None = None

    @property
    def widths(self) -> tuple[int, int]:
        return self.given.shape[1], self.given.shape[1] if self.said is None else self.said.shape[1]

    def shares(self, other: _Call) -> bool:
        """Whether both were given the same vectors, reshaped perhaps."""
        return self.itself.data_ptr() == other.itself.data_ptr() and self.given.shape == other.given.shape


def ffn_key(model: nn.Module, run: Callable[[], object], positions: int) -> str | None:
    """The input of the last feed-forward network to run, as a key's name: ``"transformer.h.11.mlp.c_fc:input"``.

    `run` makes one forward pass over one sequence of `positions` tokens; it is called a few times. A feed-forward
    network is told by what it does, not by what it is called. It answers each position by itself, as attention,
    convolutions and recurrent mixers do not: when all positions but the last are given other vectors, the last one's
    answer stays. And it has a hidden layer: one layer widens and a later one narrows to the old width, or one module of
    several weight matrices gives vectors as wide as it takes, as a mixture of experts does. None where nothing does
    both, or what does runs several times.
    """
    modules = {name: module for name, module in model.named_modules() if name and not _of_adapter(name, model)}
    calls = _calls(modules, run, positions, {})
    pairs, layers = _pairs(calls), {name for name, _ in calls if _matrices(modules[name]) == 1}
    tried: set[tuple[object, ...]] = set()  # layers repeat one another
    mixing: set[str] = set()  # modules in which positions meet, or what holds such: beside a residual that can be faint
    for place, call in reversed(calls.items()):  # of what is nested, the inner one first
        first = pairs.get(place, place if _is_mixture(place, call, modules, layers) else None)
        if first is None or bare(place.name) in mixing or _is_of_expert(first, calls, modules):
            continue
        kind = _kind(first, modules) + _kind(place, modules)
        now = None
        if kind not in tried:
            same = [other for other in calls if first != place and calls[other].shares(calls[first])]
            instead = dict.fromkeys([first, *same], _others_flipped(calls[first].given))
            now = _calls(modules, run, positions, instead).get(place)
        if now is None or not (_stays(call.said, now.said) if first == place else _stays(call.given, now.given)):
            tried.add(kind)
            mixing |= _around(first.name) & _around(place.name)
            continue
        found = _outermost(place, calls) if first == place else first
        return f"{found.name}:input" if _Place(found.name, 1) not in calls else None
    return None


def head_key(model: nn.Module) -> str:
    """The input of the layer that gives the logits, as a key's name: ``"lm_head:input"``."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for name, module in model.named_modules():
        if module is head:
            return f"{name}:input"
    expected = "expected a model with a language-modelling head, such as AutoModelForCausalLM gives"
    raise KeyModuleError(f"{type(model).__name__} has no output embeddings; {expected}")


def _calls(
    modules: dict[str, nn.Module], run: Callable[[], object], positions: int, instead: Mapping[_Place, Tensor]
) -> dict[_Place, _Call]:
    """The calls on one vector per position, in the order in which they began, some given other vectors `instead`."""
    calls: dict[_Place, _Call] = {}
    times: Counter[str] = Counter()
    thread = threading.get_ident()  # others may use the model meanwhile

    def watched(name: str, module: nn.Module) -> Iterable[Any]:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if threading.get_ident() != thread:
                return None
            place, given = _Place(name, times[name]), _vectors((*args, *kwargs.values()), positions)
            times[name] += 1
            if given is None:
                return None
            other = instead.get(place)
            if other is not None and other.numel() == given.numel():
                new = other.view(given.shape).to(given.dtype)
                args = tuple(new if value is given else value for value in args)
                kwargs = {key: new if value is given else value for key, value in kwargs.items()}
                given = new
            calls[place] = _Call(given, _rows(given))
            return args, kwargs

        def after(_: nn.Module, args: object, output: Any) -> None:
            call = calls.get(_Place(name, times[name] - 1)) if threading.get_ident() == thread else None
            said = _vectors(output, positions)
            if call is not None and said is not None:
                call.said = _rows(said)

        yield module.register_forward_pre_hook(before, with_kwargs=True)
        yield module.register_forward_hook(after)

    with ExitStack() as hooks:
        for name, module in modules.items():
            for handle in watched(name, module):
                hooks.callback(handle.remove)
        run()
    return calls


def _vectors(values: Any, positions: int) -> Tensor | None:
    """The first tensor, as ``Capture`` takes it, if it holds one vector for each position."""
    values = values.values() if isinstance(values, Mapping) else values
    among = (values,) if isinstance(values, Tensor) or not isinstance(values, Iterable) else values
    first = next((value for value in among if isinstance(value, Tensor)), None)
    if first is None or not first.ndim or not first.is_floating_point():
        return None
    return first if first.numel() == positions * first.shape[-1] else None


def _rows(vectors: Tensor) -> Tensor:
    return at_least_float32(vectors.detach(), copy=True).reshape(-1, vectors.shape[-1])


def _others_flipped(vectors: Tensor) -> Tensor:
    """The last position's vector as it is, those of the others with their entries in the other order."""
    other = vectors.flip(-1)
    other[-1] = vectors[-1]
    return other


def _stays(then: Tensor | None, now: Tensor | None) -> bool:
    """Whether the last position's answer is the same, and those of the others, which were given others, are not."""
    if then is None or now is None or then.shape != now.shape:
        return False
    *others, last = (now - then).norm(dim=1).tolist()
    moved = max(others, default=0.0)
    return last <= ROUNDED * moved and moved > ROUNDED * float(then.norm(dim=1).max())


def _pairs(calls: dict[_Place, _Call]) -> dict[_Place, _Place]:
    """For each layer that narrows, the last one before it that widens from the width it narrows to; of several that
    were given the same, as a gate is and what it gates, the first in the module of the narrowing one."""
    holders = {around for name, _ in calls for around in _around(name) if around != bare(name)}
    pairs: dict[_Place, _Place] = {}
    widening: list[tuple[_Place, int, int]] = []
    for place, call in calls.items():
        before, after = call.widths
        if bare(place.name) in holders or before == after:
            continue
        if after > before:
            widening.append((place, before, after))
            continue
        # A gated network may widen to its hidden width twice over, in one matrix.
        last = next((one for one, width, wide in reversed(widening) if width == after and wide >= before), None)
        if last is not None:
            same = [one for one, *_ in widening if calls[one].shares(calls[last])]
            pairs[place] = max(same, key=lambda one: len(_around(one.name) & _around(place.name)))  # the first of these
    return pairs


def _is_mixture(place: _Place, call: _Call, modules: dict[str, nn.Module], layers: set[str]) -> bool:
    """Whether a module gives vectors as wide as it takes, and holds matrices of experts: several that are in no layer
    which sees every position."""
    if call.said is None or call.given.shape != call.said.shape:
        return False
    inside = {name: module for name, module in modules[place.name].named_modules(prefix=place.name) if name in modules}
    return sum(_matrices(module) for name, module in inside.items() if name not in layers) > 1


def _is_of_expert(place: _Place, calls: dict[_Place, _Call], modules: dict[str, nn.Module]) -> bool:
    """Whether a module is (in) one of a mixture's experts, which was given all positions here, in any order: another
    one was not, or was given the same."""
    parts = place.name.split(".")
    for depth in range(1, len(parts)):
        holder, name = ".".join(parts[:depth]), parts[depth]
        several, own = modules.get(holder), calls.get(_Place(f"{holder}.{name}", 0))
        if own is None or not isinstance(several, (nn.ModuleList, nn.ModuleDict)):
            continue
        around = (call for other, call in calls.items() if f"{holder}.".startswith(f"{other.name}."))
        if not any(_same_rows(own.given, call.given) for call in around):
            continue  # the layers of a model: each is given what the one before it said
        kind = type(modules[f"{holder}.{name}"])
        others = [one for one, module in several.named_children() if type(module) is kind and one != name]
        given = (calls.get(_Place(f"{holder}.{one}", 0)) for one in others)
        if any(call is None or _same_rows(own.given, call.given) for call in given):
            return True
    return False


def _same_rows(one: Tensor, other: Tensor) -> bool:
    """Whether the same vectors, in any order."""
    if one.shape != other.shape:
        return False
    return torch.equal(one[one.sum(dim=1).argsort()], other[other.sum(dim=1).argsort()])


def _matrices(module: nn.Module) -> int:
    """How many a module holds itself, not in another module; the scales of quantised ones are none."""
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    sizes = [tensor.numel() for tensor in own if tensor.ndim > 1]
    return sum(size > max(sizes) / 8 for size in sizes)


def _around(name: str) -> set[str]:
    """The names of the modules that hold a module, and its own, without what wrappers add."""
    parts = bare(name).split(".")
    return {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}


def _kind(place: _Place, modules: dict[str, nn.Module]) -> tuple[object, ...]:
    """What a module is called in any layer, and its class."""
    return re.sub(r"\d+", "#", place.name), type(modules[place.name])


def _outermost(place: _Place, calls: dict[_Place, _Call]) -> _Place:
    """The outermost module around this one that was given the same vectors: of experts, what holds their router too."""
    around = (other for other in calls if f"{place.name}.".startswith(f"{other.name}."))
    return next(other for other in around if calls[other].shares(calls[place]))


def _of_adapter(name: str, model: nn.Module) -> bool:
    """Whether a module was added to a layer, as PEFT does: it lies beside the ``base_layer``."""
    parts, module = name.split("."), model
    for part in parts:
        if hasattr(module, ADAPTED) and part != ADAPTED:
            return True
        module = getattr(module, part)
    return False
