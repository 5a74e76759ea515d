"""A predicted token's anatomy, as arrays, as a data frame and as text."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from residua.errors import MissingDependencyError

SHOWN = 10  # neighbours, and tokens, in the printed table


@dataclass(frozen=True, eq=False)
class TokenExplanation:
    """``scale * base + contributions = scores`` for every token that a neighbour touches; nearest first.

    Attributes
    ----------
    rows, ids, offsets : int64 arrays of shape (k,)
        The neighbours' rows in the memory, their documents, and their places in them.
    labels : int64 array of shape (k,)
        Their next tokens.
    contexts : list of k int64 arrays
        The remembered tokens before each, oldest first.
    names : dict of int to str
        What documents are called.
    distances, weights : float32 arrays of shape (k,)
        Plain (not squared) Euclidean distances; what multiplies each neighbour's value.
    contributions : dict of str to float32 array of shape (k,)
        What each neighbour adds to the score of the ``"predicted"`` token, of the ``"base"``'s, and of the ``"true"``
        one when it is known.
    scale : float
        What is left of the base's probabilities: 1 for ResMem, 1 - lmbda for kNN-LM.
    tokens : int64 array of shape (c,)
        Every token that a neighbour touches, and the base's likeliest; ascending.
    base, scores : float32 arrays of shape (c,)
        The base's probabilities of these tokens, and the reader's scores.
    prediction, base_prediction : int
    label : int or None
    tokenizer : object, optional
        Whose ``decode`` the printed table uses.
    """

    rows: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    contexts: list[np.ndarray]
    names: dict[int, str]
    distances: np.ndarray
    weights: np.ndarray
    contributions: dict[str, np.ndarray]
    scale: float
    tokens: np.ndarray
    base: np.ndarray
    scores: np.ndarray
    prediction: int
    base_prediction: int
    label: int | None
    tokenizer: object = None

    def __len__(self) -> int:
        """How many neighbours there are."""
        return len(self.rows)

    def with_tokenizer(self, tokenizer) -> TokenExplanation:
        """The same, shown as text."""
        return replace(self, tokenizer=tokenizer)

    def text(self, tokens) -> str:
        """Tokens as text, on one line; their numbers without a tokenizer."""
        if self.tokenizer is None:
            return " ".join(str(int(token)) for token in np.atleast_1d(tokens))
        shown = repr(self.tokenizer.decode([int(token) for token in np.atleast_1d(tokens)]))
        return shown[1:-1]

    def to_frame(self):
        """A pandas data frame with one row per neighbour, nearest first.

        Returns
        -------
        pandas.DataFrame
            Columns ``document``, ``offset``, ``context``, ``next``, ``distance``, ``weight``, and ``to_predicted``,
            ``to_base``, ``to_true``: what it adds to those tokens' scores.

        Raises
        ------
        MissingDependencyError
            When pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingDependencyError(
                'to_frame needs pandas: pip install "residua[sklearn]"; the same numbers are attributes'
            ) from error
        table = {
            "document": [self.names.get(int(i), str(int(i))) for i in self.ids],
            "offset": self.offsets,
            "context": [self.text(tokens) for tokens in self.contexts],
            "next": [self.text(token) for token in self.labels],
            "distance": self.distances,
            "weight": self.weights,
        }
        return pandas.DataFrame(table | {f"to_{word}": values for word, values in self.contributions.items()})

    def __str__(self) -> str:
        truth = "" if self.label is None else f", truth {self.text(self.label)!r}"
        lines = [
            f"prediction {self.text(self.prediction)!r} (base alone {self.text(self.base_prediction)!r}{truth})",
            f"  {'token':<16}{'base':>10}{'memory':>10}{'score':>10}",
        ]
        for i in np.argsort(-self.scores, kind="stable")[:SHOWN]:
            left = self.scale * float(self.base[i])
            lines.append(
                f"  {self.text(self.tokens[i])[:15]:<16}{left:>10.4f}{float(self.scores[i]) - left:>+10.4f}"
                f"{float(self.scores[i]):>10.4f}"
            )
        if not len(self):
            return "\n".join([*lines, "no neighbours: this is the model alone"])
        lines.append(f"  {'distance':>9}  {'weight':>7}  context -> next token")
        for i in range(min(SHOWN, len(self))):
            name = self.names.get(int(self.ids[i]), str(int(self.ids[i])))
            lines.append(
                f"  {self.distances[i]:>9.3f}  {self.weights[i]:>7.4f}  …{self.text(self.contexts[i])[-60:]} -> "
                f"{self.text(self.labels[i])!r}  ({name}, token {self.offsets[i]:,})"
            )
        if len(self) > SHOWN:
            lines.append(f"  and {len(self) - SHOWN} more, of weight {float(self.weights[SHOWN:].sum()):.4f} together")
        return "\n".join(lines)
