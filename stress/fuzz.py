"""Folders and files that somebody changed, with right checksums: what residua makes of them.

    python -m stress.fuzz --cases 6000 --out stress/results/fuzz.json

Each case changes one thing, seeded by its number: a field of the manifest, of the names, of a reader, of ``build.json``
or of an ``.npz``; a tensor, a header; the bytes of an index file. Then it loads the reader and its memory (or the rows,
or goes on with the build), answers ten queries and shows them, in a process of its own that
may have 1.5 GB more than residua itself and twenty seconds.

An outcome is right where it is **refused** (an error of residua's, in words), the **same** (what a memory holds, and
what it answers, is what it was), or **other**: the values that were written are in their range, and the memory holds
them, with the same task and shapes, and answers with finite numbers. A memory whose answers are not finite, or whose
labels, ids or neighbours are out of their ranges, is **nonsense**; a raw exception, a death, a hang or a bomb of memory
is what it is called.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import platform
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

ROOM = 3 * 2**29  # bytes, beside what the imports took
SECONDS = 20  # of a machine that others use too
RIGHT = ("refused", "same", "other")
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        7,
        2**31,
        2**53,
        2**63 - 1,
        2**63,
        10**30,
        10**400,
        -(2**63),
        0.5,
        -0.5,
        1e-320,
    ),
    *(
        1e308,
        float("nan"),
        float("inf"),
        -float("inf"),
        "",
        "a",
        "..",
        "../x",
        "/etc/passwd",
        "manifest.json",
        "\x1b[31m",
    ),
    *(
        "\ud800",
        "IVF100000000,Flat",
        "HNSW1000000",
        "PQ2x30",
        "exact",
        "os:system",
        "a" * 100_000,
        [],
        {},
        [[]],
        [0],
        ["a"],
    ),
    *(
        {"a": 1},
        [1e308] * 3,
        [None] * 2,
        [-1, 2],
        {"reader": "KNNLM", "params": {}},
        {"file": "lock", "bytes": 0, "crc32": 0},
    ),
]


KINDS = {"manifest": 8, "tensors": 5, "header": 2, "reader": 3, "names": 1, "index": 2, "npz": 3, "build": 2, "raw": 1}


def memories(root: Path, only: tuple[str, ...] | None = None) -> None:
    """The folders and files that are changed, one of each kind; of the folders, `only` some."""
    import residua as rs

    root.mkdir()

    rng = np.random.default_rng(0)

    def rows(n: int = 60, **more: Any) -> rs.Encoded:
        keys = rng.normal(size=(n, 4)) + 100
        return rs.Encoded(keys, rng.normal(size=(n, 3)), rng.integers(0, 3, n), **more)

    def text(n: int = 60) -> rs.Encoded:
        columns = {"offset": np.arange(n) % 20}
        return rs.Encoded(
            rng.normal(size=(n, 4)), rng.normal(size=(n, 9)), rng.integers(0, 9, n), np.arange(n) // 20, columns=columns
        )

    source = rs.Encoded(np.eye(3), np.eye(3)).source or _source()
    named = rows(
        names=[f"picture {i}" for i in range(60)],
        classes=["cat", "dog", "cow"],
        source=source,
        columns={"weight": np.ones(60)},
    )
    numbers = rs.Encoded(rng.normal(size=(60, 4)), rng.normal(size=(60, 2)) + 1e4, rng.normal(size=(60, 2)) + 1e4)
    several = rs.Encoded(
        rng.normal(size=(60, 4)), rng.normal(size=(60, 3)), rng.integers(0, 2, (60, 3)), task="multi-label"
    )
    layer = np.asarray(rng.normal(size=(3, 4)), np.float32)
    keys = np.asarray(rng.normal(size=(60, 4)), np.float32)
    headed = rs.Encoded(keys, keys @ layer.T, rng.integers(0, 3, 60), head=_head(layer))
    made = {
        "named": lambda: rs.ResMem(rs.Memory(named), k=5),
        "knnlm": lambda: rs.KNNLM(rs.Memory(rows(), index="IVF4,Flat", storage="none", key_dtype="float16"), k=5),
        "codes": lambda: rs.KNNLM(rs.Memory(rows(300), index="HNSW8"), k=5, sigma=1.0),
        "numbers": lambda: rs.ResMem(rs.Memory(numbers), k=5),
        "several": lambda: rs.ResMem(rs.Memory(several), k=5),
        "head": lambda: rs.ResMem(rs.Memory(headed, storage="head"), k=5),
        "top": lambda: rs.ResMem(rs.Memory(rows(), storage="top-m", m=2), k=5),
        "text": lambda: rs.KNNLM(rs.Memory(text(), names={0: "a.py", 1: "b.py"}), k=5),
        "pooled": lambda: rs.Pooled(rs.Memory(rows(300)), k=5).fit(rows(300), evidence=None),
    }
    for name, make in made.items():
        if only is not None and name not in only:
            continue
        reader = make()
        if name == "codes":
            reader.memory.discard_keys()
        reader.save(root / name)
        reader.memory.forget(reader.memory.ids[[1]])
        reader.memory.relabel(reader.memory.ids[[3]], reader.memory.labels[4])
        if name == "codes":
            reader.memory.add(rows(10))  # whose keys are kept until the index is written anew
        reader.save(root / name)
    named.save(root / "rows.npz")
    headed.save(root / "head.npz")


def _source() -> Any:
    from residua.core import Source
    from residua.core.source import Probe

    probe = Probe([4], answers=(1.0, 0.5, 0.25) * 8)
    more = {"projections": {"w": {"float32": 0.3}}, "structure": {"fc": "Linear"}, "probe": probe, "output": "logits"}
    return Source(
        "Net",
        "fc:input",
        "float32",
        {"w": ([3, 4], 2.0)},
        {"classes": "ab"},
        {"mean": [0.1] * 4, "scale": [1.0] * 4},
        **more,
    )


def _head(weight: np.ndarray) -> Any:
    import torch

    from residua.core import Head

    return Head(torch.from_numpy(weight))


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every place in some JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    return [path] * bool(path) + [place for name, one in inner for place in places(one, (*path, name))]


def changed(value: Any, rng: np.random.Generator) -> tuple[Any, str]:
    """The same JSON with one thing put in, taken out or made another, and what."""
    value = json.loads(json.dumps(value))
    all_places = [place for place in places(value) if place != ("crc32",)]
    path = all_places[rng.integers(len(all_places))]
    holder = value
    for step in path[:-1]:
        holder = holder[step]
    kind, now = rng.integers(10), holder[path[-1]]
    if kind == 0 and isinstance(holder, dict):
        del holder[path[-1]]
        return value, f"without {path}"
    if kind == 1 and isinstance(holder, dict):
        holder["another"] = VALUES[rng.integers(len(VALUES))]
        return value, f"another beside {path}"
    if kind == 2:
        deep: Any = []
        for _ in range(int(rng.choice([30, 100, 600]))):
            deep = [deep]
        holder[path[-1]] = deep
        return value, f"deep {path}"
    if kind in (3, 4, 5) and type(now) in (int, float):
        holder[path[-1]] = [now + 1, now - 1, now * 2, -now, now * 1000, now + 0.5][rng.integers(6)]
    elif kind == 6 and isinstance(now, list) and now:
        holder[path[-1]] = now + now if rng.integers(2) else now[:-1]
    else:
        holder[path[-1]] = VALUES[rng.integers(len(VALUES))]
    return value, f"{path} = {str(holder[path[-1]])[:60]}"


def rewritten(folder: Path, name: str, manifest: dict) -> None:
    """Make size and checksum of a changed file right wherever the manifest says them."""
    content = (folder / name).read_bytes()

    def right(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("file") == name and "crc32" in value:
                value |= {"bytes": len(content), "crc32": zlib.crc32(content)}
            for one in value.values():
                right(one)
        for one in value if isinstance(value, list) else ():
            right(one)

    right(manifest)


def put_manifest(folder: Path, manifest: dict) -> None:
    from residua.folder import checksum

    if isinstance(manifest, dict):
        manifest = manifest | {"crc32": checksum(manifest)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def bent(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Some bytes of a file made others."""
    some, kind = bytearray(content), rng.integers(4)
    if kind == 0:
        return bytes(some[: rng.integers(len(some))]), "cut"
    if kind == 1:
        return bytes(some) + rng.bytes(int(rng.integers(1, 100))), "longer"
    for _ in range(int(rng.integers(1, 9))):
        at = int(rng.integers(min(len(some), 400) if kind == 2 else len(some)))
        some[at] = int(rng.choice([0, 1, 255, rng.integers(256)]))
    return bytes(some), "bytes"


