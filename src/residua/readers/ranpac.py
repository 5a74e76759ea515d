"""RanPAC (arXiv 2307.02251): a head in closed form, on random features of all remembered rows, always up to date."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from residua.caution import warn
from residua.core import Array, Change, DenseLogits, Encoded, HeadLogits, Logits, Prediction, Softmax, as_tensor
from residua.core.encoded import labels_of
from residua.errors import EmptyMemoryError, InputError, ParameterError, StorageError, TaskError
from residua.memory import Memory
from residua.memory.exclusion import remembered
from residua.progress import progress_bar
from residua.readers.evidence import USUAL
from residua.readers.judged import check_evidence, groups_of
from residua.readers.neighbour import positive, whole
from residua.readers.own_rows import own_rows
from residua.readers.reader import OWN, Exclude, Reader, TextState, misshapen, of_one_moment, register_reader
from residua.readers.ridge import Ridge, RidgeTerm, Sums
from residua.readers.seen import Seen, watched

log: logging.Logger = logging.getLogger(__name__)

MOST_ROWS = 8000  # of a memory's own, that the two numbers are fitted to
FOLDS = 5
LEAST = 1e-9  # of the ridge
SURE = 10.0  # what makes probabilities of a regression's 0 and 1, about: b is fitted in units of it
WHY = "the coefficients are fitted by them"


@register_reader
class RanPAC(Reader):
    """Answer by ridge regression of all remembered labels on random features of their keys, beside the model.

    With ``f(x) = relu(z(x) W)``, W random, scores are logits: ``a f_model(x)/T + b f(x)ᵀ (G + λI)⁻¹ C``, where
    ``G = sum_i f(x_i) f(x_i)ᵀ`` and ``C = sum_i f(x_i) onehot(y_i)ᵀ`` (RanPAC, eq. 4-6). G and C are sums over rows:
    what is added, forgotten or relabelled is added to them and taken from them, and the answer is that of a head
    trained on what is remembered now, in whatever order it came. Nothing is searched. A column ``weight`` multiplies a
    row's part of both.

    Parameters
    ----------
    memory : Memory
        Of classes, not of text, with its keys.
    features : int, default 1000
        M: more is better, and costs M² numbers of RAM and M² operations for each row that comes or goes.
    ridge : float, optional
        λ, beside the mean diagonal of G. None: a power of ten, chosen anew for the rows of the moment by generalised
        cross-validation, which needs nothing but G and C. With about as many features as rows much depends on it.
    temperature : float, default 1.0
        The model's T.
    seed : int, default 0
        What W is drawn from.
    coefficients : (float, float), optional
        a and b, which ``fit`` finds. ``(0, 1)`` is the paper: the model's own head has no say, and the best class is
        right while the probabilities are far from sure.

    Raises
    ------
    ParameterError, TaskError, StorageError

    Examples
    --------
    >>> import numpy as np, residua as rs
    >>> rng = np.random.default_rng(0)
    >>> keys = rng.normal(size=(400, 2))
    >>> rows = rs.Encoded(keys, np.zeros((400, 2)), (keys[:, 0] * keys[:, 1] > 0).astype(int))
    >>> reader = rs.RanPAC(rs.Memory(rows[:300]), features=50).fit()
    >>> bool(rs.evaluate(reader, rows[300:]).accuracy > 0.9)
    True
    """

    features: int
    ridge: float | None
    seed: int
    coefficients: list[float] | None

    def __init__(
        self,
        memory: Memory | None = None,
        features: int = 1000,
        ridge: float | None = None,
        temperature: float = 1.0,
        *,
        seed: int = 0,
        coefficients: Sequence[float] | None = None,
    ):
        if not isinstance(memory, Memory):
            raise ParameterError(f"got a {type(memory).__name__} where a Memory is expected: rs.Memory(encoded)")
        if memory.task != "classification" or memory.schema.is_text:
            what = "text" if memory.schema.is_text else memory.task
            raise TaskError(f"RanPAC is for rows of one class each, and this is a memory of {what}")
        if not memory.keys_kept:
            raise StorageError("RanPAC sums over the keys, and this memory's were discarded")
        self.memory, self.k = memory, 1  # neighbours, of which nothing is read: who asks for more gets them
        self.features = whole("features", features, 1, "a whole number >= 1")
        self.ridge = None if ridge is None else positive("ridge", ridge)
        self.temperature = positive("temperature", temperature)
        if self.ridge is not None and self.ridge < LEAST:
            raise ParameterError(f"ridge={ridge!r}; expected {LEAST:g} or more: less is lost in rounding")
        self.seed = whole("seed", seed, 0, "a whole number >= 0")
        if coefficients is not None and len(coefficients) != 2:
            raise ParameterError(
                f"{len(coefficients)} coefficients; expected two: of the model's logits, and of the head"
            )
        self.coefficients = None if coefficients is None else [float(one) for one in coefficients]
        if not all(map(math.isfinite, self.coefficients or ())):
            raise ParameterError(f"coefficients={self.coefficients}; expected finite numbers")

    @property
    def is_noop(self) -> bool:
        return super().is_noop or self.coefficients == [1.0, 0.0]

    def _made(self, params: dict[str, Any]) -> Self:
        made = super()._made(params)
        if (made.features, made.seed) == (self.features, self.seed):  # the sums are the same
            vars(made)["_made_once"] = {n: v for n, v in vars(self).get("_made_once", {}).items() if n == "sums"}
        return made

    def _solved(self) -> Ridge:
        """The regression over what is remembered now."""
        held = vars(self).setdefault("_made_once", {}).get("sums")
        before = None if held is None else held[1]
        sums = self._kept("sums", (), lambda: Sums.of(self.memory, self.features, self.seed, before))
        return self._kept("ridge", (self.ridge,), lambda: sums.solved(self.ridge))

    def read(
        self,
        keys: Tensor,
        logits: Logits,
        excluded: Array | None = None,
        *,
        depth: int = 0,
        state: TextState | None = None,
        documents: Array | None = None,
        tokens: Array | None = None,
    ) -> Iterator[tuple[slice, Prediction]]:
        memory = self.memory
        if logits.shape != (len(keys), memory.n_outputs):
            raise misshapen(memory, keys, logits)
        near = memory.search(keys, depth, excluded)  # which checks them, too
        dense = DenseLogits(logits.dense()) if isinstance(logits, HeadLogits) else logits
        base = Softmax(dense, self.temperature)
        if self.is_noop or not len(keys):
            yield slice(0, len(keys)), Prediction(base, near, None, resting_space="logit")
            return
        if self.coefficients is None:
            raise ParameterError("this RanPAC has no coefficients yet; fit it first: reader.fit(), or fit(validation)")
        (left, given), asked = self.coefficients, self._solved().asked(memory, keys, excluded)

        def weigh() -> Change:
            scale = torch.where(asked.heard, left, 1.0).float()[:, None]
            return Change(scale, (RidgeTerm(asked, given),), "logit")

        yield slice(0, len(keys)), Prediction(base, near, weigh, resting_space="logit")

    @of_one_moment
    def fit(
        self,
        validation: Encoded | Iterable[Encoded] | None = None,
        *,
        exclude: Exclude = OWN,
        evidence: float | None = USUAL,
        progress: bool | None = None,
    ) -> Self:
        """Find the two coefficients by log-loss; those of the model alone where others are not surely better.

        Parameters
        ----------
        validation : Encoded or iterable of Encoded, optional
            Labelled rows that are not remembered. None: at most 8 000 of the memory's own, each as if it (and all of
            its id) were not there, exactly. The model has often learned these, and is then too sure of them.
        exclude, evidence, progress
            As for ``Pooled.fit``.

        Returns
        -------
        RanPAC
            The reader itself, with its ``coefficients`` and ``evidence_``.

        Raises
        ------
        InputError, LabelError, ParameterError, EmptyMemoryError, StorageError
        """
        from residua.readers.weights import LogitFeatures, cross_fitted  # and scipy's optimisers

        check_evidence(evidence)
        if not len(self.memory):
            raise EmptyMemoryError("the memory is empty; add rows to it first")
        own, seen = validation is None, list[Seen]()
        rows = own_rows(self.memory, MOST_ROWS) if validation is None else watched(validation, seen)
        parts, groups, matched, first = list[LogitFeatures](), [], [], 0
        both = self.with_params(coefficients=(1.0, SURE))
        with progress_bar(progress, desc="fit", unit="row") as bar:
            for part, now in both.predictions(rows or (), exclude=OWN if own else exclude, depth=1):
                truth = as_tensor(labels_of(part, WHY)).to(now.scores.device)
                weight = part.columns.get("weight")
                weight = None if weight is None else torch.as_tensor(weight, dtype=torch.float32)
                parts.append(LogitFeatures(torch.stack([now.start, now.scores - now.start]), truth, weight))
                groups.append(np.arange(first, first + len(part)) if part.ids is None else part.ids)
                matched.append(remembered(now.near, self.memory.bears, part.ids).cpu().numpy())
                first += len(part)
                bar.update(len(part))
        vars(self).setdefault("_made_once", {}).update(vars(both).get("_made_once", {}))
        of_group, matches = (
            np.concatenate([np.empty(0, np.int64), *groups]),
            np.concatenate([np.empty(0, bool), *matched]),
        )
        _, fold = np.unique(of_group, return_inverse=True)
        if not len(fold) or fold.max() < 1:
            raise InputError(f"{len(fold)} rows of at most one id to fit on; expected rows of two or more")
        fold = np.random.default_rng(0).permutation(fold.max() + 1)[fold] % FOLDS
        folds = [np.flatnonzero(fold == number) for number in range(FOLDS) if (fold == number).any()]
        every, order = LogitFeatures.join(parts), np.concatenate(folds)
        best = every.fitted(None)
        judged = cross_fitted([every[torch.from_numpy(some)] for some in folds], start=best, matched=matches[order])
        self.evidence_ = replace(judged, groups=groups_of(of_group[order])).of_fit(2, 1, evidence)
        if self.evidence_.rests_on_matches and not own:
            warn(
                f"the memory's gain rests on the {self.evidence_.matches:,} of {self.evidence_.rows:,} rows whose very "
                "key or id is remembered, and the model alone is kept; fit on rows that are not in the memory"
            )
        log.info("%s", self.evidence_)
        self.coefficients = ((best if self.evidence_.used else every.base) * (1.0, SURE)).tolist()
        self.tuned_on_ = Seen.join(seen)
        return self
