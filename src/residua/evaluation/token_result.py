"""What an evaluation of a language model's memory found, as numbers, JSON types and a table to read."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from residua.evaluation.result import aligned, in_points, percent, plain, short


@dataclass(frozen=True, eq=False)
class TokenEvaluation:
    """Base and memory on the same tokens. Shares are between 0 and 1.

    Attributes
    ----------
    reader, params : str, dict
        The reader's class and its parameters.
    n, documents : int
        Predicted tokens, and the documents they are of.
    perplexity_base, perplexity_memory : float
        ``exp`` of the mean negative log-likelihood of the true next tokens.
    perplexity_ratio : float
        ``perplexity_memory / perplexity_base``; below 1 the memory helps.
    perplexity_ratio_interval, gain_interval : (float, float) or None
        Percentile bootstrap over documents, at `confidence`; None for a single document.
    base, memory : float
        Next-token accuracy.
    tpr, fpr, gain : float
        ResMem, eq. 9-10: share of tokens that the base gets wrong and the memory right, the reverse, the difference.
    tokens_per_second_base : float or None
        Of the model's forward passes alone, when they were made during the evaluation.
    tokens_per_second_memory : float or None
        Of forward passes, search and reading together.
    """

    reader: str
    params: dict
    n: int
    documents: int
    perplexity_base: float
    perplexity_memory: float
    perplexity_ratio: float
    perplexity_ratio_interval: tuple[float, float] | None
    base: float
    memory: float
    tpr: float
    fpr: float
    gain: float
    gain_interval: tuple[float, float] | None
    confidence: float
    tokens_per_second_base: float | None
    tokens_per_second_memory: float | None

    def to_dict(self) -> dict:
        """Every attribute as JSON types; nan becomes None, as JSON has no such number."""
        return {name: plain(value) for name, value in asdict(self).items()}

    @property
    def significant(self) -> bool:
        """Whether the perplexity ratio's interval leaves out 1."""
        interval = self.perplexity_ratio_interval
        return interval is not None and not interval[0] <= 1 <= interval[1]

    @property
    def verdict(self) -> str:
        """In words: is perplexity lower with the memory, and is that more than chance among documents."""
        if self.perplexity_ratio == 1:
            return "The memory makes no difference here."
        change = f"{abs(100 * (self.perplexity_ratio - 1)):.1f} %"
        word = "lower" if self.perplexity_ratio < 1 else "higher"
        if self.perplexity_ratio_interval is None:
            return f"Perplexity is {change} {word} with the memory; one document cannot say whether that is chance."
        low, high = (100 * (edge - 1) for edge in self.perplexity_ratio_interval)
        span = (
            f"{100 * self.confidence:.4g} % interval {low:+.1f} to {high:+.1f} %, {self.documents} documents resampled"
        )
        if not self.significant:
            return f"Perplexity is {change} {word} with the memory, but that may be chance ({span})."
        advice = (
            "" if self.perplexity_ratio < 1 else " Do not use it like this: tune the reader, or leave the model alone."
        )
        return f"Perplexity is {change} {word} with the memory ({span}).{advice}"

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={short(value)}" for name, value in self.params.items() if value is not None)
        rows = [
            ("", "base", "memory", "change"),
            (
                "perplexity",
                f"{self.perplexity_base:.3f}",
                f"{self.perplexity_memory:.3f}",
                f"{100 * (self.perplexity_ratio - 1):+.1f} %",
            ),
            ("next-token accuracy", percent(self.base), percent(self.memory), in_points(self.gain)),
            ("wrong made right (TPR)", "", percent(self.tpr), ""),
            ("right made wrong (FPR)", "", percent(self.fpr), ""),
        ]
        if self.tokens_per_second_base is not None and self.tokens_per_second_memory is not None:
            times = self.tokens_per_second_base / self.tokens_per_second_memory
            speeds = f"{self.tokens_per_second_base:,.0f}", f"{self.tokens_per_second_memory:,.0f}"
            rows.append(("tokens per second", *speeds, f"{times:.2f}x the time"))
        documents = "1 document" if self.documents == 1 else f"{self.documents} documents"
        about = f"{self.reader}({shown}) on {self.n:,} tokens of {documents}"
        return f"{about}\n\n{aligned(rows)}\n\n{self.verdict}"
