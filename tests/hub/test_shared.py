"""A memory goes to the hub and comes back, over its own client; whatever else lies there is refused in words."""

import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import residua as rs
from residua.cli.main import main
from residua.errors import MemoryFileError, MissingDependencyError, ParameterError
from residua.folder import LOCK, MANIFEST


@pytest.fixture
def memory():
    rng = np.random.default_rng(0)
    rows = rs.Encoded(rng.normal(size=(30, 4)), rng.normal(size=(30, 3)), np.arange(30) % 3, classes=["a", "b", "c"])
    return rs.Memory(rows, names={7: "seventh"})


def same(one, other):
    np.testing.assert_array_equal(one.keys, other.keys)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.ids, other.ids)
    assert dict(one.names) == dict(other.names)
    return True


def test_a_folder_with_a_card_is_whole_and_loads(memory, tmp_path):
    memory.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").is_file()
    assert same(rs.Memory.load(tmp_path), memory)
    assert same(rs.Memory.from_pretrained(tmp_path), memory)
    done = CliRunner().invoke(main, ["verify", str(tmp_path)])
    assert done.exit_code == 0 and "whole: 30 rows" in done.output
    memory.forget([0])
    memory.save_pretrained(tmp_path)
    memory.purge(tmp_path)
    rs.Memory.compact(tmp_path)
    assert (tmp_path / "README.md").is_file()


def test_a_memory_of_a_folder_here_stays_that_folders(memory, tmp_path):
    memory.save_pretrained(tmp_path)
    again = rs.Memory.from_pretrained(tmp_path)
    again.forget([1])
    again.save(tmp_path)
    assert len(rs.Memory.load(tmp_path)) == 29
    assert again.refresh() == {}


def test_a_reader_is_saved_with_its_settings(memory, tmp_path):
    reader = rs.ResMem(memory, k=3, sigma=0.5)
    reader.save_pretrained(tmp_path)
    again = rs.from_pretrained(tmp_path)
    assert again.params == reader.params
    test = rs.Encoded(np.ones((2, 4)), np.zeros((2, 3)))
    np.testing.assert_array_equal(again.scores(test), reader.scores(test))
    memory.save_pretrained(tmp_path / "alone")
    with pytest.raises(MemoryFileError, match="holds no reader"):
        rs.from_pretrained(tmp_path / "alone")


def test_a_clone_of_a_repository_is_saved_into(memory, tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitattributes").write_text("*.safetensors filter=lfs")
    (tmp_path / "README.md").write_text("mine")
    memory.save_pretrained(tmp_path)
    assert same(rs.Memory.load(tmp_path), memory)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_another_programs_folder_is_left_alone(memory, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(MemoryFileError, match="not a memory's"):
        memory.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["README.md", LOCK, "model.safetensors"]


def test_there_and_back(memory, hub):
    address = memory.push_to_hub("me/mem", token="hf_none")
    assert "/me/mem/commit/" in address
    files = hub.files("me/mem")
    assert hub.private["me/mem"] and LOCK not in files and "README.md" in files
    again = rs.Memory.from_pretrained("me/mem")
    assert same(again, memory)
    with pytest.raises(rs.errors.StorageError):
        again.refresh()  # it is of no folder
    assert rs.Memory.from_pretrained("me/mem", local_files_only=True).ids.tolist() == memory.ids.tolist()


def test_a_memory_from_the_hub_is_edited_and_saved_here(memory, hub, tmp_path):
    memory.push_to_hub("me/mem", token="hf_none")
    cached = {name: bytes(content) for name, content in hub.files("me/mem").items()}
    again = rs.Memory.from_pretrained("me/mem", mmap=True)
    assert again.forget([0, 1]) == 2
    again.add(memory_rows(3))
    again.save(tmp_path / "mine")
    assert len(rs.Memory.load(tmp_path / "mine")) == 31
    assert hub.files("me/mem") == cached
    assert same(rs.Memory.from_pretrained("me/mem", local_files_only=True), memory)  # the cache is as it was


def memory_rows(n):
    return rs.Encoded(np.ones((n, 4)), np.zeros((n, 3)), np.zeros(n, int))


def test_a_reader_there_and_back(memory, hub):
    rs.KNNLM(memory, k=4, lmbda=0.3).push_to_hub("me/mem", private=False, token="hf_none")
    assert not hub.private["me/mem"]
    assert rs.from_pretrained("me/mem").params["lmbda"] == 0.3


def test_a_second_push_leaves_no_file_of_the_first(memory, hub):
    memory.push_to_hub("me/mem", token="hf_none")
    first = hub.commit_of("me/mem", "main")
    hub.put("me/mem", hub.files("me/mem") | {"notes.txt": b"mine", "README.md": b"all mine"})
    memory.add(memory_rows(2))
    memory.push_to_hub("me/mem", token="hf_none")
    files = hub.files("me/mem")
    assert files["notes.txt"] == b"mine" and files["README.md"] == b"all mine"
    assert len([name for name in files if name.startswith("rows-")]) == 1
    assert len(rs.Memory.from_pretrained("me/mem")) == 32
    assert len(rs.Memory.from_pretrained("me/mem", revision=first)) == 30


def test_files_pushed_while_it_is_fetched_are_of_another_commit(memory, hub):
    memory.push_to_hub("me/mem", token="hf_none")
    memory.add(memory_rows(2))
    hub.after[MANIFEST] = lambda: memory.push_to_hub("me/mem", token="hf_none")
    assert len(rs.Memory.from_pretrained("me/mem")) == 30
    assert len(rs.Memory.from_pretrained("me/mem")) == 32


def test_forgotten_rows_do_not_go_along_unsaid(memory, hub):
    memory.forget([0, 1])
    with pytest.warns(UserWarning, match="2 forgotten rows went to me/mem"):
        memory.push_to_hub("me/mem", token="hf_none")
    memory.rebuild()
    memory.push_to_hub("me/mem", token="hf_none")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": b"{}", "model.safetensors": b"weights"}, "404"),
        ({MANIFEST: b'{"name": "a web app", "icons": []}'}, "has format None"),
        ({MANIFEST: b"\x00" * 100}, "cannot be read"),
    ],
)
def test_a_repository_of_another_library(hub, files, said):
    hub.put("me/other", files)
    with pytest.raises(MemoryFileError, match=said):
        rs.Memory.from_pretrained("me/other")
    assert not any("model.safetensors" in asked for asked in hub.asked)  # which may be large


