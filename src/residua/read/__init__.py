"""Readers: neighbours become weights, and weights a change of the base's prediction."""

from residua.read.knnlm import KNNLM
from residua.read.load import load
from residua.read.reader import Reader
from residua.read.resmem import ResMem

__all__ = ["KNNLM", "Reader", "ResMem", "load"]
