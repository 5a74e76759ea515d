"""Hugging Face's datasets are read as they are: columns by their names, arrays where they hold lists."""

import numpy as np
import pytest
import torch
from torch import nn

import residua as rs
from residua.errors import DtypeError, InputError, LabelError

datasets = pytest.importorskip("datasets")

N = 20
VECTORS = np.random.default_rng(0).normal(size=(N, 5)).astype("float32")
PICTURES = np.random.default_rng(1).normal(size=(N, 1, 8, 8)).astype("float32")
LABELS = np.arange(N) % 3
CLASSES = ["a", "b", "c"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 3))


def vectors(**more):
    features = {"x": datasets.Sequence(datasets.Value("float32")), "label": datasets.ClassLabel(names=CLASSES)}
    data = datasets.Dataset.from_dict({"x": VECTORS.tolist(), "label": LABELS}, features=datasets.Features(features))
    for name, column in more.items():
        data = data.add_column(name, column)
    return data


def alike(found, expected):
    np.testing.assert_array_equal(found.keys, expected.keys)
    np.testing.assert_array_equal(found.logits.dense(), expected.logits.dense())
    np.testing.assert_array_equal(found.labels, expected.labels)
    return True


@pytest.mark.parametrize("form", [None, "torch", "numpy"])
@pytest.mark.parametrize("streamed", [False, True])
def test_vectors_in_any_format(model, form, streamed):
    data = vectors().with_format(form)
    found = rs.encode(model, data.to_iterable_dataset().with_format(form) if streamed else data)
    assert alike(found, rs.encode(model, (VECTORS, LABELS)))
    assert found.classes == ("a", "b", "c")


def test_a_stream_from_a_generator(model):
    rows = [{"x": row.tolist(), "label": int(label)} for row, label in zip(VECTORS, LABELS)]
    data = datasets.IterableDataset.from_generator(lambda: iter(rows))
    assert alike(rs.encode(model, data), rs.encode(model, (VECTORS, LABELS)))


@pytest.mark.parametrize("kind", ["lists", "Array3D"])
@pytest.mark.parametrize("streamed", [False, True])
def test_pictures_of_numbers(network, kind, streamed):
    features = {"image": datasets.Array3D((1, 8, 8), "float32"), "label": datasets.Value("int64")}
    given = {"image": PICTURES if kind == "Array3D" else PICTURES.tolist(), "label": LABELS}
    data = datasets.Dataset.from_dict(given, features=datasets.Features(features) if kind == "Array3D" else None)
    found = rs.encode(network, data.to_iterable_dataset() if streamed else data)
    assert alike(found, rs.encode(network, (PICTURES, LABELS)))


def test_pictures_need_a_transform(network):
    Image = pytest.importorskip("PIL.Image")
    pictures = [Image.fromarray((abs(picture[0]) * 60).astype("uint8")) for picture in PICTURES]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    data = datasets.Dataset.from_dict({"image": pictures, "label": LABELS}, features=features)

    def transform(rows):
        arrays = [np.asarray(picture, dtype="float32")[None] / 255 for picture in rows["image"]]
        return {"image": [torch.from_numpy(array) for array in arrays], "label": rows["label"]}

    expected = rs.encode(network, (transform({"image": pictures, "label": LABELS})["image"][0][None], LABELS[:1]))
    found = rs.encode(network, data.with_transform(transform))
    np.testing.assert_allclose(found.keys[:1], expected.keys, rtol=1e-5)
    assert found.classes == ("a", "b", "c")
    with pytest.raises(InputError, match="set_transform"):
        rs.encode(network, data)
    with pytest.raises(InputError, match="set_transform"):
        rs.encode(network, data.to_iterable_dataset())
    with pytest.raises(DtypeError):
        rs.encode(network, data.with_format("torch"))


def test_other_columns_are_left_out(model):
    data = vectors(idx=np.arange(N), note=[f"row {i}" for i in range(N)])
    assert alike(rs.encode(model, data), rs.encode(model, (VECTORS, LABELS)))


