"""Nearest neighbours over keys, and nothing else."""

from residua.index.decoded import DecodedKeys
from residua.index.exact import Exact
from residua.index.faiss_index import FaissIndex
from residua.index.ground_truth import GroundTruth
from residua.index.index import Index, register_index
from residua.index.make import SECRET, given_index, is_remote, load_index, make_index
from residua.index.milvus import Milvus
from residua.index.postgresql import PostgreSQL
from residua.index.recall import ENOUGH, Recall, check_recall, keep_recall_true, measure_recall, median_nn_distance
from residua.index.recipes import MORE_EXACT
from residua.index.remote import RemoteIndex, Server
from residua.index.trust import check_wanted

__all__ = [
    "ENOUGH",
    "MORE_EXACT",
    "SECRET",
    "DecodedKeys",
    "Exact",
    "FaissIndex",
    "GroundTruth",
    "Index",
    "Milvus",
    "PostgreSQL",
    "Recall",
    "RemoteIndex",
    "Server",
    "check_recall",
    "check_wanted",
    "given_index",
    "is_remote",
    "keep_recall_true",
    "load_index",
    "make_index",
    "measure_recall",
    "median_nn_distance",
    "register_index",
]
