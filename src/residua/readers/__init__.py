"""Readers: neighbours become weights, and weights a change of the base's prediction."""

from residua.readers.adaptive import AdaptiveLambda
from residua.readers.cache import ContinuousCache
from residua.readers.knnlm import KNNLM
from residua.readers.load import load
from residua.readers.reader import Reader
from residua.readers.resmem import ResMem
from residua.readers.tokens import Stream

__all__ = ["KNNLM", "AdaptiveLambda", "ContinuousCache", "Reader", "ResMem", "Stream", "load"]
