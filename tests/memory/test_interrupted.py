"""An edit that is interrupted, at every seventh line of residua's, leaves the memory as it was or as it was to be."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import residua as rs

HOME = str(Path(rs.__file__).parent)
RNG = np.random.default_rng(0)
KEYS = RNG.normal(size=(60, 4)).astype(np.float32)


def rows(first, last, ids=None):
    return rs.Encoded(KEYS[first:last], np.zeros((last - first, 3)), np.arange(first, last) % 3, ids)


def seen(memory):
    found = memory.search(KEYS[:5] + 0.01, 6)
    near = memory.column("id")[found.rows.clamp_min(0)].masked_fill(~found.found, -1)
    return (
        *(memory.ids.tolist(), memory.labels.tolist(), len(memory), memory.keys_kept and memory.keys.tolist()),
        *(near.tolist(), np.round(found.distances.numpy(), 5).tolist(), dict(memory.names)),
    )


class Interrupt:
    """KeyboardInterrupt at the nth line that is run of residua."""

    def __init__(self, nth):
        self.left = nth

    def __enter__(self):
        sys.settrace(self.calls)
        return self

    def __exit__(self, *_):
        sys.settrace(None)
        torch.set_grad_enabled(True)  # a tracer may come between a `with torch.no_grad()` and its end

    def calls(self, frame, event, arg):
        return self.lines if frame.f_code.co_filename.startswith(HOME) else None

    def lines(self, frame, event, arg):
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.lines


EDITS = {
    "add": lambda memory: memory.add(rows(40, 45)),
    "replace": lambda memory: memory.add(rows(45, 48, [1, 2, 3]), replace=True),
    "forget": lambda memory: memory.forget([7, 9]),
    "relabel": lambda memory: memory.relabel([4, 8], 2),
    "undo": lambda memory: memory.undo(),
    "rebuild": lambda memory: memory.rebuild(),
}


def made(index):
    memory = rs.Memory(rows(0, 40), index="Flat" if index == "codes" else index, names={7: "seven"})
    if index == "codes":
        memory.discard_keys()
    memory.forget([0, 20])
    return memory


@pytest.mark.slow
@pytest.mark.parametrize("index", ["exact", "Flat", "codes"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_interrupted_at_any_line(edit, index):
    if index != "exact":
        pytest.importorskip("faiss")
    if (edit, index) == ("rebuild", "codes"):
        pytest.skip("it needs the keys")
    before, whole = seen(made(index)), made(index)
    EDITS[edit](whole)
    after, nth, interrupted = seen(whole), 1, 0
    while True:
        nth += 7
        memory = made(index)
        try:
            with Interrupt(nth) as interrupt:
                EDITS[edit](memory)
        except KeyboardInterrupt:
            interrupted += 1
        else:
            assert interrupt.left > 0
            break
        now = seen(memory)
        assert now in (before, after), nth
        memory.relabel(30, 1)  # the next edit finds nothing in its way
        memory.add(rows(50, 52, [90, 91]))
        assert memory.search(KEYS[50:51], 1).distances.item() == 0
        assert len(memory) == now[2] + 2
        if index == "codes":
            left, codes = memory._keys_left, memory.index._index
            assert left.rows == memory.n_rows == codes.ntotal
            stored = codes.reconstruct_n(left.start, len(left.tail))
            assert left.tail["key"].tolist() == stored.tolist()
            truth, active = left.truth, memory.active_rows.tolist()  # which all fit the lists of 100
            assert all(set(active) <= set(listed) for listed in truth.rows.tolist())
            near = torch.from_numpy(codes.reconstruct_n(0, codes.ntotal))[truth.rows.clamp_min(0)]
            squared = (truth.queries[:, None] - near).square().sum(dim=2)
            assert torch.allclose(squared[truth.rows >= 0], truth.squared[truth.rows >= 0], atol=1e-5)
    assert interrupted > 5
