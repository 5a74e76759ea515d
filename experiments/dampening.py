"""Selective Synaptic Dampening (Foster et al. 2024, arXiv 2308.07707): weights that matter to what is to be forgotten,
and little to the rest, are made smaller."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Importance = dict[str, Tensor]


def importance(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Importance:
    """Of each parameter the squared gradient of the mean cross-entropy of a batch (inputs, labels), averaged over
    batches: the diagonal of the Fisher information, as the paper's own code takes it. The model is in eval mode.

    >>> model = nn.Linear(1, 2, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> (36 * importance(model, [(torch.ones(3, 1), torch.tensor([0, 0, 1]))])["weight"]).round().tolist()
    [[1.0], [1.0]]
    """
    found = {name: torch.zeros_like(one) for name, one in model.named_parameters()}
    parameters, count = dict(model.named_parameters()), 0
    for inputs, labels in batches:
        loss = cross_entropy(model(inputs), labels)
        for sums, gradient in zip(found.values(), torch.autograd.grad(loss, list(parameters.values()))):
            sums += gradient**2
        count += 1
    return {name: sums / count for name, sums in found.items()}


def dampened(
    model: nn.Module, forgotten: Importance, retained: Importance, alpha: float = 10.0, lmbda: float = 1.0
) -> tuple[nn.Module, float]:
    """A copy of the model in which each parameter that is over `alpha` times as important to the forgotten as to the
    retained is multiplied by ``min(1, lmbda * retained / forgotten)`` (equations 3 and 4), and the share of those.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.ones_(model.weight)
    >>> one, share = dampened(model, {"weight": torch.tensor([[40.0, 9.0]])}, {"weight": torch.tensor([[2.0, 1.0]])})
    >>> [round(weight, 2) for weight in one.weight[0].tolist()], share
    ([0.05, 1.0], 0.5)
    """
    model, chosen, total = copy.deepcopy(model), 0, 0
    with torch.no_grad():
        for name, one in model.named_parameters():
            mine, theirs = forgotten[name], retained[name]
            selected = mine > alpha * theirs
            one[selected] *= (lmbda * theirs[selected] / mine[selected]).clamp_max(1)
            chosen, total = chosen + int(selected.sum()), total + one.numel()
    return model, chosen / total
