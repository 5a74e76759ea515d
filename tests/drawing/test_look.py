import numpy as np
import pytest
import torch

from residua.drawing import data_uri, picture_of, png
from residua.drawing.look import facts_of, named
from residua.errors import InputError, ShapeError

RED = np.zeros((2, 4, 3), np.uint8)
RED[..., 0] = 255


@pytest.mark.parametrize(
    "images",
    [
        RED[None],
        torch.from_numpy(RED).permute(2, 0, 1)[None].float() / 255,
        [(torch.from_numpy(RED), 7)],
        {0: RED},
        lambda id: RED if id == 0 else None,
    ],
    ids=["array", "tensor, channels first", "a dataset of pairs", "mapping", "function"],
)
def test_every_kind_of_images_gives_the_picture_of_an_id(images):
    assert (picture_of(images, 0) == RED).all()
    assert picture_of(images, 5) is None


def test_pictures_in_files_are_opened_by_name(tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "cat").mkdir()
    path = tmp_path / "cat" / "a.png"
    path.write_bytes(png(RED))
    assert (picture_of(tmp_path, 3, "cat/a.png") == RED).all()
    assert (picture_of(None, 3, str(path)) == RED).all()
    assert (picture_of([str(path)], 0) == RED).all()
    assert picture_of(tmp_path, 3, "cat/absent.png") is None
    assert picture_of(tmp_path, 3) is None and picture_of(None, 3, "row 7") is None


def test_no_name_leads_out_of_the_folder(tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").write_bytes(png(RED))
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(InputError, match="not within the folder"):
            picture_of(tmp_path / "in", 0, name)


def test_a_file_that_is_no_picture_is_said(tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png cannot be read as a picture"):
        picture_of(tmp_path, 0, "a.png")


def test_standardised_numbers_are_scaled_to_be_seen():
    assert picture_of(np.array([[[-2.0, 0.0, 2.0]]]), 0).tolist() == [[0, 128, 255]]
    assert picture_of(np.array([[[np.nan, 1.0]]]), 0).tolist() == [[0, 255]]


def test_what_is_no_picture_is_refused():
    with pytest.raises(ShapeError, match=r"a picture of shape \(5,\)"):
        picture_of(np.zeros((1, 5)), 0)


def test_a_picture_travels_within_a_page():
    pytest.importorskip("PIL")
    assert data_uri(RED).startswith("data:image/png;base64,iVBORw0KGgo")


def test_a_path_is_called_by_its_end():
    assert named("a/b/cat/7.png", "id 7") == "cat/7.png" == named("c:\\x\\cat\\7.png", "id 7")
    assert named(None, "id 7") == "id 7" and "\n" not in named("a\nb", "")


def test_facts_are_the_columns_of_one_value():
    columns = {"age": np.array([1.5, 2.0]), "box": np.zeros((2, 4)), "where": np.array(["a\nb", "c"])}
    assert facts_of(columns, 0) == {"age": "1.5", "where": "a\\nb"}
