"""Nearest neighbours over keys, and nothing else."""

from residua.index.exact import Exact
from residua.index.faiss_index import FaissIndex
from residua.index.index import Index, register_index
from residua.index.make import load_index, make_index
from residua.index.recall import Recall, check_recall, measure_recall, median_nn_distance
from residua.index.trust import check_wanted

__all__ = [
    "Exact",
    "FaissIndex",
    "Index",
    "Recall",
    "check_recall",
    "check_wanted",
    "load_index",
    "make_index",
    "measure_recall",
    "median_nn_distance",
    "register_index",
]
