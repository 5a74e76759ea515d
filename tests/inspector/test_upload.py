import io

import numpy as np
import pytest
import torch
from PIL import Image

import residua as rs
from residua.inspector import upload
from residua.inspector.upload import Uploads


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.fc = torch.nn.Linear(12, 5), torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.inner(x.reshape(len(x), -1))))


@pytest.fixture
def model():
    return Net().eval()


@pytest.fixture
def reader(model):
    x = torch.randn(80, 12, generator=torch.Generator().manual_seed(1))
    return rs.ResMem(rs.Memory(rs.encode(model, x, model(x).argmax(1).roll(1), progress=False)), k=3)


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return file.getvalue()


def prepared(picture):
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)


def test_a_vector_is_what_the_model_makes_of_it(model, reader):
    x = np.linspace(-1, 1, 12).astype(np.float32)
    uploads = Uploads(reader, model)
    expected = rs.encode(model, x[None], like=reader, progress=False)
    for body in (npy(x), npy(x.reshape(3, 4).astype(np.float64)), ", ".join(map(str, x.tolist())).encode()):
        row = uploads[uploads.bring("vector", body)].row
        assert np.allclose(row.keys, expected.keys, atol=1e-6)
        assert row.ids is None and row.labels is None


def test_a_picture_is_prepared(model, reader):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    uploads = Uploads(reader, model, prepared)
    brought = uploads[uploads.bring("picture", png(pixels))]
    expected = rs.encode(model, prepared(Image.fromarray(pixels))[None], like=reader, progress=False)
    assert np.array_equal(brought.row.keys, expected.keys)
    assert brought.picture.tolist() == pixels.tolist()


def test_what_can_be_brought_depends_on_what_is_given(model, reader, text_memory):
    assert Uploads(reader).kinds == []
    assert Uploads(reader, model).kinds == ["vector"]
    assert Uploads(reader, model, prepared).kinds == ["picture", "vector"]
    assert Uploads(rs.KNNLM(text_memory("abc"), k=2), (model, None)).kinds == ["text"]


BOMB = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d49484452000493e0000493e00802000000")  # 300 000 x 300 000


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("vector", b"one, two", "no numbers"),
        ("vector", b"", "numbers of one example"),
        ("vector", b"\xff\xfe", "UTF-8"),
        ("vector", npy(np.zeros(5, np.float32)), "the model could not read"),
        ("vector", npy(np.array(["a"])), "expected numbers"),
        ("vector", b"\x93NUMPY\x01\x00", "no numbers"),
        ("vector", b"nan " * 12, "could not read"),
        ("picture", b"<svg onload='alert(1)'/>", "cannot be read as a picture"),
        ("picture", BOMB, "picture"),
        ("picture", png(np.zeros((9, 9, 3), np.uint8)), "could not read"),
        ("text", b"a", "cannot be brought"),
        ("nonesuch", b"a", "cannot be brought"),
    ],
)
def test_what_cannot_be_read_is_refused(model, reader, kind, body, said):
    with pytest.raises(rs.errors.InputError, match=said):
        Uploads(reader, model, prepared).bring(kind, body)


def test_a_file_of_objects_is_not_unpickled(model, reader):
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(rs.errors.InputError, match="no numbers"):
        Uploads(reader, model).bring("vector", file.getvalue())


def test_only_the_last_are_kept(model, reader):
    uploads = Uploads(reader, model)
    numbers = [uploads.bring("vector", npy(np.zeros(12))) for _ in range(upload.MOST + 1)]
    with pytest.raises(rs.errors.InputError, match="no longer kept"):
        uploads[numbers[0]]
    assert uploads[numbers[1]].name == "your vector"
