"""A trained model and data become ``Encoded``: keys, logits, labels, and whose they are."""

from residua.encoding.causal import TextEncoder
from residua.encoding.dispatch import encode
from residua.encoding.pairs import PairEncoder
from residua.encoding.stream import TextStream, last_row, prompt, text_encoder
from residua.encoding.windows import TokenBatch, Windowing

__all__ = [
    "PairEncoder",
    "TextEncoder",
    "TextStream",
    "TokenBatch",
    "Windowing",
    "encode",
    "last_row",
    "prompt",
    "text_encoder",
]