def tensors_changed(file: Path, rng: np.random.Generator) -> str:
    """Another tensor, or none, of another dtype, shape or content, in a whole file."""
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    if not tensors:
        return "nothing"
    name = sorted(tensors)[rng.integers(len(tensors))]
    tensor, kind = tensors[name], rng.integers(9)
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        tensors[name + "#start" if rng.integers(2) else "column.more"] = tensor.clone()
    elif kind == 2:
        dtypes = [torch.float16, torch.float64, torch.int8, torch.int64, torch.bool, torch.uint8, torch.float32]
        tensors[name] = tensor.to(dtypes[rng.integers(len(dtypes))])
    elif kind == 3:
        shapes = [tensor[:-1], tensor.reshape(-1), tensor[None], tensor[:0], torch.cat([tensor, tensor])]
        tensors[name] = shapes[rng.integers(5)].clone()
    elif kind == 4 and tensor.element_size() * tensor.numel():
        flat = tensor.clone().contiguous().view(-1)
        flat.view(torch.uint8)[rng.integers(flat.view(torch.uint8).numel())] = int(rng.choice([255, 128, 1, 127]))
        tensors[name] = flat.view(tensor.shape)
    elif kind == 5 and len(tensor.shape) == 0:
        return "nothing"
    elif tensor.numel():
        flat, values = (
            tensor.clone().contiguous().view(-1),
            [0, 1, 2, -1, 5, 100, 1e30, float("nan"), float("inf"), 2**31 - 1, 2**62],
        )
        at, given = int(rng.integers(len(flat))), values[rng.integers(len(values))]
        try:
            flat[at if rng.integers(2) else slice(None)] = given
        except (RuntimeError, ValueError, OverflowError):
            return "nothing"
        tensors[name] = flat.view(tensor.shape)
    save_file(tensors, file)
    return f"{name} {kind}"


