"""What a FAISS index is made of: the indexes inside it, and how much each learns."""

from __future__ import annotations

from collections.abc import Iterator


def parts(faiss, index) -> Iterator:
    """A FAISS index and those it wraps, outermost first, each as its own class."""
    index = faiss.downcast_index(index)
    yield index
    for inner in ("index", "base_index", "storage"):
        if isinstance(getattr(index, inner, None), faiss.Index):
            yield from parts(faiss, getattr(index, inner))


def needs(faiss, index) -> list[tuple[str, int]]:
    """(what, how many) of each thing that a FAISS index learns and needs as many training rows for."""
    found = []
    for part in parts(faiss, index):
        if isinstance(part, faiss.IndexPreTransform):
            for i in range(part.chain.size()):
                transform = faiss.downcast_VectorTransform(part.chain.at(i))
                if isinstance(transform, faiss.OPQMatrix):
                    found.append(("codewords", 256))
                elif not transform.is_trained:
                    found.append(("dimensions", transform.d_out))
        if isinstance(part, faiss.IndexIVF):
            found.append(("lists", part.nlist))
            found += needs(faiss, part.quantizer)
        if hasattr(part, "pq"):
            found.append(("codewords", part.pq.ksub))
    return found


def reason(error: RuntimeError) -> str:
    """FAISS's own words, without the C++ signature and source line around them."""
    return str(error).strip().splitlines()[0].rsplit(" at /", 1)[-1].split(": ", 1)[-1]
