"""How a memory is changed from outside: what is acknowledged is on the disk, and is read by the next request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from residua import lm
from residua.core import Encoded
from residua.core.naming import named_classes
from residua.errors import IdError, StorageError
from residua.memory import Memory
from residua.memory import documents as of_text
from residua.serving.rows import Rows
from residua.serving.tenants import Tenant


class Editor:
    """Adds, updates and forgets rows, or the documents of a memory of text.

    Parameters
    ----------
    rows : Rows
    model : pair (language model, tokenizer), optional
        Reads documents.
    capacity : int, optional
        The most rows that a memory may have; ``StorageError`` beyond.
    """

    rows: Rows
    model: tuple[Any, Any] | None
    capacity: int | None

    def __init__(self, rows: Rows, model: tuple[Any, Any] | None = None, capacity: int | None = None):
        self.rows, self.model, self.capacity = rows, model, capacity

    def encoded(self, rows: Sequence[Mapping[str, Any]]) -> Encoded:
        """The keys and logits of rows that are to be added; asked for while nobody else asks the model."""
        return self.rows.encoded(rows)

    def add(
        self, tenant: Tenant, made: Encoded, rows: Sequence[Mapping[str, Any]], replace: bool, note: str | None
    ) -> dict[str, Any]:
        """Remember rows that were ``encoded``; those of a present id only to `replace` what it names."""
        with tenant.editing() as memory, memory.editing("add", note) as draft:
            before = len(draft)
            ids = draft.add(_labelled(draft, made, rows), replace=replace).tolist()
            draft.rename({id: (row["name"],) for id, row in zip(ids, rows, strict=True) if row.get("name")})
            self._within(draft, before)
            gone = before + len(ids) - len(draft)
        return {"ids": ids, "added": len(ids), "forgotten": gone, "rows": len(tenant.memory)}

    def relabel(self, tenant: Tenant, rows: Sequence[Mapping[str, Any]], note: str | None) -> dict[str, Any]:
        """Give ids other labels."""
        with tenant.editing() as memory:
            labels = _labels(memory, [row["label"] for row in rows])
            changed = memory.relabel([int(row["id"]) for row in rows], labels, note=note)
            return {"updated": changed, "rows": len(memory)}

    def follow(
        self, tenant: Tenant, texts: Sequence[Mapping[str, str]], replace: bool, note: str | None
    ) -> dict[str, Any]:
        """Remember documents under their names; what says something else than it did only to `replace` it."""
        assert self.model is not None  # or nothing but rows can be added
        given = [(one["name"], one["text"]) for one in texts]
        with tenant.editing() as memory, memory.editing("update", note) as draft:
            before = len(draft)
            done = lm.update(*self.model, given, draft, missing="keep", replace=replace, progress=False)
            self._within(draft, before)
        return {
            "added": done.tokens_added,
            "forgotten": done.tokens_forgotten,
            "unchanged": done.unchanged,
            "rows": len(tenant.memory),
        }

    def forget(self, tenant: Tenant, ids: Sequence[int], documents: Sequence[str], note: str | None) -> dict[str, Any]:
        """Forget what bears these ids, and documents by name; all or none."""
        with tenant.editing() as memory, memory.editing("forget", note) as draft:
            gone, _ = of_text.forget(draft, documents) if documents else (0, {})
            gone += draft.forget(ids) if ids else 0
        return {"forgotten": gone, "rows": len(tenant.memory)}

    def _within(self, memory: Memory, before: int) -> None:
        if self.capacity is not None and len(memory) > max(self.capacity, before):
            raise StorageError(
                f"this memory would have {len(memory):,} rows, and may have {self.capacity:,}: forget others first"
            )


def _labelled(memory: Memory, made: Encoded, rows: Sequence[Mapping[str, Any]]) -> Encoded:
    ids = [int(row["id"]) for row in rows if "id" in row]
    if ids and len(ids) < len(rows):
        raise IdError("some rows have an id and others none; expected all of them, or none")
    made = memory.schema.widened(made)
    return Encoded(
        made.keys,
        made.logits,
        _labels(memory, [row["label"] for row in rows]),
        np.array(ids, np.int64) if ids else None,
        source=made.source,
        task=memory.task,
    )


def _labels(memory: Memory, given: Sequence[Any]) -> np.ndarray:
    """Labels as a memory takes them: classes by number or name, or numbers."""
    if memory.task == "classification":
        names = [one for one in given if isinstance(one, str)]
        numbers = iter(named_classes(np.array(names), memory.schema.classes).tolist() if names else [])
        return np.array([next(numbers) if isinstance(one, str) else one for one in given], np.int64)
    labels = np.array(given, np.float64 if memory.task == "regression" else np.int64)
    return labels[:, 0] if labels.ndim == 2 and memory.task == "regression" and memory.flat_labels else labels
