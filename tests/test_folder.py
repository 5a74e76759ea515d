"""What a memory's folder says of itself; tests/memory saves and loads whole ones."""

import json

import pytest

from residua.errors import MemoryFileError
from residua.folder import READER, named_files, present, read_manifest, reader_in

INNER = {"reader": "KNNLM", "module": "residua.readers.knnlm", "params": {"k": 3, "gate": 0.5}}


def test_a_reader_of_0_1_is_described_as_today_at_every_depth(tmp_path):
    (tmp_path / READER).write_text(json.dumps({"reader": "ContinuousCache", "params": {"over": INNER, "window": 5}}))
    found = reader_in(tmp_path, {"format": 3})
    assert found["params"] == {"over": INNER | {"params": {"k": 3, "skip": 0.5}}, "window": 5}


@pytest.mark.parametrize(
    ("content", "message"),
    [("[]", "does not describe a reader"), ('{"params": {}}', "does not describe a reader"), ("{", "cannot be read")],
)
def test_what_is_no_reader_is_said(tmp_path, content, message):
    assert reader_in(tmp_path, {"format": 3}) is None
    (tmp_path / READER).write_text(content)
    with pytest.raises(MemoryFileError, match=message):
        reader_in(tmp_path, {"format": 3})


def test_a_file_in_place_of_a_folder_is_no_memory(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(MemoryFileError, match="is not a memory"):
            read_manifest(path)


def test_named_files_are_all_of_them():
    shard, index, edits = {"file": "a"}, {"file": "b"}, {"file": "c"}
    manifest = {"shards": [shard], "index": {"files": [index]}, "edits": edits}
    assert named_files(manifest) == [shard, index, edits]


def test_a_file_is_there_whole_and_in_its_folder(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert present(tmp_path, {"file": "a", "bytes": 5}) == tmp_path / "a"
    for about, message in [
        ({"file": "a", "bytes": 6}, "it is torn"),
        ({"file": "b", "bytes": 5}, "is missing"),
        ({"file": "../a", "bytes": 5}, "not in its folder"),
    ]:
        with pytest.raises(MemoryFileError, match=message):
            present(tmp_path, about)
