import numpy as np
import pytest
import torch

import residua as rs
from residua.core import Head, HeadLogits, Source, batches
from residua.errors import (
    IdError,
    InputError,
    LabelError,
    MemoryFileError,
    NonFiniteError,
    ParameterError,
    ShapeError,
    TaskError,
)

KEYS, LOGITS = np.arange(12.0).reshape(4, 3), np.arange(8.0).reshape(4, 2)


def test_the_task_is_inferred_from_labels_and_logits():
    assert rs.Encoded(KEYS, LOGITS, [0, 1, 0, 1]).task == "classification"
    assert rs.Encoded(KEYS, np.ones(4), np.ones(4)).task == "regression"
    assert rs.Encoded(KEYS, LOGITS, LOGITS).task == "regression"
    assert rs.Encoded(KEYS, LOGITS).task is None
    assert rs.Encoded(KEYS, np.ones(4), [1, 2, 3, 4], task="regression").labels.dtype == np.float64


@pytest.mark.parametrize(
    "arguments, error, says",
    [
        ((KEYS[0], LOGITS), ShapeError, r"\(3,\)"),
        ((KEYS, LOGITS[:3]), ShapeError, "one logit row per key"),
        ((KEYS * np.nan, LOGITS), NonFiniteError, "12 NaN"),
        ((np.where(KEYS == 5, np.inf, KEYS), LOGITS), NonFiniteError, "row 1"),
        ((KEYS, np.where(LOGITS == 3, -np.inf, LOGITS)), NonFiniteError, "logits"),
        ((KEYS * 1e300, LOGITS), NonFiniteError, "float32"),
        ((KEYS, LOGITS, [0, 1, 2, 1]), LabelError, "label 2 is out of range"),
        ((KEYS, LOGITS, [0, -1, 0, 1]), LabelError, "label -1"),
        ((KEYS, LOGITS, [0, 1]), ShapeError, r"\(2,\)"),
        ((KEYS, LOGITS, 2 * np.eye(4, 2, dtype=int)), LabelError, "0 and 1 for each of 2 labels"),
        ((KEYS, LOGITS, ["a", "b", "a", "b"]), LabelError, "class indices"),
        ((KEYS, LOGITS, np.ones(4) / 2), TaskError, "task="),
        ((KEYS, np.ones(4), [0, 1, 2, 1]), TaskError, "task="),
        ((KEYS, LOGITS, [0, 1, 0, 1], [1, 2]), IdError, r"\(4,\)"),
        ((KEYS, LOGITS, [0, 1, 0, 1], np.ones(4)), IdError, "float"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_each_misfit_has_its_own_error(arguments, error, says):
    with pytest.raises(error, match=says):
        rs.Encoded(*arguments)


def test_bad_columns_weights_and_tasks_are_refused():
    with pytest.raises(ParameterError, match="weight"):
        rs.Encoded(KEYS, LOGITS, columns={"weight": [1, -1, 1, 1]})
    with pytest.raises(ShapeError, match="'offset'"):
        rs.Encoded(KEYS, LOGITS, columns={"offset": [1, 2]})
    with pytest.raises(TaskError, match="ranking"):
        rs.Encoded(KEYS, LOGITS, [0, 1, 0, 1], task="ranking")
    with pytest.raises(LabelError, match="fractions"):
        rs.Encoded(KEYS, LOGITS, [0.5, 1, 0, 1], task="classification")
    with pytest.raises(TaskError, match=r"\[0, s\]"):
        rs.Encoded(KEYS, rs.DenseLogits(torch.ones(4, 1)), [0, 1, 0, 1], task="classification")


@pytest.mark.parametrize("index", [2, -1, slice(1, 3), np.array([3, 0]), np.array([True, False, True, False])])
def test_indexing_takes_the_same_rows_of_everything(index):
    enc = rs.Encoded(KEYS, LOGITS, [0, 1, 0, 1], [7, 8, 9, 9], columns={"weight": np.arange(4.0)})
    part, rows = enc[index], np.atleast_1d(np.arange(4)[index])
    np.testing.assert_array_equal(part.keys, KEYS[rows])
    np.testing.assert_array_equal(np.asarray(part.logits), LOGITS[rows])
    np.testing.assert_array_equal(part.labels, np.array([0, 1, 0, 1])[rows])
    np.testing.assert_array_equal(part.ids, np.array([7, 8, 9, 9])[rows])
    np.testing.assert_array_equal(part.columns["weight"], rows)
    assert part.task == "classification" and part.keys.dtype == KEYS.dtype


def test_an_index_out_of_range_is_an_index_error():
    with pytest.raises(IndexError):
        rs.Encoded(KEYS, LOGITS)[4]


def test_save_and_load_give_the_same_rows(tmp_path):
    source = Source("Net", "fc", parameters={"fc.weight": ([2, 3], 1.5)}, extra={"tokenizer": "ab"})
    head = Head(torch.ones(2, 3), torch.zeros(2))
    enc = rs.Encoded(KEYS, LOGITS, [0, 1, 0, 1], [7, 8, 9, 9], columns={"path": [1, 2, 3, 4]}, source=source, head=head)
    enc.save(tmp_path / "a.npz")
    again = rs.Encoded.load(tmp_path / "a.npz")
    for name in ("keys", "labels", "ids"):
        np.testing.assert_array_equal(getattr(again, name), getattr(enc, name))
    np.testing.assert_array_equal(np.asarray(again.logits), LOGITS)
    assert again.source == source and again.task == "classification" and again.columns["path"].tolist() == [1, 2, 3, 4]
    assert torch.equal(again.head.weight, head.weight)


def test_head_logits_and_regression_survive_a_file(tmp_path):
    head = Head(torch.ones(2, 3))
    keys = torch.from_numpy(KEYS).float()
    rs.Encoded(KEYS, HeadLogits(head, keys), [0, 1, 0, 1]).save(tmp_path / "h.npz")
    again = rs.Encoded.load(tmp_path / "h.npz")
    assert isinstance(again.logits, HeadLogits)
    np.testing.assert_array_equal(again.logits.dense().numpy(), head(keys).numpy())
    rs.Encoded(KEYS, np.ones(4), np.zeros(4)).save(tmp_path / "r.npz")
    assert rs.Encoded.load(tmp_path / "r.npz").task == "regression"


def test_files_that_are_not_encoded_are_refused_clearly(tmp_path):
    with pytest.raises(MemoryFileError, match="no file"):
        rs.Encoded.load(tmp_path / "nowhere.npz")
    enc = rs.Encoded(KEYS, LOGITS)
    enc.save(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MemoryFileError, match="not a whole"):
        rs.Encoded.load(tmp_path / "torn.npz")
    np.save(tmp_path / "one.npy", KEYS)
    with pytest.raises(MemoryFileError, match="one array"):
        rs.Encoded.load(tmp_path / "one.npy")
    np.savez(tmp_path / "other.npz", x=KEYS)
    with pytest.raises(MemoryFileError, match="'keys'"):
        rs.Encoded.load(tmp_path / "other.npz")
    np.save(tmp_path / "object.npz", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(MemoryFileError):
        rs.Encoded.load(tmp_path / "object.npz.npy")


def test_a_failed_save_leaves_the_old_file(tmp_path):
    enc = rs.Encoded(KEYS, LOGITS)
    with pytest.raises(MemoryFileError, match="cannot write"):
        enc.save(tmp_path / "missing" / "a.npz")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(MemoryFileError, match="cannot write"):
        enc.save(tmp_path / "file" / "a.npz")


def test_batches_take_one_or_many_and_nothing_else():
    enc = rs.Encoded(KEYS, LOGITS)
    assert list(batches(enc)) == [enc]
    assert [len(b) for b in batches(iter([enc, enc[:1]]))] == [4, 1]
    for wrong in (KEYS, "path.npz", 3, [KEYS]):
        with pytest.raises(InputError, match="Encoded"):
            list(batches(wrong))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("int64", "float64"),
        ("int16", "float32"),
    ],
)
def test_keys_keep_the_digits_they_came_with(given, kept):
    assert rs.Encoded(np.ones((2, 3), given), np.zeros((2, 2))).keys.dtype == kept
    assert rs.Encoded(torch.ones(2, 3).to(getattr(torch, given)), np.zeros((2, 2))).keys.dtype == kept


def test_ids_beyond_int64_are_refused():
    ids = np.array([2**63, 1], np.uint64)
    with pytest.raises(IdError, match="ids hold 9223372036854775808"):
        rs.Encoded(np.ones((2, 3)), np.zeros((2, 2)), ids=ids)
    assert rs.Encoded(np.ones((2, 3)), np.zeros((2, 2)), ids=ids - 1).ids.tolist() == [2**63 - 1, 0]
