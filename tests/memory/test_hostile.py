"""Folders whose checksums are right and whose content is not: refused in words, before anything is made of it."""

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import residua as rs
from residua.errors import MemoryFileError
from residua.folder import checksum, named_files
from stress import fuzz

SOURCE = {"name": "", "key": "", "dtype": "", "extra": {}, "parameters": {"w": [[0], [0]]}}
BELL = "\x1b[31m\u202egnp.exe\n\u200b"


@pytest.fixture
def folder(tmp_path):
    """A memory of 30 rows, some edited, and a reader of it."""
    rng = np.random.default_rng(0)
    rows = rs.Encoded(
        rng.normal(size=(30, 4)), rng.normal(size=(30, 3)), rng.integers(0, 3, 30), classes=["a", "b", "c"]
    )
    memory = rs.Memory(rows, names={0: "zero"})
    memory.forget(3)
    memory.relabel(5, (memory.labels[4] + 1) % 3)
    rs.ResMem(memory, k=3).save(tmp_path / "m")
    return tmp_path / "m"


def change(folder, **fields):
    """Put fields, by their dotted names with ``__`` for dots, into the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for path, value in fields.items():
        holder, *steps = manifest, *path.split("__")
        for step in steps[:-1]:
            holder = holder[int(step) if step.isdigit() else step]
        holder[int(steps[-1]) if steps[-1].isdigit() else steps[-1]] = value
    (folder / "manifest.json").write_text(json.dumps(manifest | {"crc32": checksum(manifest)}))


def put(folder, start, **tensors):
    """Put tensors into the file that begins so, and its size and checksum into the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    name = next(about["file"] for about in named_files(manifest) if about["file"].startswith(start))
    file = folder / name
    save_file({**load_file(file), **tensors}, file)
    fuzz.rewritten(folder, file.name, manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"crc32": checksum(manifest)}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": 2_000_000_000}, "its shards have 30"),
        ({"rows": 2_000_000_000, "shards__0__rows": 2_000_000_000}, "more than the files hold"),
        ({"shards__0__file": "../rows.safetensors"}, "the name of a file in its folder"),
        ({"shards__0__file": "/etc/passwd"}, "the name of a file in its folder"),
        ({"generation": "../../x"}, "expected text like"),
        ({"schema__dim": 10**9}, "expected a whole number"),
        ({"schema__n_outputs": 2}, "classes has 3 values; expected 2"),
        ({"schema__key_centre": [float("nan")] * 4}, "expected a finite number"),
        ({"schema__storage": {"name": "head"}}, "have columns"),
        ({"schema__storage": {"name": "top-m", "m": 10**12, "temperature": 1.0}}, "expected a whole number"),
        ({"schema__columns": {"weight": ["object", []]}}, "expected text like"),
        ({"schema__task": "regression"}, "no regression"),
        ({"next_id": 7}, "has id 29 already"),
        ({"index__about__overfetch": float("inf")}, "expected a finite number"),
        ({"index__about__dim": 10**9}, "expected a whole number"),
        ({"index__about__file": "rows-1.safetensors"}, "none of the index's files"),
        ({"index__about__engine": "os"}, "not registered"),
        ({"index__wanted__index": "IVF100000000,Flat"}, "more than its rows can use"),
        ({"keys_kept": False}, "have columns"),
        ({"about": [1]}, "expected an object"),
    ],
)
def test_a_manifest_that_no_save_wrote(folder, fields, message):
    change(folder, **fields)
    with pytest.raises(MemoryFileError, match=message):
        rs.Memory.load(folder)


@pytest.mark.parametrize(
    ("start", "tensors", "message"),
    [
        ("rows", {"label": torch.full((30,), 3, dtype=torch.int32)}, "expected 0 to 2"),
        ("rows", {"label": torch.full((30,), -1, dtype=torch.int32)}, "expected 0 to 2"),
        ("rows", {"label": torch.zeros(30, dtype=torch.float32)}, "expected torch.int32"),
        ("rows", {"key": torch.full((30, 4), torch.nan)}, "'key' holds nan"),
        ("rows", {"key": torch.full((30, 4), 1e30)}, "'key' holds"),
        ("rows", {"key": torch.zeros(30, 5)}, r"expected torch.float32 of shape \(30, 4\)"),
        ("rows", {"logits": torch.full((30, 3), torch.inf)}, "'logits' holds"),
        ("rows", {"column.more": torch.zeros(30)}, "have columns"),
        ("rows", {"id": torch.zeros(30, dtype=torch.int64)}, "'id' twice"),
        ("rows", {"id#step": torch.tensor([9], dtype=torch.int8)}, "step by other"),
        ("rows", {"id#first": torch.tensor([2**63 - 5])}, "beyond the largest"),
        ("edits", {"forgotten": torch.tensor([30])}, "not ascending numbers of 30 rows"),
        ("edits", {"forgotten": torch.tensor([-1])}, "not ascending numbers of 30 rows"),
        ("edits", {"after": torch.tensor([3], dtype=torch.int32)}, "expected 0 to 2"),
        ("edits", {"relabelled": torch.tensor([30])}, "not ascending numbers of 30 rows"),
        ("edits", {"events": torch.tensor(list(b'[{"what": 3, "when": ""}]'), dtype=torch.uint8)}, "what"),
        ("edits", {"events": torch.tensor(list(b"[" * 9999), dtype=torch.uint8)}, "manifest.json is not"),
    ],
)
def test_columns_that_no_save_wrote(folder, start, tensors, message):
    put(folder, start, **tensors)
    with pytest.raises(MemoryFileError, match=message):
        rs.Memory.load(folder)


