"""The few types that travel through the house: ``Encoded``, ``Logits``, ``Neighbours``, ``Change``, ``Source``."""

from residua.records.change import Change, Values
from residua.records.encoded import Encoded, batches
from residua.records.logits import DenseLogits, Head, HeadLogits, Logits, TopLogits
from residua.records.neighbours import Neighbours
from residua.records.source import Source

__all__ = [
    "Change",
    "DenseLogits",
    "Encoded",
    "Head",
    "HeadLogits",
    "Logits",
    "Neighbours",
    "Source",
    "TopLogits",
    "Values",
    "batches",
]
