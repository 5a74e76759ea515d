"""Memories served over HTTP: to whoever asks, each tenant its own, all of one model."""

from residua.serving.limits import Limits
from residua.serving.serve import Server

__all__ = ["Limits", "Server"]