def test_columns_of_other_names(model):
    data = vectors().rename_columns({"x": "measured", "label": "kind"})
    with pytest.raises(InputError, match=r"parts \['measured', 'kind'\].*rename the columns"):
        rs.encode(model, data)
    found = rs.encode(model, data.rename_columns({"measured": "x", "kind": "label"}))
    assert alike(found, rs.encode(model, (VECTORS, LABELS)))


def test_a_half_precision_model_gets_its_own_floats(model):
    assert alike(rs.encode(model.bfloat16(), vectors()), rs.encode(model, (VECTORS, LABELS)))


def test_a_regressions_targets_stay_as_they_are(model):
    targets = np.random.default_rng(0).normal(size=(N, 3))
    data = datasets.Dataset.from_dict({"x": VECTORS.tolist(), "label": targets.tolist()})
    assert rs.encode(model.bfloat16(), data).labels == pytest.approx(targets.astype("float32"), rel=1e-6)


def test_rows_without_labels(model):
    data = vectors().remove_columns("label")
    assert rs.encode(model, data).labels is None
    assert alike(rs.encode(model, data, labels=LABELS), rs.encode(model, (VECTORS, LABELS)))
    missing = datasets.Dataset.from_dict({"x": VECTORS.tolist(), "label": [None, *LABELS[1:].tolist()]})
    with pytest.raises(InputError, match=r"missing \(None\); leave these rows out"):
        rs.encode(model, missing)
    found = rs.encode(model, missing.filter(lambda row: row["label"] is not None))
    np.testing.assert_array_equal(found.labels, LABELS[1:])
    unknown = datasets.Dataset.from_dict({"x": VECTORS.tolist(), "label": [-1] * N})
    with pytest.raises(LabelError, match="label -1 is out of range"):
        rs.encode(model, unknown)


@pytest.mark.parametrize("streamed", [False, True])
def test_labels_that_are_names(model, streamed):
    data = datasets.Dataset.from_dict({"x": VECTORS.tolist(), "label": [CLASSES[i] for i in LABELS]})
    with pytest.raises(LabelError, match="ClassLabel"):
        rs.encode(model, data.to_iterable_dataset() if streamed else data)
    assert alike(rs.encode(model, data.class_encode_column("label")), rs.encode(model, (VECTORS, LABELS)))


def test_the_parts_of_a_dataset(model):
    parts = datasets.DatasetDict({"train": vectors(), "test": vectors()})
    with pytest.raises(InputError, match=r"DatasetDict of \['train', 'test'\]; expected one of them"):
        rs.encode(model, parts)
    assert len(rs.encode(model, parts["test"])) == N


def test_rows_of_different_lengths(model):
    data = datasets.Dataset.from_dict({"x": [[1.0] * 5, [1.0] * 4], "label": [0, 1]})
    with pytest.raises(InputError, match="cannot be put into one batch"):
        rs.encode(model, data)


@pytest.mark.parametrize("streamed", [False, True])
def test_texts_of_a_language_model(tiny_model, tiny_tokenizer, streamed):
    texts = ["def add(first, second):\n", "    return first + second\n"]
    data = datasets.Dataset.from_dict({"id": ["one", "two"], "text": texts, "label": [0, 1]})
    data = data.to_iterable_dataset() if streamed else data
    stream = rs.encode((tiny_model("gpt2"), tiny_tokenizer), data, name_column="id")
    memory = rs.Memory(stream, storage="none")
    expected = rs.Memory(rs.encode((tiny_model("gpt2"), tiny_tokenizer), [("one", texts[0]), ("two", texts[1])]))
    assert memory.names == expected.names
    np.testing.assert_array_equal(memory.labels, expected.labels)
    assert len(list(stream)) == len(list(stream))  # it is read again


def test_texts_in_another_column(tiny_model, tiny_tokenizer):
    data = datasets.Dataset.from_dict({"content": ["def add"], "label": [0]})
    with pytest.raises(InputError, match="text_column="):
        list(rs.encode((tiny_model("gpt2"), tiny_tokenizer), data))
    assert list(rs.encode((tiny_model("gpt2"), tiny_tokenizer), data, text_column="content"))
