"""Six processes that edit one memory folder and six that read it, killed with SIGKILL at random moments.

    python -m stress.kills --minutes 10 --out stress/results/kills.json

Writers are live (``Memory.open``), or load, edit and save, and take in by ``refresh`` what others saved meanwhile. Half
of them are killed just before a flush, a rename or a removal of a file; all others, and the readers, anywhere.

Every edit says in its note exactly what it does, so a folder's log tells what the folder has to hold: each load, of any
kind, is compared with it, row by row. A writer writes down what it begins, and, after the call returned, that it is
done, in a diary of its own outside the folder. A load has to have all that was done when it began, and nothing that
was refused; a log is always the beginning of every later one. Edits that were under way at a kill may be there or not,
those of one save together. Once a minute all twelve are killed, and the folder is looked at: everything is there, every
file is whole, the lock is free, and after one save no file is left over.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import residua as rs
from residua.errors import IdError, MemoryFileError, StaleMemoryError, StorageError
from residua.memory.lock import locked
from stress.left_over import left_over
from stress.threads import CLASSES, key_of

WRITERS = READERS = 6
BASE = 2000  # rows that nobody edits
MOST = 64  # rows of one batch have numbers below
UNNOTED = ("compact", "reader", "repair", "purge")  # what the log does not tell, or, of nothing forgotten, need not


class Fault(AssertionError):
    """What must not happen."""


# What is edited. A row is known by its number, in a column of its own, from which all else about it follows, but for a
# shift of its label that a relabelling gave it. Ids are the row's number, or the memory gives them.


def batch(writer: int, number: int) -> np.ndarray:
    """The numbers of the rows that one edit adds."""
    return ((writer + 1) * 10**6 + number) * MOST + np.arange(2 + number * 7919 % 38)


def encoded(rows: np.ndarray, ids: np.ndarray | None) -> rs.Encoded:
    named = {"names": [f"row {row}" for row in rows]} if _is_named(rows)[0] else {}
    return rs.Encoded(key_of(rows), logits_of(rows), rows % CLASSES, ids, columns={"row": rows}, **named)


def _is_named(rows: np.ndarray) -> np.ndarray:
    return (rows >= BASE) & (rows // MOST % 3 == 0)


def logits_of(rows: np.ndarray) -> np.ndarray:
    return np.cos(np.outer(rows, np.arange(1, CLASSES + 1)) * 0.37).astype(np.float32)


def added(writer: int, number: int) -> rs.Encoded:
    rows = batch(writer, number)
    return encoded(rows, rows if number % 2 else None)


def mask_of(places: np.ndarray) -> str:
    return f"{sum(1 << int(place) for place in places):x}"


def masked(writer: int, number: str, mask: str) -> np.ndarray:
    places = [place for place in range(MOST) if int(mask, 16) >> place & 1]
    return batch(writer, int(number))[places]


@dataclass
class Story:
    """What a log tells, and so what the folder has to hold; ``take`` a later log whenever there is one."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)  # checksum of the log up to each event
    done: list[list[tuple[int, int | None, int | None]]] = field(default_factory=list)  # row, label before, and after
    labels: dict[int, int] = field(default_factory=dict)  # of each remembered row
    notes: set[tuple[int, int]] = field(default_factory=set)  # writer and number of what was done

    def take(self, log: tuple[rs.memory.history.Event, ...]) -> None:
        told = [(one.what, one.when, one.note, one.added, one.forgotten, one.relabelled, one.undoes) for one in log]
        if told[: len(self.events)] != self.events:
            raise Fault(f"a log of {len(self.events)} events is not the beginning of a later one of {len(told)}")
        for event in told[len(self.events) :]:
            self._tell(event)
            self.events.append(event)
            self.sums.append(zlib.crc32(repr(event).encode(), self.sums[-1] if self.sums else 0))

    def _tell(self, event: tuple[Any, ...]) -> None:
        what, _, note, *_, undoes = event
        if what == "create":
            self.labels = {row: row % CLASSES for row in range(BASE)}
        changes: list[tuple[int, int | None, int | None]] = []
        last: list[tuple[int, int | None, int | None]] = []
        for said in filter(None, note.split("; ")):
            name, verb, *rest = said.split(" ")
            writer, number = map(int, name.split("#"))
            if (writer, number) in self.notes:
                raise Fault(f"{said!r} is in the log twice")
            self.notes.add((writer, number))
            if verb == "undo":
                taken_back = self.done[undoes] if undoes is not None else last
                last = self._done([(row, before) for row, before, _ in reversed(taken_back)])
            else:
                last = self._done(self._meant(writer, number, verb, rest))
            changes += last
        self.done.append(changes)

    def _meant(self, writer: int, number: int, verb: str, rest: list[str]) -> list[tuple[int, int | None]]:
        meant: list[tuple[int, int | None]] = []
        if verb in ("forget", "swap"):
            meant += [(row, None) for row in masked(writer, rest[0], rest[1]).tolist() if row in self.labels]
        if verb in ("add", "swap"):
            meant += [(row, row % CLASSES) for row in batch(writer, number).tolist()]
        if verb == "relabel":
            rows, shift = masked(writer, rest[0], rest[1]).tolist(), int(rest[2])
            meant += [(row, (row + shift) % CLASSES) for row in rows if row in self.labels]
        return meant

    def _done(self, meant: list[tuple[int, int | None]]) -> list[tuple[int, int | None, int | None]]:
        done = [(row, self.labels.get(row), after) for row, after in meant]
        for row, after in meant:
            if after is None:
                self.labels.pop(row, None)
            else:
                self.labels[row] = after
        return done

    def compare(self, memory: rs.Memory) -> None:
        """``Fault`` where a memory is anything else than its log says."""
        self.take(memory.log())
        active = memory.active_rows
        rows, ids, labels = memory.column("row")[active].numpy(), memory.ids, memory.labels
        held = dict(zip(rows.tolist(), labels.tolist(), strict=True))
        if held != self.labels or len(held) != len(rows):
            less, more = self.labels.keys() - held.keys(), held.keys() - self.labels.keys()
            other = sum(self.labels[row] != label for row, label in held.items() if row in self.labels)
            raise Fault(
                f"of {len(self.labels)} rows that the log tells of {len(less)} are missing ({sorted(less)[:5]}), "
                f"{len(more)} are too many ({sorted(more)[:5]}), {other} have another label; {len(rows)} are held"
            )
        if len(np.unique(ids)) != len(ids):
            raise Fault("two rows have one id")
        own = (rows >= BASE) & (rows // MOST % 2 == 1)
        if (ids[own] != rows[own]).any():
            raise Fault("a row has another id than the one it was given")
        has = _is_named(rows)
        named = {id: f"row {row}" for id, row in zip(ids[has].tolist(), rows[has].tolist())}
        if dict(memory.names) != named:
            raise Fault(f"{len(named)} rows have names, and {len(memory.names)} are known")
        keys, logits = memory.keys, memory.logits
        if keys is None or not np.allclose(keys, key_of(rows), atol=1e-5):
            raise Fault("a row has another row's key")
        if logits is None or not np.allclose(logits.dense().numpy(), logits_of(rows), atol=1e-5):
            raise Fault("a row has another row's logits")
        asked = rows[:: max(1, len(rows) // 20)]
        found = memory.search(key_of(asked), 3)
        near = memory.column("row")[found.rows.clamp_min(0).reshape(-1)].numpy()
        apart = np.linalg.norm(key_of(asked)[:, None] - key_of(near).reshape(*found.rows.shape, -1), axis=2)
        right = found.found.numpy()
        if not np.allclose(found.distances.numpy()[right], apart[right], atol=1e-3):
            raise Fault("a distance is not the one to the row's own key")
        if not set(near[right.reshape(-1)].tolist()) <= held.keys():
            raise Fault("a forgotten row was found")


# What the processes write down: lines of JSON, appended.


class Diary:
    """One process's lines, which outlive it."""

    def __init__(self, file: Path):
        self.descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.write({})  # whatever the last process was writing when it was killed, this is a line of its own

    def write(self, line: dict[str, Any], durable: bool = False) -> None:
        os.write(self.descriptor, f"\n{json.dumps(line)}\n".encode())
        if durable:
            os.fsync(self.descriptor)


def lines(file: Path, start: int = 0) -> tuple[list[dict[str, Any]], int]:
    """What a diary says from byte `start` on, and where its last whole line ends."""
    if not file.exists():
        return [], start
    data = file.read_bytes()[start:]
    data = data[: data.rfind(b"\n") + 1]
    found = []
    for line in data.splitlines():
        with contextlib.suppress(ValueError):  # a process was killed while it wrote
            found.append(json.loads(line))
    return found, start + len(data)


@dataclass
class Diaries:
    """What all writers begun, did and gave up, as far as it was ``read``."""

    place: Path
    begun: dict[tuple[int, int], tuple[int, str]] = field(default_factory=dict)  # the first of its save, and the verb
    done: dict[tuple[int, int], float] = field(default_factory=dict)  # seconds
    refused: dict[tuple[int, int], str] = field(default_factory=dict)
    at: dict[int, int] = field(default_factory=dict)

    def read(self) -> Diaries:
        for writer in range(WRITERS):
            found, self.at[writer] = lines(self.place / f"writer{writer}", self.at.get(writer, 0))
            for line in found:
                for number, verb in line.get("begin", ()):
                    self.begun[writer, number] = line["begin"][0][0], verb
                for number in line.get("done", ()):
                    self.done[writer, number] = line["seconds"]
                for number in line.get("refused", ()):
                    self.refused[writer, number] = line["why"]
        return self

    def expected(self) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
        """What a log has to tell by now, and what it must never tell."""
        return {one for one in self.done if self.begun[one][1] not in UNNOTED}, set(self.refused)

    def compare(self, story: Story, expected: tuple[set[tuple[int, int]], set[tuple[int, int]]]) -> None:
        for what, wrong in (
            ("had returned are not there", expected[0] - story.notes),
            ("were refused are there", expected[1] & story.notes),
        ):
            if wrong:
                raise Fault(f"{len(wrong)} edits that {what}: {[(*one, self.begun[one][1]) for one in wrong][:5]}")


# The processes.


@contextlib.contextmanager
def strictly() -> Iterator[None]:
    """Warnings are faults, but for those of a trained index that rows were added to."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="index .* finds")
        yield


def die_at(step: int) -> None:
    """Have this process killed just before so many more flushes, renames, links and removals of files."""
    left = itertools.count(step, -1)

    def deadly(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(left) <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for place, name in ((os, "fsync"), (os, "replace"), (os, "link"), (Path, "unlink")):
        setattr(place, name, deadly(getattr(place, name)))


class Writer:
    """Edits the folder until it is killed: live, or by loading, editing and saving."""

    def __init__(self, place: Path, folder: Path, writer: int, seed: int):
        self.folder, self.writer, self.rng = folder, writer, random.Random(seed)
        before = Diaries(place).read().begun
        self.number = 1 + max((number for one, number in before if one == writer), default=0)
        self.diary = Diary(place / f"writer{writer}")

    def run(self) -> None:
        if self.rng.random() < 0.5:
            die_at(self.rng.randrange(60))  # an edit is about ten
        live = rs.Memory.open(self.folder) if self.rng.random() < 0.5 else None
        while True:
            if live is not None:
                self.edit(live)
            else:
                self.session()
            time.sleep(self.rng.random() * 0.05)

    def own(self, memory: rs.Memory) -> dict[int, list[tuple[int, int, int]]]:
        """Of each own batch that is remembered: place, id and label of its rows."""
        active = memory.active_rows
        rows, found = memory.column("row")[active].numpy(), dict[int, list[tuple[int, int, int]]]()
        mine = rows // MOST // 10**6 == self.writer + 1
        for row, id, label in zip(rows[mine].tolist(), memory.ids[mine].tolist(), memory.labels[mine].tolist()):
            found.setdefault(row // MOST % 10**6, []).append((row % MOST, id, label))
        return found

    def wanted(self, own: Mapping[int, list[Any]], alone: bool) -> str:
        """What to do next; `alone`: also what is no part of several edits."""
        if len(own) < 5:
            return "add"
        often = {"add": 5, "forget": 5 if len(own) < 15 else 15, "relabel": 4, "swap": 3}
        often |= (
            {"undo": 2, "rebuild": 0.4, "purge": 0.4, "compact": 0.5, "reader": 0.7, "repair": 0.4} if alone else {}
        )
        return self.rng.choices(list(often), list(often.values()))[0]

    def call(self, memory: rs.Memory, number: int, verb: str, own: dict[int, list[tuple[int, int, int]]]) -> Any:
        """An edit to be made, whose note says exactly what it does; a batch it is about is taken out of `own`."""
        name = f"{self.writer}#{number} {verb}"
        if verb in ("forget", "relabel", "swap"):
            about = self.rng.choice(list(own))
            rows = own.pop(about)
            if verb == "forget" and self.rng.random() < 0.4:
                rows = self.rng.sample(rows, max(1, len(rows) // 2))
            places, ids, labels = (np.array(one) for one in zip(*rows))
            name += f" {about} {mask_of(places)}"
            if verb == "forget":
                return lambda: memory.forget(ids, note=name)
            if verb == "relabel":
                numbers = ((self.writer + 1) * 10**6 + about) * MOST + places
                had = set(((labels - numbers) % CLASSES).tolist())
                shift = self.rng.choice([one for one in range(CLASSES) if one not in had])
                return lambda: memory.relabel(ids, (numbers + shift) % CLASSES, note=f"{name} {shift}")

            def swap() -> None:
                with memory.editing("swap", name) as draft:
                    draft.forget(ids)
                    draft.add(added(self.writer, number))

            return swap
        calls = {
            "add": lambda: memory.add(added(self.writer, number), note=name),
            "undo": lambda: memory.undo(note=name),
            "rebuild": lambda: memory.rebuild(note=name),
            "purge": lambda: memory.purge(self.folder, note=name, progress=False),
            "compact": lambda: rs.Memory.compact(self.folder),
            "reader": lambda: rs.KNNLM(memory, k=self.rng.randint(2, 9), lmbda=0.5, sigma=1.0).save(self.folder),
            "repair": self.repair,
        }
        return calls[verb]

    def repair(self) -> None:
        if (found := rs.Memory.verify(self.folder, repair=True)).damaged:
            raise Fault(f"repaired what nobody damaged: {found}")

    def begin(self, verbs: list[str]) -> list[int]:
        numbers = list(range(self.number, self.number + len(verbs)))
        self.number += len(verbs)
        self.diary.write({"begin": list(zip(numbers, verbs))})
        return numbers

    def finish(self, numbers: list[int], began: float) -> None:
        self.diary.write({"done": numbers, "seconds": round(time.monotonic() - began, 3)}, durable=True)

    def refuse(self, numbers: list[int], error: Exception) -> None:
        self.diary.write({"refused": numbers, "why": f"{type(error).__name__}: {error}"[:200]})

    def edit(self, live: rs.Memory) -> None:
        """One edit of a live memory."""
        if self.rng.random() < 0.3:
            live.refresh()
        own = self.own(live)
        verb = self.wanted(own, alone=True)
        (number,), began = self.begin([verb]), time.monotonic()
        try:
            self.call(live, number, verb, own)()
        except (IdError, StorageError) as error:  # others took back what is edited here, or renumbered
            self.refuse([number], error)
        except MemoryFileError as error:
            if "another process" not in str(error):  # that waits for its turn for a minute already
                raise
            self.refuse([number], error)
        else:
            self.finish([number], began)

    def session(self) -> None:
        """Load, edit once or several times, save; who comes too late takes in what others did, and saves then."""
        memory = rs.Memory.load(self.folder, mmap=self.rng.random() < 0.3)
        own = self.own(memory)
        verbs = [self.wanted(own, alone=True)]
        if verbs[0] in ("add", "forget", "relabel", "swap"):
            last = 0 if verbs[0] == "add" else 1  # each is about a batch of its own
            for _ in range(min(self.rng.randrange(3), len(own) - last)):
                verbs.append(self.wanted(own, alone=False))
            verbs += ["undo"] if self.rng.random() < 0.2 else []
            verbs.append("add")  # so that something is left to tell of
        numbers, began = self.begin(verbs), time.monotonic()
        try:
            for number, verb in zip(numbers, verbs):
                self.call(memory, number, verb, own)()
            if verbs == ["undo"]:  # of whoever was the last: it says of whom if nobody was since
                memory.save(self.folder)
            elif verbs[0] not in UNNOTED:  # which save themselves
                self.save(memory)
        except (StorageError, StaleMemoryError) as error:  # rows were renumbered here: load again
            self.refuse(numbers, error)
        except MemoryFileError as error:
            if "another process" not in str(error):
                raise
            self.refuse(numbers, error)
        else:
            self.finish(numbers, began)

    def save(self, memory: rs.Memory) -> None:
        while True:
            try:
                return memory.save(self.folder)
            except StaleMemoryError:
                memory.refresh()


class Reader:
    """Loads the folder until it is killed, in every way there is, and compares what it gets."""

    def __init__(self, place: Path, folder: Path, reader: int, seed: int):
        self.folder, self.rng, self.diaries, self.story = folder, random.Random(seed), Diaries(place), Story()
        file = place / f"reader{reader}"
        self.seen = [line for line in lines(file)[0] if "events" in line]
        self.diary = Diary(file)

    def run(self) -> None:
        while True:
            time.sleep(self.rng.random() * 0.6)  # or the readers have the machine to themselves
            expected, began = self.diaries.read().expected(), time.monotonic()
            how = self.rng.choices(["load", "mmap", "reader", "verify"], [4, 3, 2, 1])[0]
            if how == "verify":
                if (found := rs.Memory.verify(self.folder)).damaged:
                    raise Fault(f"damaged: {found}")
                self.diary.write({"how": how, "seconds": round(time.monotonic() - began, 3)})
                continue
            if how == "reader":
                reader = rs.load(self.folder, mmap=self.rng.random() < 0.3)
                if not 2 <= reader.params["k"] <= 9:
                    raise Fault(f"a reader that nobody saved: {reader.params}")
                memory = reader.memory
            else:
                memory = rs.Memory.load(self.folder, mmap=how == "mmap")
            seconds = time.monotonic() - began
            if how == "mmap":
                time.sleep(self.rng.random() * 0.3)  # its files are those of a folder that has moved on
            self.story.compare(memory)
            self.diaries.compare(self.story, expected)
            compare_seen(self.story, self.seen[-1:])
            self.seen = [{"events": len(self.story.events), "sum": self.story.sums[-1]}]
            self.diary.write({"how": how, "seconds": round(seconds, 3), **self.seen[0]})


def compare_seen(story: Story, seen: list[dict[str, Any]]) -> None:
    """``Fault`` where a log that was read once is not the beginning of this one."""
    for line in seen:
        if line["events"] > len(story.events) or story.sums[line["events"] - 1] != line["sum"]:
            raise Fault(f"a log of {line['events']} events was read, and is not the beginning of one read later")


class Run:
    """A folder, its twelve processes, and who kills them."""

    def __init__(self, place: Path, index: str, seed: int):
        self.place, self.folder, self.index = place, place / "memory", index
        self.rng, self.story, self.diaries = random.Random(seed), Story(), Diaries(place)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.processes: dict[int, tuple[str, int]] = {}
        base = np.arange(BASE)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the base is no better than chance")
            memory = rs.Memory(encoded(base, base + 10**12), index=index)
        rs.KNNLM(memory, k=5, lmbda=0.5, sigma=1.0).save(self.folder)

    def start(self, kind: str, number: int) -> None:
        seed = self.rng.getrandbits(32)
        process = os.fork()
        if process:
            self.processes[process] = kind, number
            self.counts["processes"] += 1
            return
        status = 1
        try:
            with strictly():
                (Writer if kind == "writer" else Reader)(self.place, self.folder, number, seed).run()
        except BaseException:  # noqa: BLE001 (whatever it is, it is a fault of the memory)
            (self.place / f"fault-{os.getpid()}").write_text(f"{kind} {number}: {traceback.format_exc(limit=-12)}")
        finally:
            os._exit(status)

    def ended(self, process: int, status: int) -> tuple[str, int]:
        """Who ended; one that ended otherwise than by SIGKILL is a fault."""
        kind, number = self.processes.pop(process)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self.counts[f"{kind}s killed"] += 1
        else:
            said = self.place / f"fault-{process}"
            self.faults.append(said.read_text() if said.exists() else f"a {kind} ended with status {status}")
        return kind, number

    def kill(self, process: int) -> tuple[str, int]:
        os.kill(process, signal.SIGKILL)
        return self.ended(*os.waitpid(process, 0))

    def kill_all(self) -> None:
        for process in list(self.processes):
            self.kill(process)

    def go(self, minutes: float, every: float) -> None:
        """Kill and start again until the time is over, or a fault; look at the folder after `every` so many seconds."""
        until = time.monotonic() + 60 * minutes
        try:
            while time.monotonic() < until and not self.faults:
                for number in range(WRITERS):
                    self.start("writer", number)
                for number in range(READERS):
                    self.start("reader", number)
                stop = min(until, time.monotonic() + every)
                while time.monotonic() < stop and not self.faults:
                    time.sleep(self.rng.expovariate(4))
                    if (dead := os.waitpid(-1, os.WNOHANG))[0]:
                        self.counts["killed at a step of a save"] += 1
                        self.start(*self.ended(*dead))
                    else:
                        self.start(*self.kill(self.rng.choice(list(self.processes))))
                self.kill_all()
                if not self.faults:
                    with strictly():
                        self.audit()
        except Exception:  # noqa: BLE001 (whatever it is, it is a fault of the memory)
            self.faults.append(traceback.format_exc(limit=-12))
        finally:
            self.kill_all()

    def audit(self) -> None:
        """What is promised of a folder whose writers are all dead."""
        with locked(self.folder, patience=0, nested=False):
            pass
        if (found := rs.Memory.verify(self.folder)).damaged:
            raise Fault(f"damaged: {found}")
        memory = rs.load(self.folder).memory
        self.diaries.read()
        try:
            self.story.compare(memory)
        finally:
            self.counts["rows lost"] = self.rows_lost(memory)
        self.diaries.compare(self.story, self.diaries.expected())
        saves: dict[tuple[int, int], set[bool]] = {}
        for (writer, number), (first, verb) in self.diaries.begun.items():
            if verb not in UNNOTED:
                saves.setdefault((writer, first), set()).add((writer, number) in self.story.notes)
        if torn := [one for one, there in saves.items() if len(there) > 1]:
            raise Fault(f"half of the edits of one save are there: {torn[:3]}")
        for reader in range(READERS):
            compare_seen(self.story, [line for line in lines(self.place / f"reader{reader}")[0] if "events" in line])
        memory.save(self.folder)
        if left := left_over(self.folder):
            raise Fault(f"left over after a save: {left}")
        self.counts["audits"] += 1

    def rows_lost(self, memory: rs.Memory) -> int:
        """Rows whose edit had returned, that nobody forgot, and that are not there."""
        rows = set(self.story.labels)
        for writer, number in self.diaries.expected()[0] - self.story.notes:
            if self.diaries.begun[writer, number][1] in ("add", "swap"):
                rows |= set(batch(writer, number).tolist())
        return len(rows - set(memory.column("row")[memory.active_rows].tolist()))

    def report(self) -> dict[str, Any]:
        self.diaries.read()
        begun, done, refused = self.diaries.begun, self.diaries.done, self.diaries.refused
        in_flight = begun.keys() - done.keys() - refused.keys()
        adds = [one for one in done if begun[one][1] in ("add", "swap")]
        loads = [line for n in range(READERS) for line in lines(self.place / f"reader{n}")[0] if "how" in line]
        return {
            **dict(sorted(self.counts.items())),
            "edits done": dict(Counter(begun[one][1] for one in done).most_common()),
            "edits refused": dict(Counter(why.split(":")[0] for why in refused.values()).most_common()),
            "edits under way at a kill": len(in_flight),
            "of these there": len(in_flight & self.story.notes),
            "taken in by refresh": sum(event[0] == "refresh" for event in self.story.events),
            "loads": dict(Counter(line["how"] for line in loads).most_common()),
            "rows acknowledged": sum(len(batch(*one)) for one in adds),
            "rows at the end": len(self.story.labels),
            "events in the log": len(self.story.events),
            "longest edit, s": max(done.values(), default=None),
            "longest load, s": max((line["seconds"] for line in loads), default=None),
            "faults": self.faults[:5],
        }


def main(minutes: float, indexes: list[str], out: Path | None, seed: int = 0, every: float = 60.0) -> int:
    """Attack a folder of each index for so long; how many were faulty."""
    torch.set_num_threads(1)  # so that it can fork
    os.environ.setdefault("RESIDUA_SECRET", "of the kills alone")
    report: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count(), "minutes": minutes, "seed": seed}
    report |= {"processes at once": WRITERS + READERS, "runs": {}}
    for index in indexes:
        with tempfile.TemporaryDirectory() as place:
            run = Run(Path(place), index, seed)
            run.go(minutes, every)
            report["runs"][index] = run.report() | {"load average at the end": round(os.getloadavg()[1], 1)}
        print(index, json.dumps(report["runs"][index], indent=1), flush=True)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n")
    return sum(bool(one["faults"] or one.get("rows lost")) for one in report["runs"].values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Processes on one memory folder, killed at random moments.")
    parser.add_argument("--minutes", type=float, default=10, help="for each index")
    parser.add_argument("--index", action="append")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--audit", type=float, default=60, help="seconds between two looks at the folder")
    given = parser.parse_args()
    sys.exit(main(given.minutes, given.index or ["exact", "IVF16,Flat"], given.out, given.seed, given.audit))
