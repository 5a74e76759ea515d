"""The few types that travel through the house: ``Encoded``, ``Logits``, ``Neighbours``, ``Change``, ``Prediction``."""

from residua.core.arrays import Array, ArrayLike, Ids
from residua.core.chunked import ChunkedTensor, Readable, Rows
from residua.core.encoded import Encoded, Task, batches
from residua.core.logits import (
    AbsentLogits,
    Base,
    DenseLogits,
    Head,
    HeadLogits,
    Logits,
    Sigmoid,
    Softmax,
    Table,
    TopLogits,
    as_tensor,
)
from residua.core.names import Names
from residua.core.neighbours import Neighbours
from residua.core.prediction import Change, Few, LabelValues, Prediction, Queries, TableValues, Term, Values
from residua.core.probabilities import SparseProbabilities
from residua.core.registry import Registry
from residua.core.source import Source

__all__ = [
    "AbsentLogits",
    "Array",
    "ArrayLike",
    "Base",
    "Change",
    "ChunkedTensor",
    "DenseLogits",
    "Encoded",
    "Few",
    "Head",
    "HeadLogits",
    "Ids",
    "LabelValues",
    "Logits",
    "Names",
    "Neighbours",
    "Prediction",
    "Queries",
    "Readable",
    "Registry",
    "Rows",
    "Sigmoid",
    "Softmax",
    "Source",
    "SparseProbabilities",
    "Table",
    "TableValues",
    "Task",
    "Term",
    "TopLogits",
    "Values",
    "as_tensor",
    "batches",
]
