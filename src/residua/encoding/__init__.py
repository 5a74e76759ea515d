"""A trained model and data become ``Encoded``: keys, logits, labels, and whose they are."""

from residua.encoding.dispatch import encode
from residua.encoding.pairs import PairEncoder
from residua.encoding.transformers import TextEncoder, text_encoder
from residua.encoding.windows import TokenBatch, Windowing

__all__ = ["PairEncoder", "TextEncoder", "TokenBatch", "Windowing", "encode", "text_encoder"]
