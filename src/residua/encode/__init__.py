"""A trained model and data become ``Encoded``: keys, logits, labels, and whose they are."""

from residua.encode.dispatch import encode
from residua.encode.pairs import PairEncoder
from residua.encode.transformers import TextEncoder, text_encoder
from residua.encode.windows import TokenBatch, Windowing

__all__ = ["PairEncoder", "TextEncoder", "TokenBatch", "Windowing", "encode", "text_encoder"]
