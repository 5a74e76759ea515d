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
from residua.memory.history import renamed_between
from residua.memory.table import alike

if TYPE_CHECKING:
    from residua.memory.memory import Memory
    from residua.memory.store import Saved

_OF_ALL = ("rebuild", "discard_keys")  # what is done again by an event of its own
_GROWS = ("n_outputs", "model_outputs", "classes", "source")  # what a later schema of one memory may say anew


def events_in(manifest: Mapping[str, Any]) -> int:
    """How many events of the log a manifest's files hold; formats up to 3 had none, and get one or two when read."""
    edits = manifest.get("edits", [])
    return sum(about["events"] for about in edits) if isinstance(edits, list) and edits else 1 + bool(edits)


def refreshed(memory: Memory) -> tuple[Memory, dict[int, int]]:
    """The memory in the folder that `memory` is of, with the net changes of `memory` since it was; which ids are new.

    It goes by ids: rows added, ids forgotten, labels and names changed. Ids that the memory gave by itself, and others
    use by now, are renumbered; ``IdError`` where the caller gave them. What concerns all rows is done again after that:
    new classes before, a rebuild and the discarding of keys after it.
    """
    saved = memory._saved
    if saved is None:
        raise StorageError("this memory is of no folder: save it into one of its own")
    path = saved.path
    mapped = any(isinstance(memory._table[name], ChunkedTensor) for name in memory._table.names)
    fresh = type(memory)._read(path, memory.device, mapped, memory._trust, index=memory._given)[0]
    if _same(memory) != _same(fresh):
        raise StorageError(f"{path} holds another memory by now; load that, or save this one into another folder")
    local = memory._events[events_in(saved.manifest) :]
    if local and memory._members is not None:
        raise StorageError(
            "rows were merged, and which rows stand for others cannot be told of two edits at once; load the folder "
            "again and repeat your own, or open it live (rs.Memory.open)"
        )
    grown, rebuilt = memory.n_outputs > saved.n_outputs, any(event.changes is None for event in local)
    if grown and fresh.n_outputs > saved.n_outputs:
        raise StorageError(
            f"new classes were added here ({memory.n_outputs} now) and by others ({fresh.n_outputs}), and nothing says "
            f"which of them are the same; load {path} again and add yours there, or save into another folder"
        )
    if rebuilt and not fresh.keys_kept:
        raise StorageError(
            f"this memory was rebuilt, and others discarded the keys, without which that cannot be done again; load "
            f"{path} again and repeat your other edits, or save into another folder"
        )
    done = [event for event in local if event.what not in _OF_ALL] or local
    what = done[0].what if len(done) == 1 and done[0].what not in ("undo", *_OF_ALL) else "refresh"
    with fresh.editing(what, "; ".join(event.note for event in local if event.note)) as draft:
        if grown:
            draft._grow(memory.n_outputs)
        renumbered = _put(saved, memory, draft)
    if rebuilt:
        fresh.rebuild()
    if not memory.keys_kept:
        fresh.discard_keys()
    return fresh, renumbered


def _same(memory: Memory) -> dict[str, Any]:
    return {name: value for name, value in memory.schema.to_json().items() if name not in _GROWS}


def _put(saved: Saved, memory: Memory, draft: Memory) -> dict[int, int]:
    """Change `draft` as `memory` was changed since it was `saved`; the ids that are others now."""
    mine, was = memory._table, saved.table
    ids, active, before = mine["id"], mine.dense("active"), was.dense("active")
    origin = saved.origin(len(mine))
    here = ((origin >= 0) & active).nonzero()[:, 0]  # rows that were there then, and are remembered now
    still = torch.zeros_like(before)
    still[origin[here]] = True
    gone = np.unique(was["id"][(before & ~still).nonzero()[:, 0]].cpu().numpy())
    draft._drop(draft._table.active_with_ids(gone))
    restored = ~before[origin[here]]
    restored &= ~torch.isin(ids[here], torch.from_numpy(draft.ids).to(mine.device))  # else, others did that, too
    here, new = here[~restored], here[restored]
    other = mine["label"][here] != was["label"][origin[here]]
    changed = here[other if other.ndim == 1 else other.any(dim=1)]
    if len(changed):
        _relabel(np.unique(ids[changed].cpu().numpy()), here, memory, draft)
    new = torch.cat([new, ((origin < 0) & active).nonzero()[:, 0]])
    renumbered = _add(new, memory, draft) if len(new) else {}
    if renamed := renamed_between(saved.names, memory.names):
        there, held = set(draft.ids.tolist()), set(ids[memory.active_rows].cpu().tolist())
        now = {renumbered.get(id, id): (id in held, names) for id, (_, names) in renamed.items()}
        draft.rename({id: names for id, (own, names) in now.items() if not own or id in there})
    return renumbered


def _relabel(ids: np.ndarray, rows: torch.Tensor, memory: Memory, draft: Memory) -> None:
    """Give the rows with these ids the labels that those of `rows`, ascending, have that bear them."""

    def found(table: Any, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        owners = table["id"][rows]
        order = owners.argsort(stable=True)
        return rows[order], owners[order]

    bearing = memory._table.active_with_ids(ids)
    mine, owners = found(memory._table, bearing[torch.isin(bearing, rows)])
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
    rows, left = rows.to(memory.device), memory._keys_left
    found = {name: memory._table[name][rows] for name in memory._table.names}
    if left is not None:
        if int(rows.min()) < left.start:
            why = "this memory does not keep the keys of its rows any more, to add them with anew"
            raise StorageError(f"{why}; load the folder, and add them again")
        found["key"] = left.keys(left.start)[rows - left.start]
    if draft._keys_left is not None:
        draft._keys_left = draft._keys_left.appended(found.pop("key"))
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
