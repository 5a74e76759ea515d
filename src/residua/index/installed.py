"""Whether FAISS is there: it is optional, and imported only where it is used."""

from __future__ import annotations

import importlib.util
import sys

from residua.errors import MissingDependencyError


def faiss_installed() -> bool:
    """Whether FAISS can be imported, without importing it."""
    return "faiss" in sys.modules or importlib.util.find_spec("faiss") is not None


def require_faiss():
    """The faiss module, or ``MissingDependencyError`` naming the extra."""
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError(
            'this index needs FAISS, which is not installed: pip install "residua[faiss]", or use index="exact"'
        ) from error
    return faiss
