"""What the inspector waits for: a moved slider and an edit, of 10 000 queries, beside ``evaluate``; and a page.

Each takes so many milliseconds of the wall's clock, and of the processor's, which other work on the machine moves less.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np

import residua as rs
from benchmarks._cifar import encoded, threads
from residua.inspector.session import Session

ROWS = 1_000_000


def main() -> dict:
    """50 000 remembered rows of 64 dims, 10 000 queries, 100 classes; and a million rows, looked through."""
    train, test = encoded("train"), encoded("test")
    memory = rs.Memory(train)
    readers = {
        "ResMem": rs.ResMem(memory, k=53, sigma=0.7, temperature=1.4),
        "ResMem in the exponent": rs.ResMem(memory, k=53, sigma=0.7, temperature=1.4, space="exponent"),
        "KNNLM": rs.KNNLM(memory, k=53, lmbda=0.5, sigma=1.0),
    }
    found: dict = {"threads": threads(), "rows": len(train), "queries": len(test)}
    for name, reader in readers.items():
        session = Session(reader, test)
        start = time.perf_counter()
        session.figures({})
        first = time.perf_counter() - start
        works = {one: _moving(session, one) for one in ("k", "sigma", "temperature", "lmbda") if hasattr(reader, one)}
        turn = itertools.count()
        works |= {
            "k = 200": lambda session=session, turn=turn: session.figures({"k": 200 + next(turn) % 2}),
            "explanation": lambda session=session, turn=turn: session.explanation({}, f"row-{next(turn)}"),
            "evaluate": lambda reader=reader: rs.evaluate(reader, test, label_knn=False, n_bootstrap=1),
        }
        found[name] = {"first_ms": _ms(first)} | _taken(works)
        cpu = {one: took["cpu_ms"] for one, took in found[name].items() if isinstance(took, dict)}
        found[name]["evaluate_over_sigma"] = round(cpu["evaluate"] / cpu["sigma"], 1)
    found["edits"] = _edits(Session(readers["ResMem"], test))
    found["million"] = _million()
    return found


def _moving(session: Session, name: str) -> Callable[[], object]:
    """Each call gives a number of the reader a value that it never had."""
    value, turn = getattr(session.reader, name), itertools.count(1)
    if name == "k":
        return lambda: session.figures({"k": value - next(turn) % 9})
    return lambda: session.figures({name: value * (1 + 0.01 * next(turn))})


def _edits(session: Session) -> dict:
    session.figures({})
    ids = iter(range(1000))

    def forgotten() -> None:
        session.forget([next(ids)])
        session.figures({})

    def undone() -> None:
        session.undo()
        session.figures({})

    def relabelled() -> None:
        session.relabel([5000 + next(ids)], "3")
        session.figures({})

    works = {"forget": forgotten, "undo": undone, "relabel": relabelled}
    return _taken(works)


def _million() -> dict:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, ROWS)
    keys = rng.normal(size=(ROWS, 8)).astype(np.float32)
    names = {id: f"folder/picture {id}.png" for id in range(ROWS)}
    data = rs.Encoded(keys, rng.normal(size=(ROWS, 10)) + np.eye(10)[labels], labels)
    session = Session(rs.KNNLM(rs.Memory(data, names=names), k=10, sigma=1.0))
    asked = {"all": {}, "label": {"label": "3"}, "id": {"id": "999999"}, "name": {"name": "picture 99999"}}
    works = {name: lambda own=own: session.remembered(page=1, **own) for name, own in asked.items()}
    return _taken(works)


def _taken(works: dict[str, Callable[[], object]], repeat: int = 5) -> dict[str, dict]:
    """Medians of `repeat` rounds in which all take turns, after one more."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(1 + repeat):
        for name, work in works.items():
            start = time.perf_counter(), time.process_time()
            work()
            taken[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    medians = {name: np.median(times[1:], axis=0) for name, times in taken.items()}
    return {name: {"ms": _ms(wall), "cpu_ms": _ms(cpu)} for name, (wall, cpu) in medians.items()}


def _ms(took: float) -> float:
    return round(1000 * float(took), 1)
