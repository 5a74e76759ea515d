"""The log on disk: what every edit did comes back, and many small saves stay few files."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.memory.history import Changes, Event
from residua.memory.journal import from_tensors, to_tensors


def made(n=40, seed=0, **more):
    rng = np.random.default_rng(seed)
    return rs.Encoded(rng.normal(size=(n, 2)), rng.normal(size=(n, 3)), rng.integers(0, 3, n), **more)


def flat(event):
    changes = event.changes
    rows = ("forgotten", "restored", "relabelled", "before", "after")
    said = [
        changes and (changes.first, changes.last, dict(changes.names), *(getattr(changes, n).tolist() for n in rows))
    ]
    return [str(event), event.undoes, *said]


def test_events_come_back():
    rows = torch.tensor([3, 5])
    labels = torch.tensor([[True, False], [False, False]])
    events = [
        Event.of("create", Changes(0, 9)),
        Event.of("relabel", Changes(9, 9, relabelled=rows, before=labels, after=~labels), "Zoë's \n note"),
        Event.of("forget", Changes(9, 9, rows, names={2**40: (("a", "b"), ())})),
        Event.of("undo", Changes(9, 9, restored=rows, forgotten=rows[:1]), undoes=2),
        Event("rebuild", "2026-01-01T00:00:00+00:00", dropped=3),
    ]
    again = from_tensors(to_tensors(events))
    assert [flat(event) for event in again] == [flat(event) for event in events]
    assert again[1].changes.after.dtype == torch.bool and from_tensors(to_tensors([])) == []
    cut = {name: tensor[:-1] if name == "forgotten" else tensor for name, tensor in to_tensors(events).items()}
    with pytest.raises(ValueError, match="rows forgotten"):
        from_tensors(cut)


def test_the_log_outlives_its_process_and_is_taken_back_after_it(tmp_path):
    memory = rs.Memory(made(names=[f"file {n}" for n in range(40)], ids=np.arange(40)))
    memory.save(tmp_path)
    memory.forget([3, 4], note="asked for")
    memory.save(tmp_path)
    memory.relabel([5, 6], 2)
    memory.add(made(3, seed=1), note="three more")
    memory.save(tmp_path)
    loaded = rs.Memory.load(tmp_path)
    assert [flat(event) for event in loaded.log()] == [flat(event) for event in memory.log()]
    for one in (memory, loaded):
        one.undo()
        one.undo()
        one.undo()
    loaded.save(tmp_path)
    again, first = rs.Memory.load(tmp_path), rs.Memory(made())
    assert again.ids.tolist() == loaded.ids.tolist() == memory.ids.tolist() == list(range(40))
    assert again.labels.tolist() == first.labels.tolist() and again.names[3] == "file 3"
    assert [event.what for event in again.log()][-3:] == ["undo"] * 3


@pytest.mark.slow
def test_many_small_saves_are_few_files(tmp_path):
    memory = rs.Memory(made())
    for round in range(40):
        memory.add(made(1, seed=round))
        memory.relabel(round, round % 3)
        memory.save(tmp_path)
    named = {start: len({*tmp_path.glob(f"{start}-*")}) for start in ("rows", "edits")}
    assert max(named.values()) <= 7 + 2  # of 80 rows and 81 edits; and of the two states before
    loaded = rs.Memory.load(tmp_path)
    assert loaded.labels.tolist() == memory.labels.tolist() and (loaded.keys == memory.keys).all()
    assert len(loaded.log()) == 81


def test_what_is_missing_is_written_again(tmp_path):
    """By whoever has it in RAM."""
    pytest.importorskip("faiss")
    memory = rs.Memory(made(names=[f"file {n}" for n in range(40)], ids=np.arange(40)), index="HNSW4")
    memory.save(tmp_path)
    for start in ("rows", "edits", "names", "index"):
        memory.add(made(1, seed=1))
        memory.save(tmp_path)
        for file in tmp_path.glob(f"{start}-*"):
            file.unlink() if start != "rows" else file.write_bytes(b"torn")
        memory.save(tmp_path)
        loaded = rs.Memory.load(tmp_path)
        assert (loaded.keys == memory.keys).all() and loaded.names == memory.names
        assert len(loaded.log()) == len(memory.log())
