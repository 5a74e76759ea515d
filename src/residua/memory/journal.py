"""The log of a memory as tensors of a file: what every edit did, in words and by row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from residua import described
from residua.memory.history import Changes, Event
from residua.memory.schema import written
from residua.memory.table import Table
from residua.strict import loads

_SAID = ("what", "when", "note", "added", "forgotten", "restored", "relabelled", "dropped", "undoes")
_PARTS = {"forgotten": 0, "restored": 1, "relabelled": 2, "before": 2, "after": 2}  # tensors, and which count is theirs


def to_tensors(events: Sequence[Event]) -> dict[str, Tensor]:
    """Events one after another; their words are JSON, as bytes."""
    said, changes = [], [event.changes for event in events if event.changes is not None]
    for event in events:
        about: dict[str, Any] = {name: value for name in _SAID if (value := getattr(event, name)) not in (None, "", 0)}
        if (done := event.changes) is not None:
            names = {str(id): both for id, both in done.names.items()}
            counts = [len(done.forgotten), len(done.restored), len(done.relabelled)]
            about |= {"rows": [done.first, done.last], "counts": counts} | ({"names": names} if names else {})
        said.append(about)
    found = {"events": torch.frombuffer(bytearray(json.dumps(said).encode()), dtype=torch.uint8)}
    for part in _PARTS:
        pieces = [piece for one in changes if len(piece := getattr(one, part))]
        found |= {part: written(torch.cat(pieces))} if pieces else {}
    return found


def from_tensors(tensors: Mapping[str, Tensor]) -> list[Event]:
    """The inverse of ``to_tensors``; a ``ValueError`` where these are not such tensors."""
    events, done = [], dict.fromkeys(_PARTS, 0)
    said = loads(tensors["events"].numpy().tobytes())
    described.events(said, "events")
    for about in said:
        changes = None
        if "rows" in about:
            first, last = about.pop("rows")
            counts, pieces = about.pop("counts"), {}
            for part, which in _PARTS.items():
                count = counts[which]
                if count:
                    pieces[part] = tensors[part][done[part] : done[part] + count]
                    done[part] += count
                    if len(pieces[part]) != count:
                        raise ValueError(f"{count} rows {part}, and {len(pieces[part])} are there")
            names = {int(id): (tuple(was), tuple(now)) for id, (was, now) in about.pop("names", {}).items()}
            changes = Changes(first, last, **pieces, names=names)
        events.append(Event(**about, changes=changes))
    return events


def replay(events: Sequence[Event], table: Table) -> Table:
    """What these events made of a table that nobody else has: the shards hold each row as it was new."""
    active, label = table.dense("active").contiguous(), table.dense("label")
    for changes in (event.changes for event in events):
        if changes is None:
            continue
        for rows, value in ((changes.restored, True), (changes.forgotten, False)):
            if len(rows):
                active[rows.to(active.device)] = value
        if len(changes.relabelled):
            label[changes.relabelled.to(label.device)] = changes.after.to(label)
    return table if active.all() else table.with_column("active", active)