def npz_changed(file: Path, rng: np.random.Generator) -> str:
    """An ``.npz`` with another array, header, description or container."""
    with zipfile.ZipFile(file) as members:
        parts = {info.filename: members.read(info) for info in members.infolist()}
    kind, name = rng.integers(7), list(parts)[rng.integers(len(parts))]
    method = zipfile.ZIP_STORED
    if kind == 0:
        file.write_bytes(bent(file.read_bytes(), rng)[0])
        return "container"
    if kind == 1:
        del parts[name]
    elif kind == 2 and "about.npy" in parts:
        about = np.lib.format.read_array(__import__("io").BytesIO(parts["about.npy"]))
        said, what = changed(json.loads(about.tobytes()), rng)
        parts["about.npy"] = _npy(np.frombuffer(json.dumps(said).encode(), np.uint8))
        name = what
    elif kind == 3:
        head, end = f"{[10**12, 2**40, -1, 0, 3][rng.integers(5)]}", parts[name].index(b"\n")
        header = parts[name][10:end].decode("latin1")
        header = header.replace("(60,", f"({head},").replace("(3, 4)", f"({head}, {head})").rstrip()
        parts[name] = parts[name][:10] + header.ljust(end - 10)[: end - 10].encode() + parts[name][end:]
    elif kind == 4:
        array = np.lib.format.read_array(__import__("io").BytesIO(parts[name]))
        dtypes = ["f2", "f8", "i8", "u8", "U4", "c16", "M8[s]", "?", "V3", "S2"]
        try:
            parts[name] = _npy(array.astype(dtypes[rng.integers(len(dtypes))]))
        except (TypeError, ValueError):
            return "nothing"
    elif kind == 5:
        parts[name], method = _npy(np.zeros(2**29, np.uint8)), zipfile.ZIP_DEFLATED
    else:
        parts[name], what = bent(parts[name], rng)
    with zipfile.ZipFile(file, "w", method) as members:
        for one, content in parts.items():
            members.writestr(one, content)
    return f"{name} {kind}"


