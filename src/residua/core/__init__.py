"""The few types that travel through the house: ``Encoded``, ``Logits``, ``Neighbours``, ``Change``, ``Source``."""

from residua.core.change import Change, Values
from residua.core.encoded import Encoded, batches
from residua.core.logits import AbsentLogits, DenseLogits, Head, HeadLogits, Logits, TopLogits
from residua.core.neighbours import Neighbours
from residua.core.softmax import Softmax
from residua.core.source import Source
from residua.core.token_probabilities import TokenProbabilities, merge

__all__ = [
    "AbsentLogits",
    "Change",
    "DenseLogits",
    "Encoded",
    "Head",
    "HeadLogits",
    "Logits",
    "Neighbours",
    "Softmax",
    "Source",
    "TokenProbabilities",
    "TopLogits",
    "Values",
    "batches",
    "merge",
]
