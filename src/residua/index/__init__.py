"""Nearest neighbours over keys, and nothing else."""

from residua.index.exact import Exact
from residua.index.factory import Factory
from residua.index.index import Index, Recall
from residua.index.make import choose, load_index, make_index
from residua.index.recall import check_recall, measure_recall
from residua.index.recipes import Recipe, recipe

__all__ = [
    "Exact",
    "Factory",
    "Index",
    "Recall",
    "Recipe",
    "check_recall",
    "choose",
    "load_index",
    "make_index",
    "measure_recall",
    "recipe",
]
