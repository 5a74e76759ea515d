"""What ``rs.tune`` says of how sure a memory's gain is."""

from __future__ import annotations

from dataclasses import dataclass

USUAL = 1.96  # standard errors: chance alone reaches them in 1 of 40 fair trials
LIKELY = 1.0  # enough where rows are answered as new ones, fold by fold under what was fitted on the others


@dataclass(frozen=True)
class Evidence:
    """How surely the best setting with neighbours (k > 0) is better than the model alone, on the validation rows; that
    of a ``ContinuousCache``, than the reader it is over.

    Attributes
    ----------
    measure : str
        Of which loss `gain` and `z` are: "log_loss" or "squared_error".
    rows, groups : int
        Rows, and how many of their groups stand alone: documents, or other rows that share an id; of fewer than ten,
        twenty blocks of consecutive rows.
    matches : int
        Rows with a neighbour of the very same key (distance 0) or of their own id: a gain that rests on them is no
        evidence.
    gain : float
        By how much the mean loss falls: -log(probability of the true class) in nats, or the squared error. Where the
        objective is the log-loss, against the model at its own best temperature; else against the model as it is.
    z : float
        The gain in standard errors of its paired differences, by group.
    accuracy_gain, p_value : float or None
        The gain in accuracy against the model as it is, and its two-sided p-value: McNemar's exact test, or where rows
        come in groups a normal one. None for regression and for an interpolation tuned by
        likelihood alone.
    needed : float or None
        The standard errors that were asked for (``evidence=``).
    used : bool
        Whether the memory (or the cache) is used.
    rests_on_matches : bool
        Whether the memory would be used, and the other rows show no sign of a gain (z < 1).
    score_gain, score_z : float or None
        Where the objective is a scorer: by how much the score rises against the model as it is, and the same in
        standard errors, by a paired bootstrap of rows or groups that leaves matches out.
    against : str
        "the model alone", or of a cache "the reader under it".
    """

    measure: str
    rows: int
    groups: int
    matches: int
    gain: float
    z: float
    accuracy_gain: float | None
    p_value: float | None
    needed: float | None
    used: bool
    rests_on_matches: bool = False
    score_gain: float | None = None
    score_z: float | None = None
    against: str = "the model alone"

    def __str__(self) -> str:
        said = f"{self.measure.replace('_', ' ')} {-self.gain:+.4g} (z = {self.z:.2f})"
        if self.p_value is not None:
            said += f", accuracy {100 * (self.accuracy_gain or 0):+.2f} points (p = {self.p_value:.2g})"
        if self.score_gain is not None:
            said = f"score {self.score_gain:+.4g} (z = {self.score_z:.2f}), {said}"
        where = f"{self.rows:,} rows" + (f" in {self.groups} groups" if self.groups < self.rows else "")
        what = "the memory" if self.against == "the model alone" else "the cache"
        if self.rests_on_matches:
            where += f", by the {self.matches:,} alone that sit on remembered ones"
        asked_less = self.needed is not None and self.needed < USUAL
        unsure = ", though its gain is not significant" if self.used and asked_less and self.z < USUAL else ""
        return f"{what} is {'used' if self.used else 'not used'}{unsure}: {said}, against {self.against} on {where}"
