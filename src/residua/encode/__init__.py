"""A trained model and data become ``Encoded``: keys, logits, labels, and whose they are."""

from residua.encode.dispatch import encode

__all__ = ["encode"]
