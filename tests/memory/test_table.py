import numpy as np
import pytest
import torch

from residua.memory.run_length import RunLengthArray
from residua.memory.table import Table


def rows(start, count):
    numbers = torch.arange(start, start + count)
    return {"key": numbers[:, None].float() / 2, "label": numbers.int()}


def test_growth_keeps_every_row():
    table, end = Table("cpu"), 0
    for count in (1, 1, 5, 0, 2, 40, 3, 1):
        table = table.appended(rows(end, count))
        end += count
        assert len(table) == end
        assert table["label"].tolist() == list(range(end))
        assert table["key"][:, 0].tolist() == [n / 2 for n in range(end)]


def test_appending_one_by_one_copies_little():
    table, seen = Table("cpu"), set()
    for n in range(2000):
        table = table.appended(rows(n, 1))
        seen.add(table["label"].data_ptr())
    assert len(seen) < 30  # a new buffer at each growth by a half, not at each row


def test_the_first_append_takes_exactly_what_it_needs():
    table = Table("cpu")
    table = table.appended(rows(0, 7))
    assert table["label"].untyped_storage().nbytes() == 7 * 4


def test_first_and_take():
    table = Table("cpu")
    table = table.appended(rows(0, 6))
    table = table.first(4)
    assert table["label"].tolist() == [0, 1, 2, 3]
    table = table.appended(rows(10, 1))
    table = table.take(torch.tensor([1, 4]))
    assert table["label"].tolist() == [1, 10]
    assert table["key"].tolist() == [[0.5], [5.0]]
    table = table.take(torch.tensor([], dtype=torch.int64))
    table = table.appended(rows(7, 2))
    assert table["label"].tolist() == [7, 8]


def test_older_tables_stay_as_they_are():
    old = Table("cpu").appended({"id": torch.arange(3), "x": torch.arange(3.0)}, room=9)
    more = old.appended({"id": torch.tensor([3, 9]), "x": torch.tensor([7.0, 8.0])})
    changed = more.with_column("x", torch.zeros(5))
    assert more["x"].data_ptr() == old["x"].data_ptr()  # one buffer
    assert (old["x"].tolist(), old["id"][:].tolist()) == ([0, 1, 2], [0, 1, 2])
    assert (more["x"].tolist(), more["id"][:].tolist()) == ([0, 1, 2, 7, 8], [0, 1, 2, 3, 9])
    assert (changed["x"].tolist(), changed["id"][:].tolist()) == ([0] * 5, [0, 1, 2, 3, 9])
    assert old.bytes_per_row == {"id": 8, "x": 4}
    apart = old.apart().appended({"id": torch.tensor([5]), "x": torch.tensor([5.0])})
    assert (apart["x"].tolist(), apart["id"][:].tolist()) == ([0, 1, 2, 5], [0, 1, 2, 5])
    assert (more["x"].tolist(), more["id"][:].tolist()) == ([0, 1, 2, 7, 8], [0, 1, 2, 3, 9])


def test_integers_are_runs_while_that_pays():
    table = Table("cpu")
    table = table.appended(
        {"id": torch.arange(5).repeat_interleave(1000), "page": torch.arange(5000), "x": torch.ones(5000)}
    )
    assert isinstance(table["id"], RunLengthArray) and isinstance(table["page"], RunLengthArray)
    assert table.bytes_per_row == {"id": 0, "page": 0, "x": 4}
    scattered = torch.arange(9000) * 3 % 7001
    table = table.appended({"id": torch.full((9000,), 7), "page": scattered, "x": torch.zeros(9000)})
    assert isinstance(table["id"], RunLengthArray) and isinstance(table["page"], torch.Tensor)
    pages = torch.cat([torch.arange(5000), scattered])
    assert torch.equal(table["page"], pages) and len(table) == len(table["id"]) == 14_000
    wanted = np.array([4, 6999, -1])
    assert table.rows_with("page", wanted).tolist() == np.flatnonzero(np.isin(pages, wanted)).tolist()
    assert table.rows_with("id", np.array([7, 2])).tolist() == [*range(2000, 3000), *range(5000, 14_000)]
    table = table.appended({"id": torch.tensor([9]), "page": torch.tensor([1]), "x": torch.tensor([2.0])})
    assert (table["id"][14_000].item(), table["page"][14_000].item()) == (9, 1)
    table = table.first(2500).take(torch.arange(1999, 2500))
    assert table["id"][:3].tolist() == [1, 2, 2] and table["page"][:3].tolist() == [1999, 2000, 2001]
    assert table.without("x").names == ["id", "page"]


def test_an_append_that_failed_halfway():
    table = Table("cpu").appended({"id": torch.arange(3), "x": torch.zeros(3)})
    with pytest.raises(RuntimeError):
        table.appended({"id": torch.arange(2), "x": torch.zeros(2, 7)})
    assert (len(table), table["id"][:].tolist()) == (3, [0, 1, 2])
    table = table.appended({"id": torch.tensor([7]), "x": torch.ones(1)})
    assert (table["id"][:].tolist(), table["x"].tolist()) == ([0, 1, 2, 7], [0, 0, 0, 1])


def test_room_for_all_that_will_come():
    table = Table("cpu")
    for start in (0, 10, 20):
        table = table.appended(rows(start, 10), room=30)
        assert table["label"].untyped_storage().nbytes() == 30 * 4
