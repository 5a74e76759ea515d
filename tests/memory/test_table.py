import torch

from residua.memory.table import Table


def rows(start, count):
    numbers = torch.arange(start, start + count)
    return {"key": numbers[:, None].float() / 2, "label": numbers}


def test_growth_keeps_every_row():
    table, end = Table("cpu"), 0
    for count in (1, 1, 5, 0, 2, 40, 3, 1):
        table.append(rows(end, count))
        end += count
        assert len(table) == end
        assert table["label"].tolist() == list(range(end))
        assert table["key"][:, 0].tolist() == [n / 2 for n in range(end)]


def test_appending_one_by_one_copies_little():
    table, seen = Table("cpu"), set()
    for n in range(2000):
        table.append(rows(n, 1))
        seen.add(table["label"].data_ptr())
    assert len(seen) < 30  # a new buffer at each growth by a half, not at each row


def test_the_first_append_takes_exactly_what_it_needs():
    table = Table("cpu")
    table.append(rows(0, 7))
    assert table["label"].untyped_storage().nbytes() == 7 * 8


def test_truncate_and_keep():
    table = Table("cpu")
    table.append(rows(0, 6))
    table.truncate(4)
    assert table["label"].tolist() == [0, 1, 2, 3]
    table.append(rows(10, 1))
    table.keep(torch.tensor([1, 4]))
    assert table["label"].tolist() == [1, 10]
    assert table["key"].tolist() == [[0.5], [5.0]]
    table.keep(torch.tensor([], dtype=torch.int64))
    table.append(rows(7, 2))
    assert table["label"].tolist() == [7, 8]


def test_columns_are_views():
    table = Table("cpu")
    table.append(rows(0, 3))
    table["label"][1] = 9
    assert table["label"].tolist() == [0, 9, 2]
    assert "label" in table and "other" not in table
    assert table.bytes_per_row == {"key": 4, "label": 8}
