"""A memory of text follows its documents: added, changed, moved, copied and removed ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.errors import IdError, InputError, ParameterError, SourceMismatchError, StorageError
from residua.memory.documents import Update

BODIES = [
    "def add(self):\n",
    "class Counter:\n    pass\n",
    "self.seen = {}\n",
    "return first + second\n",
    "import os\n",
]
FILES = st.dictionaries(st.sampled_from(["a.py", "b.py", "deep/c.py", "d.py"]), st.sampled_from(BODIES), min_size=1)


@pytest.fixture(scope="module")
def gpt2(tiny_model):
    return tiny_model("gpt2")


@pytest.fixture(scope="module")
def remember(gpt2, tiny_tokenizer):
    how = {"window": 24, "stride": 16, "key_dtype": "float32", "progress": False}
    return lambda files, **options: rs.lm.remember(gpt2, tiny_tokenizer, list(files.items()), **(how | options))


@pytest.fixture(scope="module")
def update(gpt2, tiny_tokenizer):
    return lambda files, memory, **options: rs.lm.update(
        gpt2, tiny_tokenizer, list(files.items()), memory, progress=False, **options
    )


def texts_of(memory, tokenizer):
    """The remembered texts, once each, by each name."""
    found = {}
    for id in set(memory.ids.tolist()):
        rows = memory.rows_with_ids(id)
        _, places = np.unique(memory.column("offset")[rows].numpy(), return_index=True)
        text = tokenizer.decode(memory.column("label")[rows][places], skip_special_tokens=True)
        found |= dict.fromkeys(memory.names.all(id), text)
    return found


def test_what_changed_is_read_and_nothing_else(remember, update, monkeypatch, tiny_tokenizer):
    files = {"a.py": BODIES[0], "b.py": BODIES[1], "c.py": BODIES[2]}
    memory = remember(files)
    read, whole = [], rs.encoding.TextStream.encode
    monkeypatch.setattr(
        rs.encoding.TextStream, "encode", lambda self, batch: read.extend(batch.ids) or whole(self, batch)
    )
    now = {"a.py": BODIES[0], "b.py": BODIES[3], "d.py": BODIES[4]}
    planned = update(now, memory, dry_run=True)
    assert (planned.added, planned.changed, planned.removed, planned.unchanged) == (("d.py",), ("b.py",), ("c.py",), 1)
    assert read == [] and len(memory) == memory.n_rows and planned.tokens_added == 0
    lengths = {body: len(tiny_tokenizer(body)["input_ids"]) + 1 for body in BODIES}  # and where it ends
    done = update(now, memory)
    assert done == Update(
        ("d.py",), ("b.py",), ("c.py",), 1, lengths[BODIES[3]] + lengths[BODIES[4]], done.tokens_forgotten
    )
    assert done.tokens_forgotten == lengths[BODIES[1]] + lengths[BODIES[2]]
    assert len(set(read)) == 2 and texts_of(memory, tiny_tokenizer) == now
    assert str(done).startswith("1 document added, 1 changed, 1 removed, 1 unchanged: ")
    assert update(now, memory) == Update((), (), (), 3)


@settings(max_examples=10)
@given(before=FILES, after=FILES)
def test_an_updated_memory_is_one_made_of_the_new_files(remember, update, before, after, tiny_tokenizer):
    memory = remember(before)
    if before.keys() & after.keys() or {*before.values()} & {*after.values()}:
        update(after, memory)
    else:
        with pytest.raises(InputError, match="an update would forget all"):
            update(after, memory)
        assert texts_of(memory, tiny_tokenizer) == before
        update(after, memory, missing="keep")
        after = before | after
    fresh = remember(after)
    assert memory.names.by_name() == fresh.names.by_name() and set(memory.ids.tolist()) == set(fresh.ids.tolist())
    assert texts_of(memory, tiny_tokenizer) == after
    near = [one.search(fresh.keys, 1).distances.numpy() for one in (memory, fresh)]
    np.testing.assert_allclose(*near, atol=1e-5)  # each memory has a centre of its own


def test_a_moved_file_and_a_copy_are_not_read_again(remember, update, tiny_tokenizer):
    memory = remember({"a.py": BODIES[0], "b.py": BODIES[1]})
    done = update({"moved.py": BODIES[0], "b.py": BODIES[1], "copy.py": BODIES[1]}, memory)
    assert (done.added, done.removed, done.tokens_added, done.tokens_forgotten) == (
        ("moved.py", "copy.py"),
        ("a.py",),
        0,
        0,
    )
    assert texts_of(memory, tiny_tokenizer) == {"moved.py": BODIES[0], "b.py": BODIES[1], "copy.py": BODIES[1]}


def test_a_text_stays_while_one_document_has_it(remember, tmp_path):
    memory = remember({"a/LICENSE": BODIES[0], "b/LICENSE": BODIES[0], "c.py": BODIES[1]})
    rows = len(memory)
    memory.save(tmp_path / "mem")
    memory = rs.Memory.load(tmp_path / "mem")
    (id,) = memory.names.bearers("a/LICENSE")
    assert memory.names.all(id) == ("a/LICENSE", "b/LICENSE")
    assert rs.lm.forget(memory, "a/LICENSE") == 0 and len(memory) == rows
    assert memory.names.all(id) == ("b/LICENSE",)
    with pytest.raises(IdError, match=r"no remembered document is called 'a/LICENSE'; there are 'b/LICENSE'"):
        rs.lm.forget(memory, "a/LICENSE")
    assert rs.lm.forget(memory, "b/LICENSE") > 0 and id not in memory and id not in memory.names
    assert rs.lm.forget(memory, str(memory.ids[0])) > 0 and not len(memory)  # an id will do


def test_forgetting_is_all_or_none(remember):
    memory = remember({"a.py": BODIES[0], "b.py": BODIES[1]})
    rows = len(memory)
    with pytest.raises(IdError, match=r"no remembered document is called 'c\.py'"):
        rs.lm.forget(memory, "a.py", "c.py")
    assert len(memory) == rows and memory.names.bearers("a.py")
    assert rs.lm.forget(memory, "a.py", "b.py", "a.py") == rows and not memory.names


def test_what_is_no_update(remember, update, tiny_model, tiny_tokenizer):
    memory = remember({"a.py": BODIES[0], "b.py": BODIES[1]})
    with pytest.raises(InputError, match=r"'a\.py': remembered with another text; replace"):
        update({"a.py": BODIES[2]}, memory, missing="keep", replace=False)
    with pytest.raises(ParameterError, match="missing='drop'; expected one of"):
        update({"a.py": BODIES[0]}, memory, missing="drop")
    with pytest.raises(InputError, match=r"two different texts are called 'a\.py'"):
        rs.lm.update(
            memory=memory,
            texts=[("a.py", BODIES[0]), ("a.py", BODIES[2])],
            model=tiny_model("gpt2"),
            tokenizer=tiny_tokenizer,
        )
    with pytest.raises(SourceMismatchError):
        rs.lm.update(tiny_model("llama"), tiny_tokenizer, [("a.py", BODIES[2])], memory)
    rows = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    with pytest.raises(StorageError, match="holds no documents"):
        rs.lm.update(tiny_model("gpt2"), tiny_tokenizer, [("a.py", BODIES[2])], rows)
    assert len(set(memory.ids.tolist())) == 2


def test_an_update_that_fails_changes_nothing(remember, update, monkeypatch, tiny_tokenizer):
    files = {"a.py": BODIES[0], "b.py": BODIES[1]}
    memory = remember(files)

    def failing(self, batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(rs.encoding.TextStream, "encode", failing)
    with pytest.raises(KeyboardInterrupt):
        update({"a.py": BODIES[3], "c.py": BODIES[4]}, memory)
    assert texts_of(memory, tiny_tokenizer) == files
