"""The likelihood of validation tokens under every setting, from a few numbers per token.

An interpolation gives the token that came ``p = p_T + share * (q - p_T)``: p_T from the base at temperature T, q from
the memory (or the cache). Neither needs the rest of the vocabulary, so a whole grid costs as many numbers per token as
there are q's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from residua.tuning.parallel import side_by_side

GROUP = 4  # probabilities multiplied before one logarithm is taken
FLOOR = 1e-75  # so that the product of GROUP of them is a float64


@dataclass(frozen=True)
class Targets:
    """n validation tokens: what was said of the token that came. CPU tensors.

    Attributes
    ----------
    given : float32 Tensor of shape (A, B, n)
        q, the token's probability among what was retrieved, under A x B settings (k x sigma; window x theta);
        -1 where nothing was retrieved, which leaves the base.
    base : float64 Tensor of shape (T, n)
        The base's log-probability of the token at each temperature.
    sure : float32 Tensor of shape (T, n)
        The largest probability the base gives any token; 0 where no gate applies.
    nearest : float32 Tensor of shape (n,)
        Plain distance of the nearest neighbour, inf without one.
    documents : int64 Tensor of shape (n,)
        Each token's document.
    """

    given: Tensor
    base: Tensor
    sure: Tensor
    nearest: Tensor
    documents: Tensor

    def __len__(self) -> int:
        return self.base.shape[1]

    @classmethod
    def join(cls, parts: list[Targets]) -> Targets:
        """All tokens of `parts`, in order."""
        names = ("given", "base", "sure", "nearest", "documents")
        return cls(*(torch.cat([getattr(part, name) for part in parts], dim=-1) for name in names))

    def log_likelihood(self, shares: np.ndarray, gate: float | None = None) -> np.ndarray:
        """Summed log-likelihood of every setting.

        Parameters
        ----------
        shares : float array of shape (L,)
            What is given to q, each in [0, 1).
        gate : float, optional
            Tokens of which the base is at least this sure are left to the base.

        Returns
        -------
        float64 array of shape (A, B, T, L)

        Examples
        --------
        >>> half = torch.full((1, 1), 0.5)
        >>> one = Targets(torch.full((1, 1, 1), 1.0), half.double().log(), half, half[0], torch.zeros(1))
        >>> float(np.exp(one.log_likelihood(np.array([0.5]))).round(6).item())
        0.75
        """
        shares = torch.as_tensor(shares, dtype=torch.float64)[:, None]
        closed = torch.zeros_like(self.sure, dtype=torch.bool) if gate is None else self.sure >= gate
        # Tokens that no setting retrieved have one closed form; often they are half of all.
        missed = (self.given == 0).all(dim=0).all(dim=0)
        fixed = self.base.sum(dim=1)[:, None] + (missed & ~closed).sum(dim=1)[:, None] * torch.log1p(-shares).T
        rest = (~missed).nonzero()[:, 0]
        given, closed = self.given[..., rest], closed[:, rest]
        base = self.base[:, rest]
        fixed = fixed - base.sum(dim=1)[:, None]  # (T, L)
        base = base.exp().clamp_min(FLOOR)

        def cell(at: tuple[int, int]) -> Tensor:
            q = given[at]
            nothing = q < 0
            return torch.stack([_summed(p, q, nothing | shut, shares) for p, shut in zip(base, closed)])

        out = np.empty((*given.shape[:2], *fixed.shape))
        for at, found in side_by_side(cell, list(np.ndindex(*given.shape[:2]))):
            out[at] = fixed + found
        return out

    def per_token(self, setting: tuple[int, int, int], shares: Tensor | float, gate: float | None = None) -> Tensor:
        """Log-likelihood float64 (n,) of each token under one setting (indices into A, B, T) and its own share."""
        a, b, t = setting
        q, p = self.given[a, b].double(), self.base[t].exp()
        shares = torch.as_tensor(shares, dtype=torch.float64).expand(p.shape)
        mixed = torch.logaddexp(self.base[t] + torch.log1p(-shares), (shares * q.clamp_min(0)).log())
        left = q < 0 if gate is None else (q < 0) | (self.sure[t] >= gate)
        return torch.where(left, self.base[t], mixed)


def _summed(p: Tensor, q: Tensor, left: Tensor, shares: Tensor) -> Tensor:
    """Sum over tokens of log(p + share * (q - p)), for every share: (L,)."""
    change = (q - p).masked_fill_(left, 0)
    odd = -len(p) % GROUP
    p, change = pad(p, (0, odd), value=1.0), pad(change, (0, odd))
    total = p.new_zeros(len(shares))
    step = 1024 * GROUP  # what stays in a core's cache, for all shares
    for start in range(0, len(p), step):
        mixed = torch.addcmul(p[start : start + step], shares, change[start : start + step])
        total += mixed.view(len(shares), GROUP, -1).prod(dim=1).log_().sum(dim=1)
    return total
