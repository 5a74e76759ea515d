"""Whether one reader is better than another beyond doubt, row by row, on the same rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest, norm

from residua.errors import ParameterError
from residua.readers.evidence import Evidence

FEW = 10  # groups; the spread of fewer says little
BLOCKS = 20  # consecutive rows that stand for groups where there are too few
SIGN = 1.0  # standard errors, of a gain that there may be


@dataclass(frozen=True)
class Judged:
    """Each validation row under some readers: losses float64 (readers, n), right answers bool (readers, n) or None."""

    measure: str
    losses: np.ndarray  # by what each row weighs, where rows do not weigh alike
    right: np.ndarray | None
    groups: np.ndarray | None  # int (n,): rows that belong together; None where every row stands alone
    matched: np.ndarray  # bool (n,): rows whose very key or id is remembered
    faultless: bool  # whether the model as it is is right on every row

    @classmethod
    def join(cls, parts: Sequence[Judged]) -> Judged:
        """The rows of all `parts`, which stand alone."""
        right = [part.right for part in parts if part.right is not None]
        losses = np.concatenate([part.losses for part in parts], axis=1)
        matched = np.concatenate([part.matched for part in parts])
        table = np.concatenate(right, axis=1) if right else None
        return cls(parts[0].measure, losses, table, None, matched, all(part.faultless for part in parts))

    def unmatched(self) -> Judged:
        """The rows that are not remembered themselves."""
        rest = ~self.matched
        right, groups = self.right, self.groups
        return Judged(
            self.measure,
            self.losses[:, rest],
            None if right is None else right[:, rest],
            None if groups is None else groups[rest],
            self.matched[rest],
            self.faultless,
        )

    def beyond_matches(self, memory: int, base: int, needed: float | None, by_accuracy: bool) -> Evidence:
        """The evidence, which the rows that are not remembered themselves must give as well.

        Fewer rows give less: only where they show no sign of a gain does it rest on the others.
        """
        found = self.evidence(memory, base, needed, by_accuracy)
        if needed is None or not found.used or not self.matched.any():
            return found
        if self.matched.all():
            return replace(found, used=False, rests_on_matches=True)
        rest = self.unmatched().evidence(memory, base, needed, by_accuracy)
        return replace(found, used=rest.used, rests_on_matches=not rest.used and rest.z < SIGN)

    def of_fit(self, memory: int, base: int, needed: float | None) -> Evidence:
        """The same of what was fitted to other rows, by its losses: where nothing is `needed`, any gain will do."""
        found = self.beyond_matches(memory, base, needed, by_accuracy=False)
        return replace(found, used=found.gain > 0) if needed is None else found

    def evidence(self, memory: int, base: int, needed: float | None, by_accuracy: bool) -> Evidence:
        """Of reader number `memory` against number `base`; the model as it is has number 0.

        Where that is right on every row, whatever is more sure looks better, beyond all doubt and without end, and
        nothing is evidence.
        """
        gain, z, count = paired_z(self.losses[base] - self.losses[memory], self.groups)
        accuracy = p_value = None
        if self.right is not None:
            now, before = self.right[memory], self.right[0]
            accuracy, own, _ = paired_z(now.astype(float) - before, self.groups)
            p_value = 2 * float(norm.sf(abs(own)))
            if self.groups is None:
                fixed, broken = int((now & ~before).sum()), int((before & ~now).sum())
                p_value = float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0
        if needed is None:
            used = True  # the caller's scores decide
        elif by_accuracy and accuracy is not None and p_value is not None:
            used = accuracy > 0 and p_value < 2 * float(norm.sf(needed)) and z > -needed
        else:
            used = z > needed and not self.faultless
        return Evidence(
            self.measure, self.losses.shape[1], count, int(self.matched.sum()), gain, z, accuracy, p_value, needed, used
        )


def check_evidence(needed: float | None) -> None:
    """Raise ``ParameterError`` unless it is a number of standard errors, or None."""
    if needed is None or (isinstance(needed, (int, float)) and not isinstance(needed, bool) and 0 <= needed < math.inf):
        return
    raise ParameterError(f"evidence={needed!r}; expected standard errors of the gain >= 0, such as 1.96, or None")


def groups_of(ids: np.ndarray | None) -> np.ndarray | None:
    """Rows that share an id belong together; where too few ids are too many rows', consecutive rows do."""
    if ids is None or not len(ids):
        return None
    names, numbers = np.unique(ids, return_inverse=True)
    if len(names) == len(ids):
        return None
    return numbers if len(names) >= FEW else np.arange(len(ids)) * BLOCKS // len(ids)


def paired_z(differences: np.ndarray, groups: np.ndarray | None) -> tuple[float, float, int]:
    """The mean of paired differences (n,), the same in its standard errors (0 where they cannot be told), and how many
    groups there were. Whole groups are drawn: the spread is that of a ratio of sums.

    >>> mean, z, groups = paired_z(np.array([1.0, 0.0, 1.0, 0.0]), None)
    >>> mean, round(z, 3), groups
    (0.5, 1.732, 4)
    """
    n = len(differences)
    sizes, sums = np.ones(n), differences
    if groups is not None:
        sizes, sums = np.bincount(groups), np.bincount(groups, differences)
        sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    mean, count = float(differences.mean()), len(sums)
    spread = math.sqrt(float(np.square(sums - mean * sizes).sum()) * count / max(count - 1, 1)) / n
    if spread > 0:
        return mean, mean / spread, count
    # Every row gained the same: as sure as may be, or nothing at all.
    return mean, math.copysign(math.inf, mean) if mean and count > 1 else 0.0, count
