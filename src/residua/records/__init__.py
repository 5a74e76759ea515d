"""The few types that travel through the house: ``Encoded``, ``Logits``, ``Neighbours``, ``Change``, ``Source``."""

from residua.records.change import Change, Values
from residua.records.encoded import Encoded, batches
from residua.records.logits import AbsentLogits, DenseLogits, Head, HeadLogits, Logits, TopLogits
from residua.records.neighbours import Neighbours
from residua.records.softmax import Softmax
from residua.records.source import Source
from residua.records.token_probabilities import TokenProbabilities, merge

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
