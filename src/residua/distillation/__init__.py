"""Teach a small network what a memory's neighbours say, so that it answers without them."""

from residua.distillation.distil import distil

__all__ = ["distil"]
