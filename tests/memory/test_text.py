"""A memory of tokens holds its documents' text."""

import numpy as np
import pytest

import residua as rs
from residua.errors import ParameterError, StorageError

# Two documents, the second one without its first token; a third begins anew under the first one's rows.
IDS = [4, 4, 4, 4, 9, 9, 9, 2, 2]
OFFSETS = [0, 1, 2, 3, 1, 2, 3, 0, 1]
TOKENS = [10, 11, 12, 13, 21, 22, 23, 30, 31]


def text(ids=IDS, offsets=OFFSETS, tokens=TOKENS):
    keys = np.arange(len(ids), dtype=np.float32)[:, None]
    return rs.Encoded(keys, np.zeros((len(ids), 40)), tokens, ids, columns={"offset": np.asarray(offsets)})


def test_the_tokens_before_a_row():
    memory = rs.Memory(text(), storage="none")
    assert memory.schema.is_text
    assert memory.context(3, 2).tolist() == [11, 12]
    assert memory.context(3, 100).tolist() == [10, 11, 12]
    assert memory.context(6, 5).tolist() == [21, 22]  # not the other document's, nor what is not remembered
    assert [memory.context(row, length).tolist() for row, length in [(0, 3), (4, 3), (7, 3), (8, 0)]] == [[]] * 4
    assert memory.context(8, 1).dtype == np.int64


def test_a_gap_ends_a_context():
    memory = rs.Memory(text([1] * 6, [0, 1, 2, 7, 8, 9], [1, 2, 3, 4, 5, 6]), storage="none")
    assert memory.context(5, 9).tolist() == [4, 5]
    memory.add(text([1], [10], [7]), replace=True)  # the document is replaced: what came before is forgotten
    assert memory.context(6, 9).tolist() == []


def test_who_has_no_contexts():
    with pytest.raises(StorageError, match="column 'offset'"):
        rs.Memory(rs.Encoded([[0.0]], [[0.0, 2.0]], [1])).context(0, 1)
    memory = rs.Memory(text())
    for row, length in [(-1, 2), (9, 2), (0, -1)]:
        with pytest.raises(ParameterError, match=r"0 \.\.\. 8"):
            memory.context(row, length)


def test_forgetting_a_document_reads_no_ids_but_its_own(monkeypatch):
    documents = np.arange(300).repeat(100)
    memory = rs.Memory(text(documents, np.tile(np.arange(100), 300), documents % 40), storage="none")
    ids = memory.column("id")
    assert memory.bytes_per_row["id"] == memory.bytes_per_row["column.offset"] == 0
    read, get = [], type(ids).__getitem__
    monkeypatch.setattr(type(ids), "__getitem__", lambda self, rows: read.append(rows.numel()) or get(self, rows))
    assert memory.forget([7]) == 100
    assert 8 in memory and 7 not in memory
    assert memory.relabel(8, 3) == 100
    assert sum(read) <= 500
    monkeypatch.undo()
    assert memory.ids.tolist() == np.delete(documents, np.s_[700:800]).tolist()
    found = memory.search([[850.0]], 2, exclude=[8])  # a whole document is passed over
    assert found.rows.tolist() == [[900, 901]] and found.distances.tolist() == [[50, 51]]