def _npy(array: np.ndarray) -> bytes:
    import io

    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def make(case: int, root: Path, here: Path, kinds: Iterable[str] = tuple(KINDS)) -> tuple[str, str, str]:
    """What is loaded in this case, its folder's or file's name in `here`, and what was changed."""
    rng = np.random.default_rng(case)
    kinds = [kind for kind in kinds for _ in range(KINDS[kind])]
    kind = kinds[case % len(kinds)]
    if kind == "npz":
        name = ["rows.npz", "head.npz"][rng.integers(2)]
        shutil.copyfile(root / name, here / name)
        return kind, name, npz_changed(here / name, rng)
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("build"))
    if kind == "build":
        name = "build"
        shutil.copytree(root / name, here / name)
        said, what = changed(json.loads((here / name / "build.json").read_text()), rng)
        (here / name / "build.json").write_text(json.dumps(said))
        return kind, name, what
    name = folders[rng.integers(len(folders))] if kind != "index" else ["knnlm", "codes"][rng.integers(2)]
    folder = here / name
    shutil.copytree(root / name, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    what = ""
    if kind == "manifest":
        manifest, what = changed(manifest, rng)
    elif kind == "raw":
        content = (folder / "manifest.json").read_text()
        manifest_text = [
            *(
                content.replace("{", '{"format": 3,', 1),
                "[" * 100_000,
                content[:-1] + ', "a": ' + "[" * 900 + "]" * 900 + "}",
            ),
            *("\ufeff" + content, content + " {}", "null", "7", '"a"', "{}", content.replace("1", "1" * 5000, 1), ""),
        ][rng.integers(11)]
        (folder / "manifest.json").write_text(manifest_text)
        return kind, name, "text"
    elif kind == "reader":
        file = folder / "reader.json"
        if file.exists():
            said, what = changed(json.loads(file.read_text()), rng)
            file.write_text(json.dumps(said))
        else:
            manifest["reader"], what = changed(manifest["reader"], rng)
    elif kind == "names":
        name, folder = "text", here / "text"
        shutil.rmtree(here)
        shutil.copytree(root / name, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        file = next(folder.glob("names-*"))
        said, what = changed(json.loads(file.read_text()), rng)
        file.write_text(json.dumps(said))
        rewritten(folder, file.name, manifest)
    elif kind in ("tensors", "header"):
        files = sorted(folder.glob("*.safetensors"), key=lambda file: (file.name[:5], file.stat().st_size))
        file = files[rng.integers(len(files))]
        if kind == "tensors":
            what = f"{file.name[:5]} {tensors_changed(file, rng)}"
        else:
            content, what = bent(file.read_bytes(), rng)
            file.write_bytes(content)
        rewritten(folder, file.name, manifest)
    elif kind == "index":
        file = next(folder.glob("index-*.faiss"))
        content, what = bent(file.read_bytes(), rng)
        file.write_bytes(content)
        rewritten(folder, file.name, manifest)
    put_manifest(folder, manifest)
    return kind, name, what


def seen(path: Path, kind: str) -> Any:
    """All that a memory, its reader or rows hold and answer, and whether that makes sense."""
    import residua as rs

    if kind == "npz":
        rows = rs.Encoded.load(path)
        repr(rows), rows[:2]
        logits = rows.logits.dense().numpy()
        fine = bool(np.isfinite(rows.keys).all() and np.isfinite(logits).all())
        if rows.task == "classification":
            fine = fine and bool((rows.labels >= 0).all() and (rows.labels < rows.n_outputs).all())
        return fine, [rows.keys, logits, rows.labels, rows.ids, rows.classes, rows.source and rows.source.to_json()]
    if kind == "build":
        from residua.memory.build import build

        memory = build(
            batches(), lambda batch: batch.rows, path, progress=False, index="exact", shard_rows=20, about={"a": 1}
        )
        return True, [memory.keys, memory.labels, memory.ids]
    from residua.cli.store import unfinished as rows_of_build
    from residua.folder import read_manifest
    from residua.printable import shown_memory

    (
        rows_of_build(path),
        shown_memory(read_manifest(path).get("summary") or {}) if "summary" in read_manifest(path) else "",
    )
    reader = rs.load(path)
    memory = reader.memory
    repr(reader), memory._repr_html_(), str(memory.names)
    n, labels, ids = len(memory), memory.labels, memory.ids
    queries = np.random.default_rng(3).normal(size=(10, memory.dim)) + 100 * (
        memory.dim == 4 and memory.task == "classification"
    )
    asked = rs.Encoded(queries, np.random.default_rng(4).normal(size=(10, memory.n_outputs)), ids=np.arange(10) + 10**6)
    scores = reader.scores(asked)
    found = memory.search(queries, 5)
    why = rs.explain(reader, asked[0])
    str(why), why._repr_html_()
    kept = memory.logits if memory.storage.name != "top-m" else None  # which has -inf where nothing was kept
    logits = None if kept is None else kept.dense().numpy()
    fine = bool(np.isfinite(scores).all()) and len(labels) == len(ids) == n
    fine = fine and bool((found.rows < memory.n_rows).all())
    fine = (
        fine
        and (memory.keys is None or bool(np.isfinite(memory.keys).all()))
        and (logits is None or bool(np.isfinite(logits).all()))
    )
    if memory.task == "classification":
        fine = fine and bool((labels >= 0).all() and (labels < memory.n_outputs).all())
    fine = fine and bool((ids < memory._next_id).all()) if hasattr(memory, "_next_id") else fine
    held = [memory.keys, labels, ids, logits, scores, found.rows.numpy(), memory.schema.to_json(), dict(memory.names)]
    return fine, [*held, memory.about, reader.to_json()]


def batches() -> Any:
    """What the unfinished build is of: 60 tokens."""
    from types import SimpleNamespace

    import residua as rs

    class Batch(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.labels)

    for start in range(0, 60, 10):
        rng = np.random.default_rng(start)
        labels, ids, offsets = rng.integers(0, 9, 10), np.full(10, start // 20), np.arange(10) + start % 20
        rows = rs.Encoded(rng.normal(size=(10, 4)), rng.normal(size=(10, 9)), labels, ids, columns={"offset": offsets})
        yield Batch(labels=labels, ids=ids, offsets=offsets, rows=rows)


def unfinished(folder: Path) -> None:
    """A build that stops after 40 of its tokens."""
    from residua.memory.build import build

    def encode(batch: Any) -> Any:
        if batch.offsets[0] == 10 and batch.ids[0] == 2:
            raise InterruptedError
        return batch.rows

    try:
        build(batches(), encode, folder, progress=False, index="exact", shard_rows=20, about={"a": 1})
    except InterruptedError:
        return


def answer(path: Path, kind: str, expected: bytes) -> str:
    """The outcome, in this process."""
    from residua.errors import ResiduaError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fine, held = seen(path, kind)
    except ResiduaError as error:
        said = str(error)
        return "refused" if len(said) > 10 and "\x1b" not in said.replace("\\x1b", "") else f"unclear: {said[:80]}"
    except MemoryError:
        return "bomb"
    except BaseException as error:  # noqa: BLE001  (that is what is looked for)
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"raw: {type(error).__name__} in {Path(where.filename).name}:{where.name}: {str(error)[:100]}"
    if pickle.dumps(held) == expected:
        return "same"
    return "other" if fine else "nonsense"


def child(path: Path, kind: str, expected: bytes, connection: Any, limited: bool) -> None:
    """Answer in a process that may not grow without end."""
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    if limited:
        pages = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (pages + ROOM, pages + ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send(answer(path, kind, expected))
    connection.close()


def outcome(path: Path, kind: str, expected: bytes, limited: bool = True) -> str:
    """The same, of a process of its own."""
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(path, kind, expected, its, limited))
    process.start()
    its.close()
    try:
        found = mine.recv() if mine.poll(SECONDS) else "hang"
    except EOFError:
        found = "death"
    process.join(0.5 if found == "hang" else 5)
    if process.is_alive():
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
    if found == "death":
        found = f"death: {process.exitcode}"
    return found


def whole(one: Path) -> bytes:
    """What an unchanged folder or file holds and answers."""
    kind = "npz" if one.suffix == ".npz" else "build" if one.name == "build" else "manifest"
    with tempfile.TemporaryDirectory() as place:  # a build is finished by looking at it
        copy = Path(place) / one.name
        (shutil.copytree if one.is_dir() else shutil.copyfile)(one, copy)
        return pickle.dumps(seen(copy, kind)[1])


def main() -> None:
    """Run the cases, say what came of them, and add it to the record."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--cases", type=int, default=6000)
    given.add_argument("--start", type=int, default=0)
    given.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    given.add_argument("--out", type=Path)
    args = given.parse_args()
    os.environ.setdefault("RESIDUA_SECRET", "of the fuzzer alone")
    import torch

    torch.set_num_threads(1)
    import faiss  # noqa: F401  (before the processes part)

    began, counts, by_kind, wrong = time.time(), Counter(), {}, []
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root, here = Path(place) / "root", Path(place) / "here"
        memories(root)
        unfinished(root / "build")
        expected = {one.name: whole(one) for one in sorted(root.iterdir())}
        for case in range(args.start, args.start + args.cases):
            if time.time() - began > args.seconds:
                break
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir()
            kind, name, what = make(case, root, here)
            found = outcome(here / name, kind, expected[name])
            word = found.split(":")[0]
            counts[word] += 1
            by_kind.setdefault(kind, Counter())[word] += 1
            if word not in RIGHT:
                wrong.append({"case": case, "kind": kind, "of": name, "what": what, "outcome": found})
                print(f"{case} {kind} {name} {what[:100]!r}: {found}", flush=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    record = {"commit": commit, "date": time.strftime("%Y-%m-%d"), "python": platform.python_version()}
    record |= {"machine": platform.machine(), "cases": sum(counts.values()), "seconds": round(time.time() - began)}
    record |= {
        "outcomes": dict(counts),
        "by_kind": {kind: dict(some) for kind, some in by_kind.items()},
        "wrong": wrong,
    }
    print(json.dumps({name: record[name] for name in ("cases", "seconds", "outcomes", "by_kind")}, indent=1))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        before = json.loads(args.out.read_text()) if args.out.exists() else []
        args.out.write_text(json.dumps([*before, record], indent=1) + "\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
