import numpy as np
import pytest

import residua as rs
from residua.inspector.remembered import PAGE, bearers, find


def test_what_is_asked_is_all_true(made):
    memory = rs.Memory(made(300, names="kept"))
    labels = memory.labels
    assert find(memory).total == 300
    assert find(memory, label="dog").total == (labels == 1).sum()
    assert find(memory, label="1").total == (labels == 1).sum()
    assert find(memory, label="<script>alert(1)</script>").total == (labels == 2).sum()
    assert find(memory, id="17").rows.tolist() == [17]
    assert find(memory, name="KEPT/29").rows.tolist() == [29, *range(290, 300)]
    own = [row for row in [29, *range(290, 300)] if labels[row] == 0]
    assert find(memory, name="kept/29", label="cat").rows.tolist() == own
    assert find(memory, id="400").total == find(memory, name="nobody").total == 0


def test_forgotten_rows_are_not_found(made):
    memory = rs.Memory(made(30, names="kept"))
    memory.forget([3, 4])
    assert find(memory.now).rows.tolist() == [row for row in range(30) if row not in (3, 4)]
    assert find(memory.now, id="3").total == 0


def test_pages_hold_every_row_once(made):
    memory = rs.Memory(made(2 * PAGE + 3))
    pages = [find(memory, page=page) for page in range(3)]
    assert np.concatenate([one.rows for one in pages]).tolist() == list(range(2 * PAGE + 3))
    assert {one.pages for one in pages} == {3}
    assert find(memory, page=10**9).rows.tolist() == pages[2].rows.tolist()


def test_several_names_and_rows_of_one_id(made):
    data = made(4)
    memory = rs.Memory(rs.Encoded(data.keys, data.logits, data.labels, ids=[5, 5, -6, 2**62]))
    memory.rename({5: ("a.txt", "Copy of A"), 2**62: ("b",)})
    assert find(memory, name="copy").rows.tolist() == [0, 1]
    assert find(memory, id="-6").rows.tolist() == [2]
    assert find(memory, id=str(2**62)).rows.tolist() == [3]
    assert bearers(memory, [5, -6]) == {5: 2, -6: 1} and bearers(memory, []) == {}


def test_numbers_and_ranges_of_a_regression(made):
    memory = rs.Memory(made(50, task="regression"))
    low, high = np.sort(memory.labels)[[10, 20]]
    assert find(memory, label=f"{low}..{high}").total == 11
    assert find(memory, label=str(memory.labels[7])).rows.tolist() == [7]


def test_a_class_of_several(made):
    memory = rs.Memory(made(50, task="multi-label"))
    assert find(memory, label="2").total == memory.labels[:, 2].sum()


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"label": "horse"}, "no class 'horse'"), ({"label": "3"}, "no class '3'"), ({"label": "-1"}, "no class"),
     ({"id": "seven"}, "whole number"), ({"text": "x"}, "memory of text")],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(memory, asked, said):
    with pytest.raises(rs.errors.InputError, match=said):
        find(memory, **asked)


def test_a_text_is_found_where_its_last_token_is(text_memory, letters):
    memory = text_memory("def first", "a first, the first")
    found = find(memory, text="first", tokenizer=letters)
    assert found.total == 3
    for row in found.rows.tolist():
        before = [*memory.context(row, 20), int(memory.column("label")[row])]
        assert letters.decode(before).endswith("first")
    assert find(memory, text="first", name="1", tokenizer=letters).total == 2
    assert find(memory, text="fa", tokenizer=letters).total == 0  # the end of one text, the beginning of the next
    assert find(memory, text="a", tokenizer=letters).total == 1
    memory.forget(0)
    assert find(memory.now, text="first", tokenizer=letters).total == 2


@pytest.mark.slow
def test_a_million_rows(made):
    n, rng = 1_000_000, np.random.default_rng(0)
    keys = rng.normal(size=(n, 2)).astype(np.float32)
    names = {i: f"row {i}" for i in range(0, n, 10)}
    labels = np.arange(n) % 2
    memory = rs.Memory(rs.Encoded(keys, 4 * np.eye(2, dtype=np.float32)[labels], labels), names=names)
    assert find(memory, label="1").total == n // 2
    assert find(memory, name="row 99999").rows.tolist() == [999990]
    assert find(memory, page=19_999).rows.tolist() == list(range(n - PAGE, n))
