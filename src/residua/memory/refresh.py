"""What was edited here and not saved yet, put on top of what others saved meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from residua.core import ChunkedTensor, DenseLogits
from residua.core.logits import grown
from residua.errors import StorageError
from residua.memory import arguments
from residua.memory.history import Changes
from residua.memory.table import alike

if TYPE_CHECKING:
    from residua.memory.memory import Memory

_GROWS = ("n_outputs", "model_outputs", "classes", "source")  # what a later schema of one memory may say anew


def events_in(manifest: Mapping[str, Any]) -> int:
    """How many events of the log a manifest's files hold; formats up to 3 had none, and get one or two when read."""
    edits = manifest.get("edits", [])
    return sum(about["events"] for about in edits) if isinstance(edits, list) and edits else 1 + bool(edits)


def refreshed(memory: Memory, path: Any) -> tuple[Memory, dict[int, int]]:
    """The memory in folder `path`, with the net changes of `memory` since it was of that folder; which ids are new.

    It goes by ids: rows added, ids forgotten, labels and names changed. Ids that the memory gave by itself, and others
    use by now, are renumbered; ``IdError`` where the caller gave them.
    """
    saved = memory._saved
    if saved is None:
        raise StorageError(
            "all rows changed since they were loaded or saved (rebuild, discard_keys, new classes), or never were: "
            "save into another folder, or load the folder again and repeat your edits"
        )
    mapped = any(isinstance(memory._table[name], ChunkedTensor) for name in memory._table.names)
    fresh = type(memory)._read(path, memory.device, mapped, memory._trust)[0]
    if _same(memory) != _same(fresh):
        raise StorageError(f"{path} holds another memory by now; load that, or save this one into another folder")
    local = memory._events[events_in(saved.manifest) :]
    table, names = memory._table, memory.names
    for event in reversed(local):
        assert event.changes is not None  # or nothing would be known to be saved
        table, names = event.changes.reversed().made(table, names)
    net = Changes.between(table.first(saved.manifest["rows"]), memory._table, names, memory.names)
    what = local[0].what if len(local) == 1 and local[0].what != "undo" else "refresh"
    with fresh.editing(what, "; ".join(event.note for event in local if event.note)) as draft:
        renumbered = _put(net, memory, draft)
    return fresh, renumbered


def _same(memory: Memory) -> dict[str, Any]:
    return {name: value for name, value in memory.schema.to_json().items() if name not in _GROWS}


def _put(net: Changes, memory: Memory, draft: Memory) -> dict[int, int]:
    """Change `draft` as `memory` was changed; the ids that are others now."""
    mine, ids = memory._table, memory._table["id"]
    gone = np.unique(ids[net.forgotten[net.forgotten < net.first]].cpu().numpy())
    draft._drop(draft._table.active_with_ids(gone))
    if len(net.relabelled):
        _relabel(np.unique(ids[net.relabelled].cpu().numpy()), net.first, memory, draft)
    new = torch.arange(net.first, net.last)
    new = torch.cat([net.restored, new[~torch.isin(new, net.forgotten)]])
    renumbered = _add(new, memory, draft) if len(new) else {}
    here = set(draft.ids.tolist()) if net.names else set()
    held = set(mine["id"][memory.active_rows].cpu().tolist()) if net.names else set()
    now = {renumbered.get(id, id): (id in held, names) for id, (_, names) in net.names.items()}
    draft.rename({id: names for id, (own, names) in now.items() if not own or id in here})
    return renumbered


def _relabel(ids: np.ndarray, before: int, memory: Memory, draft: Memory) -> None:
    def found(table: Any, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        owners = table["id"][rows]
        order = owners.argsort(stable=True)
        return rows[order], owners[order]

    mine, owners = found(memory._table, memory._table.active_with_ids(ids, before))
    theirs, others = found(draft._table, draft._table.active_with_ids(ids))
    if not len(mine):
        return
    if not torch.equal(owners, others):  # they replaced some, or forgot them
        known = torch.isin(others, owners)
        theirs, others = theirs[known], others[known]
        mine = mine[torch.searchsorted(owners, others)]
    label = draft._table.dense("label").clone()
    label[theirs] = memory._table["label"][mine].to(label)
    draft._table = draft._table.with_column("label", label)
    draft._refresh()


def _add(rows: torch.Tensor, memory: Memory, draft: Memory) -> dict[int, int]:
    if not memory.keys_kept:
        raise StorageError("this memory keeps no keys to add its rows with anew; load the folder, and add them again")
    found = {name: memory._table[name][rows.to(memory.device)] for name in memory._table.names}
    if "logits" in found and draft.n_outputs > memory.n_outputs:
        found["logits"] = grown(DenseLogits(found["logits"]), draft.n_outputs).table[:]
    ids = found["id"].cpu().numpy()
    used = ids[np.isin(ids, draft._table["id"][draft._table.rows_with("id", ids)].cpu().numpy())]
    assigned = [id for id in np.unique(used).tolist() if any(a <= id < b for a, b in memory._assigned)]
    first = max(memory._next_id, draft._next_id)
    renumbered = dict(zip(assigned, arguments.ids_from(first, len(assigned)).tolist()))
    given = ids[~np.isin(ids, assigned)]
    arguments.check_absent(draft._table["id"][draft._table.active_with_ids(given)])
    found["id"] = torch.tensor([renumbered.get(id, id) for id in ids.tolist()], dtype=torch.int64)
    draft._table = draft._table.appended(found | {"active": alike(True, len(ids))})
    draft._next_id = first + len(assigned)
    draft._assigned = (*draft._assigned, *memory._assigned, (first, first + len(assigned)))
    draft._refresh()
    return renumbered