@pytest.mark.parametrize("name", ["me/none", "no such folder/", "../mem", "a/b/c", "mem/\n"])
def test_what_is_neither_a_folder_nor_a_repository(hub, name):
    with pytest.raises(MemoryFileError, match="is no folder here"):
        rs.Memory.from_pretrained(name)


def test_a_revision_that_is_not_there(memory, hub):
    memory.push_to_hub("me/mem", token="hf_none")
    with pytest.raises(MemoryFileError, match="no folder here, and on the hub"):
        rs.Memory.from_pretrained("me/mem", revision="v9")


def test_options_of_the_hub_are_not_for_folders(memory, tmp_path):
    memory.save(tmp_path)
    with pytest.raises(ParameterError, match=r"revision= is of a repository .* is a folder here"):
        rs.Memory.from_pretrained(tmp_path, revision="main")


@pytest.mark.parametrize("change", ["edited", "cut", "missing", "more"])
def test_files_that_are_not_as_they_were_pushed(memory, hub, change):
    memory.push_to_hub("me/mem", token="hf_none")
    files = dict(hub.files("me/mem"))
    rows = next(name for name in files if name.startswith("rows-"))
    if change == "edited":
        files[rows] = files[rows][:-1] + bytes([files[rows][-1] ^ 1])
    elif change == "cut":
        files[rows] = files[rows][:-8]
    elif change == "missing":
        del files[rows]
    else:
        files |= {"pickle.pkl": b"cos\nsystem\n(S'true'\ntR.", "rows-ffffffffffff.safetensors": b"x", "sub/x": b"y"}
    hub.put("me/mem", files)
    if change == "more":
        assert same(rs.Memory.from_pretrained("me/mem"), memory)
        assert not any("pickle" in asked or "ffff" in asked for asked in hub.asked)
    else:
        with pytest.raises(MemoryFileError):
            rs.Memory.from_pretrained("me/mem")


def test_a_manifest_that_names_files_elsewhere_is_refused_before_they_are_fetched(memory, hub):
    import json

    from residua.folder import checksum

    memory.push_to_hub("me/mem", token="hf_none")
    files = dict(hub.files("me/mem"))
    manifest = json.loads(files[MANIFEST])
    for name in ("../../../etc/passwd", "/etc/passwd", "sub/rows.safetensors", ".."):
        manifest["shards"][0]["file"] = name
        manifest["crc32"] = checksum(manifest)
        hub.put("me/mem", files | {MANIFEST: json.dumps(manifest).encode()})
        hub.asked.clear()
        with pytest.raises(MemoryFileError, match="manifest"):
            rs.Memory.from_pretrained("me/mem")
        assert all(MANIFEST in asked for asked in hub.asked)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_in_the_cache_that_leads_out_of_it_is_refused(memory, hub, tmp_path):
    memory.push_to_hub("me/mem", token="hf_none")
    rs.Memory.from_pretrained("me/mem")
    (snapshot,) = (tmp_path / "cache" / "models--me--mem" / "snapshots").iterdir()
    manifest = snapshot / MANIFEST
    secret = tmp_path / "secret"
    shutil.copyfile(manifest.resolve(), secret)
    manifest.unlink()
    manifest.symlink_to(secret)
    with pytest.raises(MemoryFileError, match="not in the cache of its repository"):
        rs.Memory.from_pretrained("me/mem", local_files_only=True)


def test_without_a_connection(memory, hub, monkeypatch):
    from huggingface_hub import constants

    memory.push_to_hub("me/mem", token="hf_none")
    rs.Memory.from_pretrained("me/mem")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(rs.Memory.from_pretrained("me/mem"), memory)
    with pytest.raises(MemoryFileError, match="no folder here, and on the hub"):
        rs.Memory.from_pretrained("me/never")
    with pytest.raises(MemoryFileError, match="me/mem on the hub"):
        memory.push_to_hub("me/mem", token="hf_none")


def test_without_the_hubs_client(memory, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    memory.save_pretrained(tmp_path)  # needs none
    assert same(rs.Memory.from_pretrained(tmp_path), memory)
    with pytest.raises(MissingDependencyError, match=r"residua\[hub\]"):
        memory.push_to_hub("me/mem")
    with pytest.raises(MissingDependencyError, match=r"residua\[hub\]"):
        rs.from_pretrained("me/mem")


def test_edits_go_with_their_reader(hub, memory):
    wrong = rs.Encoded(np.ones((1, 4)), np.zeros((1, 3)), classes=["a", "b", "c"])
    reader = rs.edit(rs.ResMem(memory, k=3), wrong, ["b"], note="seen by Ann")
    reader.push_to_hub("me/edited")
    again = rs.from_pretrained("me/edited")
    assert again.predict(wrong).tolist() == [1]
    again.edits.forget(0)
    with pytest.warns(UserWarning, match="1 forgotten row went"):
        again.push_to_hub("me/edited")
    assert rs.from_pretrained("me/edited").edits.ids.tolist() == []
