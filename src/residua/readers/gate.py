"""A mixture of what the model, the neighbours and a text's own past say, in shares that depend on the query.

With the model's p, experts v_e (the neighbours' votes under three widths, and what a text said before under three
sharpnesses), and what is known of a query before its answer, φ(x)::

    g_e(x) = w_e · φ(x)
    gate:      p'(c) = (p(c) + Σ_e e^{g_e} v_e(c)) / (1 + Σ_e e^{g_e})
    tempered:  p'(c) ∝ p(c) · (1 + r(c))^b,   r = Σ_e e^{g_e} v_e / p;   b = 1 is the gate

Only classes that some expert names are touched: r is 0 elsewhere, and nothing as wide as a vocabulary is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import softplus

from residua.core import Change, Neighbours, Softmax, Term
from residua.core.probabilities import totals
from residua.errors import ParameterError
from residua.printable import short

WIDTHS = (0.125, 0.5, 2.0)  # of the votes, in multiples of sigma
SHARPNESSES = (0.5, 1.0, 2.0)  # of the past's, in multiples of theta
FAR = 4.0  # times the typical distance; beyond it a share does not change any more, as few queries told how it should
OF_VOTES, OF_PAST = 6, 2  # features
LEAST = -80.0  # log-probability; what the model holds for less likely still is as likely here


@dataclass(frozen=True)
class Shares:
    """A gate's numbers, as ``Gated.fit`` finds them.

    Parameters
    ----------
    weights : sequence of sequences of float
        Of each expert one for each feature, the first its bias; none at all: the model alone.
    power : float, default 1.0
        b.
    rows : int, default 0
        How many the memory had when it was fitted; 0: not known.
    """

    weights: Sequence[Sequence[float]]
    power: float = 1.0
    rows: int = 0

    def __post_init__(self) -> None:
        try:
            weights = tuple(tuple(map(float, expert)) for expert in self.weights)
            fits = not weights or torch.isfinite(torch.tensor(weights)).all()
            fits = fits and int(self.rows) == self.rows >= 0 and 0 < self.power < float("inf")
        except (TypeError, ValueError) as error:
            raise ParameterError(f"weights={self.weights!r}; expected numbers, as many for each expert") from error
        if not fits:
            raise ParameterError(
                f"a gate of weights {weights}, power {self.power} and {self.rows} rows; expected finite weights, "
                "power > 0, and a number of rows"
            )
        object.__setattr__(self, "weights", weights)

    def __repr__(self) -> str:
        return f"Shares({short(self)})"

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        return asdict(self) | {"weights": [list(expert) for expert in self.weights]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        return cls(**data)


@dataclass(frozen=True)
class Experts:
    """What E experts say of q queries, by the source that they share: the neighbours, and the past where it is read."""

    classes: tuple[Tensor, ...]  # of each source int64 (q, c): what its rows name
    weights: tuple[Tensor, ...]  # float32 (e, q, c): of each of its experts, rows sum to 1, or to 0: it says nothing
    own: tuple[Tensor, ...]  # float32 (q, c): what the model says of these classes, log-probabilities
    features: Tensor  # float32 (q, F)
    n_outputs: int

    @classmethod
    def of(
        cls, base: Softmax, near: Neighbours, votes: Tensor, labels: Tensor, sigma: float, past: Sequence[Term] = ()
    ) -> Self:
        """Those of neighbours with kernel weights `votes` float32 (e, q, k), and of a text's past.

        `labels` (q, k) are the neighbours', and `sigma` is the square of the typical distance.
        """
        named, weights = [labels], [votes]
        if past:
            named.append(past[0].values.weighted(past[0].rows.clamp_min(0), past[0].weights)[0])
            weights.append(torch.stack([term.weights for term in past]))
        own = [base.log_prob(classes.to(base.device)).to(classes.device).clamp_min(LEAST) for classes in named]

        def largest(source: int, expert: int) -> Tensor:  # the probability of the class that this expert likes best
            if not named[source].shape[1]:
                return named[source].new_zeros(len(base), dtype=torch.float32)
            return totals(named[source], weights[source][expert], base.n_outputs).amax(dim=1)

        heard = votes[0].sum(dim=1) > 0
        d = near.distances[:, 0] / sigma**0.5
        agreed = (votes[1] * own[0].exp()).sum(dim=1)
        told = [d.clamp_max(FAR) - 1, largest(0, 1) - 0.5, largest(0, 2) - 0.3, (agreed + 1e-3).log() + 2.5]
        told = [torch.where(heard, value, 0.0) for value in told]
        told = [torch.ones_like(d), told[0], base.confidence().to(d.device), *told[1:]]
        if past:
            there = weights[1][0].sum(dim=1) > 0
            told += [torch.where(there, largest(1, 1) - 0.5, 0.0), there.float() - 1]
        return cls(tuple(named), tuple(weights), tuple(own), torch.stack(told, dim=1), base.n_outputs)

    @property
    def heard(self) -> Tensor:
        """Bool (q, E): whether an expert says anything; one that does not has no share."""
        return torch.cat([source.sum(dim=2).T > 0 for source in self.weights], dim=1)

    def mixed(self, gate: Shares) -> tuple[Tensor, list[Tensor]]:
        """What is left of the model's probabilities float32 (q, 1), and each source's weights float32 (q, c).

        What a tempered gate adds to a class is shared by those that name it, in proportion to what they would add to it
        in the gate.
        """
        w = torch.tensor(gate.weights, device=self.features.device)
        g = (self.features @ w.T).masked_fill(~self.heard, -torch.inf)
        log_scale, *logs = torch.cat([torch.zeros_like(g[:, :1]), g], dim=1).log_softmax(dim=1).T
        shares = torch.stack(logs).exp().split([len(source) for source in self.weights])
        scale, given = (
            log_scale.exp()[:, None],
            [(share[:, :, None] * v).sum(0) for share, v in zip(shares, self.weights)],
        )
        if gate.power == 1:
            return scale, given
        b, left = gate.power, log_scale[:, None]
        own, values = torch.cat(self.own, dim=1), torch.cat(given, dim=1)
        named = totals(torch.cat(self.classes, dim=1), values, self.n_outputs)  # Σ_e share_e · v_e(c)
        log_r = softplus(named.log() - left - own)  # log(1 + r)
        added = (own + b * (log_r + left)).exp() * -torch.expm1(
            -b * log_r
        )  # p · ((1 + r)^b - 1), times the base's share^b
        values = values * torch.where(named > 0, added / named, 0.0)
        kept = (b * left).exp()
        total = kept + values.sum(dim=1, keepdim=True)
        return kept / total, list((values / total).split([part.shape[1] for part in given], dim=1))


@dataclass(frozen=True)
class Mixture(Change):
    """A change that knows which experts were mixed."""

    experts: Experts | None = None
