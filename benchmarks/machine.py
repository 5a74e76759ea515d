"""The machine a number was measured on: one description serves benchmarks and reproductions."""

from residua.papers.machine import machine

__all__ = ["machine"]
