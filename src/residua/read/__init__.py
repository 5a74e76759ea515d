"""Readers: neighbours become weights, and weights a change of the base's prediction."""

from residua.read.adaptive import AdaptiveLambda
from residua.read.cache import ContinuousCache
from residua.read.knnlm import KNNLM
from residua.read.load import load
from residua.read.reader import Reader
from residua.read.resmem import ResMem
from residua.read.tokens import Stream

__all__ = ["KNNLM", "AdaptiveLambda", "ContinuousCache", "Reader", "ResMem", "Stream", "load"]
