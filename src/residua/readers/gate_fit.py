"""A gate's numbers from labelled rows: of what every expert says of each row's true class, and of the classes named."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from residua.core import Encoded, as_tensor
from residua.core.encoded import labels_of
from residua.errors import EmptyMemoryError, InputError
from residua.memory.exclusion import remembered
from residua.progress import progress_bar
from residua.readers.evidence import Evidence
from residua.readers.gate import LEAST, WIDTHS, Experts, Mixture, Shares
from residua.readers.judged import SIGN, Judged, check_evidence, groups_of, paired_z
from residua.readers.own_rows import own_rows
from residua.readers.reader import Exclude
from residua.readers.seen import Seen

if TYPE_CHECKING:
    from residua.readers.gated import Gated

log: logging.Logger = logging.getLogger(__name__)

RIDGE = 1e-5  # times the weights squared, biases free; beside mean losses in nats
STIFF = 1e-3  # times (b - 1) squared
POWERS = (0.1, 3.0)  # that b may be
PAST_BIAS = -1.0  # where the fit of a past expert begins
MOST_ROWS = 20_000  # of a memory's own
ENTRIES = 2**15  # classes named, looked at at a time: what a core's cache holds
WHY = "a gate is fitted by them"


@dataclass(frozen=True)
class Heard:
    """What was said of n rows: of the true class by all, and of every class that an expert names, row after row."""

    own: np.ndarray  # float64 (n,): the model's log-probability of the true class
    said: np.ndarray  # float64 (n, E): the experts' probabilities of it
    features: np.ndarray  # float64 (n, F)
    heard: np.ndarray  # bool (n, E)
    counts: np.ndarray  # int (n,): classes named
    named_own: np.ndarray  # float32 (m,): the model's probabilities of them
    named_said: np.ndarray  # float32 (E, m): the experts' probabilities of them

    def __len__(self) -> int:
        return len(self.own)

    @classmethod
    def of(cls, experts: Experts, log_prob: Tensor, truth: Tensor, tempered: bool) -> Heard:
        """Of some rows; what is said of all classes named only where a tempered gate needs it."""
        said = [
            (source * (classes == truth[:, None])).sum(dim=2).T
            for classes, source in zip(experts.classes, experts.weights)
        ]
        given = (log_prob, torch.cat(said, dim=1), experts.features)
        own, by_experts, features = (part.double().cpu().numpy() for part in given)
        nothing = np.zeros(len(own), np.int64), np.empty(0, np.float32), np.empty((by_experts.shape[1], 0), np.float32)
        every = named(experts) if tempered else nothing
        return cls(own, by_experts, features, experts.heard.cpu().numpy(), *every)

    @classmethod
    def join(cls, parts: list[Heard]) -> Heard:
        """The rows of all `parts`."""
        return cls(
            *(
                np.concatenate([getattr(part, f.name) for part in parts], axis=-1 if f.name == "named_said" else 0)
                for f in fields(cls)
            )
        )

    def rows(self, some: np.ndarray) -> Heard:
        """Those of a bool mask (n,)."""
        entries = np.repeat(some, self.counts)
        own, each = self.named_own[entries], self.named_said[:, entries]
        return Heard(
            self.own[some], self.said[some], self.features[some], self.heard[some], self.counts[some], own, each
        )


def named(experts: Experts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct classes that each row's experts name: how many int (q,), and of each, row after row, the model's
    probability float32 (m,) and the experts' (E, m)."""
    classes, own = torch.cat(experts.classes, dim=1), torch.cat(experts.own, dim=1)
    code = classes + experts.n_outputs * torch.arange(len(classes), device=classes.device)[:, None]
    spoken = torch.cat([source.sum(dim=0) for source in experts.weights], dim=1) > 0
    once, which = code[spoken].unique(return_inverse=True)
    each, start = [], 0
    for source in experts.weights:
        end = start + source.shape[2]
        heard = spoken[:, start:end]
        place = torch.zeros_like(spoken, dtype=torch.int64).masked_scatter_(spoken, which)[:, start:end][heard]
        each += [source.new_zeros(len(once)).index_add_(0, place, expert[heard]) for expert in source]
        start = end
    said = own.new_empty(len(once)).index_copy_(0, which, own[spoken].exp_())
    counts = torch.bincount(once // experts.n_outputs, minlength=len(classes))
    return counts.cpu().numpy(), said.cpu().numpy(), torch.stack(each).cpu().numpy()


def fitted(
    reader: Gated,
    validation: Encoded | Iterable[Encoded] | None,
    tempered: bool,
    exclude: Exclude,
    needed: float | None,
    progress: bool | None,
) -> tuple[Shares, Evidence, Seen]:
    """The best gate for these rows and this reader, which has one of as many weights; how sure it is; and the rows."""
    check_evidence(needed)
    memory = reader.memory
    if not len(memory) or not reader.k:
        raise EmptyMemoryError("there are no neighbours to hear: the memory is empty, or k is 0; a gate needs both")
    data = own_rows(memory, MOST_ROWS) if validation is None else validation
    parts: list[Heard] = []
    ids: list[np.ndarray | None] = []
    matched: list[np.ndarray] = []
    looked_at: list[Seen] = []
    faultless, rows = True, 0
    with progress_bar(progress, desc="fit", unit="row") as bar:
        for part, now in reader.predictions(data, exclude=exclude):
            truth = as_tensor(labels_of(part, WHY)).to(memory.device)
            if not isinstance(now.change, Mixture) or now.change.experts is None:
                continue
            own = now.softmax.log_prob(truth).clamp_min(LEAST)
            parts.append(Heard.of(now.change.experts, own, truth, tempered))
            ids.append(part.ids)
            looked_at.append(Seen.of(part))
            matched.append(remembered(now.neighbours, memory.bears, part.ids).cpu().numpy())
            faultless &= bool((now.softmax.argmax() == truth).all())
            rows += len(part)
            bar.update(len(part))
    known = [one for one in ids if one is not None]
    names = np.concatenate(known) if known and len(known) == len(ids) else np.arange(rows)
    folds, seen = two_folds(names), Heard.join(parts)
    table = np.stack([-seen.own, *cross_fitted(seen, folds, tempered)])
    judged = Judged("log_loss", table, None, groups_of(names), np.concatenate(matched), faultless)
    best = len(table) - 1
    while best > 1 and paired_z(table[best] - table[best - 1], judged.groups)[1] > SIGN:
        best -= 1  # a simpler gate serves better
    found = judged.of_fit(best, 0, needed)
    log.info("%s; cross-fitted losses: %s", found, table.mean(axis=1).round(4).tolist())
    gate = gates_of(seen, best)[-1] if found.used else Shares(())
    return replace(gate, rows=len(memory)), found, Seen.join(looked_at)


def two_folds(names: np.ndarray) -> np.ndarray:
    """Which half each row is of, bool (n,): documents whole, of about as many rows."""
    _, which, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise InputError(
            f"{len(names)} rows of {len(sizes)} document; a gate is fitted on one half of the documents and judged on "
            "the other: give two or more, or let rs.lm.fit(model, tokenizer, reader) read remembered ones again"
        )
    half, ahead = np.zeros(len(sizes), bool), 0
    for place in np.argsort(-sizes, kind="stable").tolist():
        half[place] = ahead > 0
        ahead += -int(sizes[place]) if half[place] else int(sizes[place])
    return half[which]


def cross_fitted(seen: Heard, folds: np.ndarray, tempered: bool) -> np.ndarray:
    """Each row's loss under the gates that are fitted on the other half, float64 (gates, n)."""
    losses = np.empty((2 + tempered, len(seen)))
    for half in (folds, ~folds):
        rest = seen.rows(half)
        losses[:, half] = [per_row(rest, gate) for gate in gates_of(seen.rows(~half), 2 + tempered)]
    return losses


def gates_of(seen: Heard, wanted: int) -> list[Shares]:
    """The first gates of those from the fewest numbers to the most: constant shares, shares by query, tempered."""
    gates = [gated(seen, constant=True)]
    if wanted > 1:
        gates.append(gated(seen))
    if wanted > 2:
        gates.append(with_power(seen, gates[1]))
    return gates


def per_row(seen: Heard, gate: Shares) -> np.ndarray:
    """-log p' of each row's true class, float64 (n,)."""
    w = np.array(gate.weights)
    if gate.power == 1:
        return mixture_loss(w, seen)[0]
    return tempered_loss(w, gate.power, seen)[0]


def gated(seen: Heard, constant: bool = False) -> Shares:
    """The gate with the least loss; with constant shares it has biases alone."""
    all_features = seen.features.shape[1]
    seen = replace(seen, features=seen.features[:, :1]) if constant else seen
    start = np.zeros((seen.said.shape[1], seen.features.shape[1]))
    start[len(WIDTHS) :, 0] = PAST_BIAS

    def loss(w: np.ndarray, b: float) -> tuple[float, np.ndarray, float]:
        each, slope = mixture_loss(w, seen)
        return each.mean(), slope.T @ seen.features / len(seen), 0.0

    w, _ = minimised(loss, start, seen.features)
    return Shares(np.pad(w, [(0, 0), (0, all_features - w.shape[1])]).tolist())


def with_power(seen: Heard, gate: Shares) -> Shares:
    """The tempered gate with the least loss, found from a gate's weights and b = 1."""

    def loss(w: np.ndarray, b: float) -> tuple[float, np.ndarray, float]:
        each, slope, bend = tempered_loss(w, b, seen)
        return (
            each.mean() + STIFF * (b - 1) ** 2,
            slope.T @ seen.features / len(seen),
            bend.mean() + 2 * STIFF * (b - 1),
        )

    w, b = minimised(loss, np.array(gate.weights), seen.features)
    return Shares(w.tolist(), b)


def minimised(
    loss: Callable[[np.ndarray, float], tuple[float, np.ndarray, float]], start: np.ndarray, features: np.ndarray
) -> tuple[np.ndarray, float]:
    """Weights (E, F) and b that have the least loss, from `start` and 1; `loss` gives its gradients by both as well.

    They are sought in coordinates in which features are uncorrelated and alike: a few steps then do.
    """
    spread = features.T @ features / len(features) + 1e-6 * np.eye(features.shape[1])
    to_white = np.linalg.cholesky(spread)  # (F, F)
    from_white = np.linalg.inv(to_white)

    def flat(point: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = point[:-1].reshape(start.shape) @ from_white, float(point[-1])
        bound = w * (np.arange(w.shape[1]) > 0)
        value, by_w, by_b = loss(w, b)
        by_w = (by_w + 2 * RIDGE * bound) @ from_white.T
        return value + RIDGE * float(np.square(bound).sum()), np.append(by_w.reshape(-1), by_b)

    begin = np.append((start @ to_white).reshape(-1), 1.0)
    bounds = [(None, None)] * start.size + [POWERS]
    options = {"maxiter": 500, "ftol": 1e-9, "gtol": 1e-5}
    found = minimize(flat, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return found[:-1].reshape(start.shape) @ from_white, float(found[-1])


def exponents(w: np.ndarray, seen: Heard) -> np.ndarray:
    """g, float64 (n, 1 + E): 0 for the model, and of each expert; -inf where it says nothing."""
    g = np.where(seen.heard, seen.features @ w.T, -np.inf)
    return np.concatenate([np.zeros((len(seen), 1)), g], axis=1)


def mixture_loss(w: np.ndarray, seen: Heard) -> tuple[np.ndarray, np.ndarray]:
    """-log p' of each row's true class (n,), and its gradient by g (n, E)."""
    g = exponents(w, seen)
    top = g.max(axis=1, keepdims=True)
    x = np.exp(g - top)
    terms = x * np.concatenate([np.exp(seen.own)[:, None], seen.said], axis=1)
    whole, right = x.sum(axis=1), terms.sum(axis=1)
    return np.log(whole / right), (x / whole[:, None] - terms / right[:, None])[:, 1:]


def tempered_loss(w: np.ndarray, b: float, seen: Heard) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of a tempered gate, and its derivative by b (n,)."""
    with np.errstate(over="ignore"):
        x = np.exp(exponents(w, seen)[:, 1:])
    own, added = np.exp(seen.own), x * seen.said
    whole = own + added.sum(axis=1)
    log_r = np.log(whole) - seen.own
    each, slope, bend = -seen.own - b * log_r, -b * added / whole[:, None], -log_r
    for rows, entries, starts in blocks(seen.counts):
        counts = seen.counts[rows]
        p, v = seen.named_own[entries].astype(np.float64), seen.named_said[:, entries]
        all_of_it = p + sum(np.repeat(x[rows, e], counts) * v[e] for e in range(len(v)))
        log_r = torch.from_numpy(all_of_it / p).log_()  # several times faster than NumPy's
        bent = (log_r * (b - 1)).exp_().numpy()
        lifted = all_of_it * bent
        z = 1 + np.add.reduceat(lifted - p, starts)
        each[rows] += np.log(z)
        bend[rows] += np.add.reduceat(log_r.numpy() * lifted, starts) / z
        spread = np.add.reduceat(bent * v, starts, axis=1).T
        slope[rows] += b * x[rows] * spread / z[:, None]
    return each, slope, bend


def blocks(counts: np.ndarray) -> Iterator[tuple[np.ndarray, slice, np.ndarray]]:
    """Rows that name any class, a few at a time: their numbers, their entries, and where each row's begin in these."""
    ends = counts.cumsum()
    rows = counts.nonzero()[0]
    for some in np.split(rows, np.searchsorted(ends[rows] // ENTRIES, np.arange(1, ends[-1] // ENTRIES + 1))):
        if len(some):
            first = int(ends[some[0]] - counts[some[0]])
            yield some, slice(first, int(ends[some[-1]])), ends[some] - counts[some] - first