@pytest.fixture
def codes(tmp_path):
    """A memory of 300 rows without keys, and three more whose keys are left."""
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    rows = rs.Encoded(rng.normal(size=(303, 4)), rng.normal(size=(303, 3)), rng.integers(0, 3, 303))
    memory = rs.Memory(rows[:300], index="SQ8", storage="none")
    memory.discard_keys()
    memory.save(tmp_path / "m")
    memory.add(rows[300:])
    memory.save(tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"index__tail": []}, "has an index and keys of 300 rows and holds 303"),
        ({"index__rows": 2**40}, "has an index and keys of 1099511627779 rows"),
        ({"index__rows": 200}, "has an index and keys of 203 rows"),
        ({"index__rows": -1}, "expected a whole number"),
        ({"index__tail__0__rows": 2**40}, r"expected .*\(1099511627776, 4\)"),
        ({"index__tail__0__file": "../keys"}, "the name of a file in its folder"),
        ({"index__tail": {}}, "expected a list"),
        ({"truth__file": "../keys"}, "the name of a file in its folder"),
        ({"truth": []}, "expected an object"),
        ({"keys_kept": True}, "have columns"),
    ],
)
def test_what_no_memory_without_keys_says(codes, fields, message):
    change(codes, **fields)
    with pytest.raises(MemoryFileError, match=message):
        rs.Memory.load(codes)


@pytest.mark.parametrize(
    ("start", "tensors", "message"),
    [
        ("keys", {"key": torch.zeros(4, 4)}, "expected"),
        ("keys", {"key": torch.zeros(3, 4, dtype=torch.float64)}, "expected"),
        ("keys", {"key": torch.full((3, 4), torch.nan)}, "'key' holds nan"),
        ("keys", {"key": torch.full((3, 4), 1e30)}, "'key' holds"),
        ("keys", {"label": torch.zeros(3)}, "expected"),
        ("truth", {"queries": torch.zeros(128, 5)}, "expected"),
        ("truth", {"queries": torch.full((128, 4), torch.inf)}, "'queries' holds"),
        ("truth", {"rows": torch.full((128, 100), 303)}, "'rows' holds"),
        ("truth", {"rows": torch.full((128, 100), -2)}, "'rows' holds"),
        ("truth", {"rows": torch.full((128, 100), -1)}, "are not of their rows"),
        ("truth", {"squared": torch.full((128, 100), -1.0)}, "'squared' holds"),
        ("truth", {"squared": torch.full((128, 100), torch.nan)}, "'squared' holds"),
        ("truth", {"since": torch.full((128,), 304)}, "'since' holds"),
        ("truth", {"born": torch.full((128,), -1)}, "'born' holds"),
        ("truth", {"born": torch.zeros(128)}, "expected"),
        ("truth", {"more": torch.zeros(128)}, "expected"),
    ],
)
def test_what_no_memory_without_keys_holds(codes, start, tensors, message):
    put(codes, start, **tensors)
    with pytest.raises(MemoryFileError, match=message):
        rs.Memory.load(codes)


def test_more_queries_than_there_may_be(codes):
    tensors = load_file(codes / json.loads((codes / "manifest.json").read_text())["truth"]["file"])
    put(codes, "truth", **{name: torch.cat([part, part[:1]]) for name, part in tensors.items()})
    with pytest.raises(MemoryFileError, match=r"129 queries .* at most 128"):
        rs.Memory.load(codes)


def test_files_that_are_no_files(folder):
    shard = next(folder.glob("rows-*"))
    shard.rename(folder.parent / "elsewhere")
    shard.symlink_to(folder.parent / "elsewhere")
    with pytest.raises(MemoryFileError, match="is a link"):
        rs.Memory.load(folder)
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(MemoryFileError, match="a link, or no file"):
        rs.Memory.load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested"),
        ('{"a": ' + "[" * 90 + "]" * 90 + "}", "nested more than 64"),
        ('{"format": 3, "format": 3}', "twice"),
        ('{"format": ' + "1" * 5000 + "}", "cannot be read"),
        ("\ufeff{}", "cannot be read"),
    ],
)
def test_json_that_harms(folder, text, message):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(MemoryFileError, match=message):
        rs.Memory.load(folder)


@pytest.mark.parametrize(
    "params",
    [
        {"k": 10**9},
        {"k": "3"},
        {"sigma": None, "k": 10**400},
        {"kernel": ["a"]},
        {"epsilon": {}},
        {"odd": 1},
        {"sigma": -1},
    ],
)
def test_a_reader_that_no_save_wrote(folder, params):
    reader = rs.load(folder)
    said = reader.to_json() | {"params": reader.to_json()["params"] | params}
    if (folder / "reader.json").exists():
        (folder / "reader.json").write_text(json.dumps(said))
    else:
        change(folder, reader=said)
    with pytest.raises(MemoryFileError):
        rs.load(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("about", np.frombuffer(b"[1]", np.uint8)),
        ("about", np.frombuffer(b'{"source": 7}', np.uint8)),
        ("about", np.frombuffer(json.dumps({"source": SOURCE}).encode(), np.uint8)),
        ("about", np.frombuffer(b"\xff", np.uint8)),
        ("keys", np.array([{"a": 1}], dtype=object)),
        ("keys", np.zeros((3, 2), "M8[s]")),
        ("head.weight", np.zeros((3, 9), np.float32)),
        ("names", np.frombuffer(b"\xff" * 12, "U1")),
    ],
)
def test_an_npz_that_no_save_wrote(tmp_path, name, content):
    arrays = {"keys": np.eye(3), "logits": np.eye(3), "labels": np.arange(3)} | {name: content}
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(MemoryFileError):
        rs.Encoded.load(tmp_path / "rows.npz")


def test_an_npz_that_claims_or_unpacks_more_than_it_is(tmp_path):
    file = tmp_path / "rows.npz"
    np.savez(file, keys=np.ones((30, 2)), logits=np.eye(30))
    file.write_bytes(file.read_bytes().replace(b"(30, 2)", b"(3e9,2)"))
    with pytest.raises(MemoryFileError):
        rs.Encoded.load(file)
    np.savez(file, keys=np.ones((30, 2)), logits=np.eye(30))
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"(30, 2), }  ", b"(9000, 9)} "[:11] + b" "))
    with pytest.raises(MemoryFileError, match="not a whole"):
        rs.Encoded.load(file)
    np.savez_compressed(file, keys=np.zeros((1, 2)), logits=np.zeros((1, 2**28), np.uint8))
    with pytest.raises(MemoryFileError, match="bytes would become"):
        rs.Encoded.load(file)


def test_text_from_a_folder_is_shown_without_its_control_characters(tmp_path):
    rows = rs.Encoded(np.eye(3), 4 * np.eye(3), [0, 1, 2], classes=[BELL, "b" + BELL, "c"], names=[BELL, "y", "z"])
    reader = rs.ResMem(rs.Memory(rows, about={"model": BELL}), k=2)
    why = rs.explain(reader, rows[0], exclude=None)
    shown = [str(why), repr(why), why._repr_html_(), repr(reader.memory.names), reader._repr_html_(), repr(reader)]
    with pytest.raises(rs.errors.LabelError) as error:
        reader.memory.relabel(0, BELL + "none")
    shown += [str(error.value), str(MemoryFileError(f"{tmp_path / BELL} is missing"))]
    for text in shown:
        assert all(character.isprintable() or character == "\n" for character in text) and "gnp.exe\n\u200b" not in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_some_cases_of_the_long_fuzzer(tmp_path):
    """Those that take no process of their own; ``stress/results/fuzz.json`` has the others."""
    fuzz.memories(tmp_path / "root", ("named", "numbers", "top"))
    expected, wrong = {one.name: fuzz.whole(one) for one in (tmp_path / "root").iterdir()}, []
    for case in range(60):
        here = tmp_path / str(case)
        here.mkdir()
        kind, name, what = fuzz.make(
            case, tmp_path / "root", here, ("manifest", "tensors", "header", "reader", "npz", "raw")
        )
        found = fuzz.answer(here / name, kind, expected[name])
        wrong += [] if found in fuzz.RIGHT else [f"{case} {kind} {name} {what}: {found}"]
    assert not wrong
