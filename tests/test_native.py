"""Native kernels: NumPy, torch and FAISS say what they have to say, at every level of the processor."""

import copy
import hashlib
import logging
import pickle
import shutil
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import residua as rs
from residua import native
from residua.errors import NonFiniteError
from residua.index import Exact
from residua.index.nearest import nearest_among, scan
from residua.readers import Kernel

SOURCE = Path(__file__).resolve().parents[1] / "native" / "src" / "residua_native" / "kernels.cpp"
COMPILER = None if sys.platform == "win32" else shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: nothing to build the kernels with")


def compile_to(file: Path, *options: str, source: Path = SOURCE) -> None:
    command = [COMPILER, "-std=c++17", "-pthread", *options, str(source), "-o", str(file)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> Path:
    """The kernels of this checkout, built once for all workers."""
    if COMPILER is None:
        pytest.skip("no C++ compiler: nothing to build the kernels with")
    folder = tmp_path_factory.getbasetemp().parent  # which a later run may share
    with FileLock(folder / "kernels.lock"):
        file = folder / f"kernels-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
        if not file.exists():
            compile_to(file, "-O2", "-fPIC", "-shared", "-fvisibility=hidden")
    return file


@pytest.fixture
def installed(monkeypatch, library):
    """Called with a library, or None: from then on that is what is installed; at the start, this checkout's."""

    def install(file: Path | None) -> native.Kernels | None:
        package = types.ModuleType("residua_native")
        if file is not None:
            package.LIBRARY = file
        monkeypatch.setitem(sys.modules, "residua_native", None if file is None else package)
        native.kernels.cache_clear()
        return native.kernels()

    monkeypatch.delenv("RESIDUA_NATIVE", raising=False)
    install(library)
    yield install
    native.kernels.cache_clear()


@pytest.fixture(params=range(3), ids=native.LEVELS)
def level(request, installed):
    kernels = native.kernels()
    best = kernels.level
    if kernels.limit(request.param) != request.param:
        pytest.skip(f"this processor has no {native.LEVELS[request.param]}")
    yield kernels
    kernels.limit(best)


@st.composite
def searches(draw):
    """Keys, queries and k: of any size and magnitude, with ties, duplicates, outliers and far queries."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d, q = draw(st.integers(1, 700)), draw(st.integers(1, 300)), draw(st.integers(1, 13))
    keys = rng.standard_normal((n, d))
    kind = draw(st.sampled_from(["normal", "whole", "few", "same", "outlier", "unequal", "far from 0"]))
    if kind == "whole":
        keys = rng.integers(-3, 4, size=(n, d))
    elif kind == "few":
        keys = keys[rng.integers(0, min(n, 5), size=n)]
    elif kind == "same":
        keys = np.repeat(keys[:1], n, axis=0)
    elif kind == "outlier":
        keys[0] *= 1e4
    elif kind == "unequal":
        keys *= np.geomspace(1e-6, 1e3, d)
    elif kind == "far from 0":
        keys += 1e4
    queries = keys[rng.integers(0, n, size=q)] + draw(st.sampled_from([0, 1, 1e6])) * rng.standard_normal((q, d))
    size = draw(st.sampled_from([1e-30, 1e-18, 1e-3, 1, 1e3, 1e17, 1e30]))
    k = draw(st.integers(1, n))
    keys, queries = (torch.from_numpy(np.float32(np.clip(part * size, -3e38, 3e38))) for part in (keys, queries))
    return keys, queries, k


@pytest.mark.slow
def test_no_nearest_key_is_missed(level):
    @settings(max_examples=120)
    @given(searches())
    def holds(case):
        keys, queries, k = case
        places, counts, measured = level.codes(keys).nearest(queries, keys, k)
        assert 0 < measured <= 1
        wanted = scan(queries, keys, torch.arange(len(keys)), k)
        fit = torch.from_numpy(counts <= places.shape[1])
        found = nearest_among(queries[fit], keys, torch.from_numpy(places)[fit], k)
        assert torch.equal(found.rows, wanted.rows[fit]) and torch.equal(found.squared, wanted.squared[fit])
        for row, count in zip(places, counts):
            named = row[row >= 0]
            assert len(named) == len(np.unique(named)) == min(count, len(row)) and count >= k

    holds()


def test_an_index_of_codes_answers_as_faiss_does(installed):
    """Ties and duplicates, in both directions; half precision; more that tie than there is room for."""
    rng = np.random.default_rng(0)
    keys = torch.from_numpy(np.float32(rng.integers(0, 4, size=(3000, 5))))
    for dtype in (torch.float32, torch.float16):
        by_codes, plain = Exact(5), Exact(5, backend="torch")
        for index in (by_codes, plain):
            index.build(keys.to(dtype))
        for k in (1, 7, 400, 2999, 3000):
            for q in (40, 1):
                found, wanted = (index.search(keys[:q] + 0.5, k, keys.to(dtype)) for index in (by_codes, plain))
                assert torch.equal(found.rows, wanted.rows) and torch.equal(found.distances, wanted.distances)


@pytest.mark.slow
@settings(max_examples=25)
@given(data=st.data())
def test_any_history_answers_as_without_codes(library, data):
    with pytest.MonkeyPatch.context() as patch:
        package = types.ModuleType("residua_native")
        package.LIBRARY = library
        patch.setitem(sys.modules, "residua_native", package)
        patch.delenv("RESIDUA_NATIVE", raising=False)
        native.kernels.cache_clear()
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        dtype = data.draw(st.sampled_from(["float32", "bfloat16"]))
        rows = rs.Encoded(rng.standard_normal((200, 6)), rng.standard_normal((200, 3)), rng.integers(0, 3, 200))
        pair = [rs.Memory(rows, key_dtype=dtype, index_params=how) for how in (None, {"backend": "torch"})]
        for _ in range(data.draw(st.integers(1, 5))):
            what, seed = data.draw(st.sampled_from(["add", "forget", "undo", "copy"])), int(rng.integers(2**32))
            for at, memory in enumerate(pair):
                chance = np.random.default_rng(seed)
                if what == "add":
                    count = int(chance.integers(1, 90))
                    keys, said = chance.standard_normal((count, 6)), chance.standard_normal((count, 3))
                    memory.add(rs.Encoded(keys, said, chance.integers(0, 3, count)))
                elif what == "forget":
                    memory.forget(chance.choice(memory.ids, 10, replace=False))
                elif what == "copy":
                    pair[at] = copy.deepcopy(memory)
                else:
                    with pytest.raises(ZeroDivisionError), memory.editing() as draft:
                        draft.forget(draft.ids[:50])
                        raise ZeroDivisionError
            for q in (50, 1):
                queries, k = rng.standard_normal((q, 6)), int(rng.integers(1, 60))
                found, wanted = (memory.search(queries, k) for memory in pair)
                assert torch.equal(found.rows, wanted.rows) and torch.equal(found.distances, wanted.distances)
    native.kernels.cache_clear()


def test_codes_that_tell_little_are_given_up(installed):
    """One key is so far away that all others have the same code."""
    rng = np.random.default_rng(0)
    keys = torch.from_numpy(np.float32(rng.standard_normal((3000, 5))))
    keys[7] = 1e9
    index, plain = Exact(5), Exact(5, backend="torch")
    for one in (index, plain):
        one.build(keys)
    for q in (40, 1, 1):
        found, wanted = (one.search(keys[:q] + 0.5, 9, keys) for one in (index, plain))
        assert torch.equal(found.rows, wanted.rows) and torch.equal(found.distances, wanted.distances)
    assert index.coded_bytes == 0
    index.forget(torch.tensor([7]))
    index.search(keys[:40], 9, keys)
    assert index.coded_bytes > 3000 * 5
    for _ in range(99):
        index.search(torch.full((1, 5), 1e9), 9, keys)  # what is far from all keys is far from few queries
        index.search(keys[:99], 9, keys)
    assert index.coded_bytes > 0


def test_threads_search_side_by_side(installed):
    rng = np.random.default_rng(0)
    keys, queries = (torch.from_numpy(np.float32(rng.standard_normal((n, 9)))) for n in (2000, 320))
    index, plain = Exact(9), Exact(9, backend="torch")
    for one in (index, plain):
        one.build(keys)
    parts = queries.split(20)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda part: index.search(part, 11, keys), parts))
    wanted = plain.search(queries, 11, keys)
    assert torch.equal(torch.cat([part.rows for part in found]), wanted.rows)
    # And of one call, on several threads of its own.
    places, counts, _ = native.kernels().codes(keys).nearest(queries, keys, 11)
    assert (
        all(set(row.tolist()) <= set(place.tolist()) for row, place in zip(wanted.rows, places)) and counts.min() > 10
    )


class Net(nn.Module):
    def __init__(self, outputs: int):
        super().__init__()
        self.hidden, self.head = nn.Linear(4, 7), nn.Linear(7, outputs)

    def forward(self, x):
        return 4 * self.head(torch.tanh(self.hidden(x)))


def attached(memory_of, reader_of, outputs: int, seed: int, asked: list[int]) -> list[torch.Tensor]:
    """What a network says of as many inputs as are `asked`, one batch after another, with a memory attached."""
    torch.manual_seed(seed)
    model, x = Net(outputs).eval(), torch.randn(300, 4)
    with torch.no_grad():
        encoded = rs.Encoded(torch.tanh(model.hidden(x)).numpy(), model(x).numpy(), np.arange(300) % outputs)
        memory = memory_of(encoded)
        with rs.attach(model, reader_of(memory), key="head:input"):
            return [model(torch.randn(q, 4)) for q in asked]


def forgetful(encoded):
    memory = rs.Memory(encoded, key_dtype="float16")
    memory.forget(np.arange(0, 300, 3))
    return memory


def compressed(encoded):
    memory = rs.Memory(encoded, index="IVF4,PQ7x4fs", index_params={"nprobe": 3})
    memory.index.rerank = 10
    return memory


READERS = {
    "residuals": lambda m: rs.ResMem(m, k=9, sigma=0.4, temperature=1.7),
    "gaussian residuals": lambda m: rs.ResMem(m, k=31, sigma=0.02, kernel="gaussian", epsilon=0.5),
    "exponent": lambda m: rs.ResMem(m, k=5, sigma=1, temperature=0.6, space="exponent", residual_weight=3),
    "labels": lambda m: rs.KNNLM(m, k=20, lmbda=0.3, sigma=0.5),
    "labels at T": lambda m: rs.KNNLM(m, k=20, lmbda=0.3, sigma=0.5, temperature=2.3),
    "labels on the floor": lambda m: rs.KNNLM(m, k=20, lmbda=0.9, sigma=0.5, epsilon=0.5),
    "a narrow kernel": lambda m: rs.KNNLM(m, k=3, lmbda=0.5, sigma=1e-20),
}


@pytest.mark.parametrize("residuals", [True, False])
def test_labels_of_every_size_are_read_alike(level, residuals):
    rng = np.random.default_rng(0)
    labels, said = torch.from_numpy(rng.integers(0, 100, 50)), torch.from_numpy(rng.normal(size=(50, 100)))
    near = rng.integers(0, 50, (3, 9)), rng.random((3, 9), np.float32)
    logits, found = torch.from_numpy(rng.normal(size=(3, 100))).float(), []
    shape = {"outputs": 100, "k": 9, "temperature": 1.3, "sigma": 0.7, "gaussian": False, "in_logits": False}
    for dtype in (torch.int8, torch.int16, torch.int32):
        kept = said.float() if residuals else None
        reading = native.Reading(level, labels.to(dtype), kept, **shape, left=0.6, given=0.4, floor=0.01)
        found.append(reading(*near, logits))
    assert found[0].isfinite().all() and torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert not torch.equal(found[0], logits)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("memory", [rs.Memory, forgetful, compressed])
@pytest.mark.parametrize("outputs", [2, 37])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_attached_network_says_the_same(level, installed, library, reader, memory, outputs):
    if memory is compressed:
        pytest.importorskip("faiss")
    asked = [1, 1, 13, 40, 1, 64, 65]
    found = attached(memory, READERS[reader], outputs, 0, asked)
    installed(None)
    for now, plain in zip(found, attached(memory, READERS[reader], outputs, 0, asked)):
        torch.testing.assert_close(now, plain, atol=2e-5, rtol=1e-5)


def test_one_image_is_answered_alike_whatever_was_asked_before(installed):
    torch.manual_seed(0)
    model, x = Net(5).eval(), torch.randn(500, 4)
    with torch.no_grad():
        encoded = rs.Encoded(torch.tanh(model.hidden(x)).numpy(), model(x).numpy(), np.arange(500) % 5)
        reader = rs.ResMem(rs.Memory(encoded), k=9, sigma=1)
        with rs.attach(model, reader, key="head:input"):
            first = model(x[:3])
            for row in range(50):
                model(x[row : row + 1])
            assert torch.equal(model(x[:3]), first)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_said_as_ever(installed, bad):
    model, x = Net(3).eval(), torch.randn(100, 4)
    with torch.no_grad():
        encoded = rs.Encoded(torch.tanh(model.hidden(x)).numpy(), model(x).numpy(), np.arange(100) % 3)
        memory = rs.Memory(encoded)
        memory.search(encoded.keys, 1)
        with rs.attach(model, rs.ResMem(memory, k=3, sigma=1), key="head:input"):
            model.hidden.weight.fill_(bad)
            with pytest.raises(NonFiniteError, match="head:input"):
                model(x[:1])


def test_a_class_that_weighs_otherwise_is_asked_itself(installed):
    class Even(rs.ResMem):
        def weights(self, neighbours, queries):
            return torch.full(neighbours.rows.shape, 1 / neighbours.k)

    def said(cls):
        return attached(rs.Memory, lambda memory: cls(memory, k=9, sigma=0.1), 4, 0, [50, 1])[1]

    even, other = said(Even), said(rs.ResMem)
    installed(None)
    torch.testing.assert_close(even, said(Even))
    assert not torch.allclose(even, other, atol=1e-2)


def encoded(n: int, seed: int = 0, **columns) -> rs.Encoded:
    rng = np.random.default_rng(seed)
    keys, logits = np.float32(rng.standard_normal((n, 6))), np.float32(rng.standard_normal((n, 4)))
    return rs.Encoded(keys, logits, np.arange(n) % 4, columns=columns)


def at_once(reader: rs.ResMem | rs.KNNLM, q: int = 3) -> torch.Tensor | None:
    asked = encoded(q, 1)
    return reader.at_once(torch.from_numpy(asked.keys), asked.logits.dense())


@pytest.mark.parametrize("q", [1, 64])
@pytest.mark.parametrize("reader", [name for name in READERS if "floor" not in name])
def test_a_few_queries_are_answered_at_once(installed, reader, q):
    reader = READERS[reader](rs.Memory(encoded(300)))
    torch.testing.assert_close(at_once(reader, q).log_softmax(1).exp().numpy(), reader.predict_proba(encoded(q, 1)))
    installed(None)
    assert at_once(reader.with_params(k=reader.k - 1), q) is None


@pytest.mark.parametrize(
    "reader",
    [
        lambda m: rs.ResMem(m, k=3, sigma=1, skip=0.9),
        lambda m: rs.ResMem(m, k=3, sigma=1, class_weight={0: 2.0}),
        lambda m: rs.ResMem(m, k=3, sigma=1, kernel=Kernel("flat", lambda d, sigma: 0 * d)),
        lambda m: rs.KNNLM(m, k=3, sigma=1, lmbda=1),
        lambda m: rs.KNNLM(m, k=3, sigma=1, lmbda=0.9, epsilon=0.5),
        lambda m: rs.ResMem(rs.Memory(encoded(300), storage="top-m", m=2), k=3, sigma=1),
        lambda m: rs.ResMem(rs.Memory(encoded(300), normalise=True), k=3, sigma=1),
        lambda m: rs.ResMem(rs.Memory(encoded(300, weight=np.ones(300))), k=3, sigma=1),
    ],
)
def test_what_is_not_plain_is_left_to_others(installed, reader):
    assert at_once(reader(rs.Memory(encoded(300)))) is None


def test_more_queries_than_a_few_are_left_to_several_threads(installed):
    assert at_once(READERS["residuals"](rs.Memory(encoded(300))), 65) is None


def test_a_reader_in_use_can_be_copied_and_pickled(installed):
    model, x = Net(3).eval(), torch.randn(100, 4)
    with torch.no_grad():
        encoded = rs.Encoded(torch.tanh(model.hidden(x)).numpy(), model(x).numpy(), np.arange(100) % 3)
        reader = rs.ResMem(rs.Memory(encoded), k=3, sigma=1)
        with rs.attach(model, reader, key="head:input"):
            said = model(x[:50]), model(x[:1])[0]
        for other in (copy.deepcopy(reader), pickle.loads(pickle.dumps(reader))):
            with rs.attach(model, other, key="head:input"):
                assert torch.equal(model(x[:50]), said[0]) and torch.equal(model(x[:1])[0], said[1])


def test_the_switch_and_what_is_wrong_are_said_in_the_log(installed, monkeypatch, caplog, tmp_path):
    caplog.set_level(logging.DEBUG, "residua.native")
    assert "native kernels of" in caplog.text or native.kernels() is not None
    assert installed(None) is None and "not installed" in caplog.text
    (tmp_path / "no.so").write_text("no library")
    assert installed(tmp_path / "no.so") is None and "cannot be used" in caplog.text
    old = tmp_path / "old.cpp"
    old.write_text('extern "C" int residua_abi() { return -1; }')
    compile_to(tmp_path / "old.so", "-fPIC", "-shared", source=old)
    assert installed(tmp_path / "old.so") is None and f"ABI -1, this residua wants {native.ABI}" in caplog.text
    monkeypatch.setenv("RESIDUA_NATIVE", "0")
    native.kernels.cache_clear()
    assert native.kernels() is None and "RESIDUA_NATIVE=0" in caplog.text


@pytest.mark.slow
@needs_compiler
def test_sanitizers_find_nothing(tmp_path):
    """Every function over random sizes, at every level, in a program of its own."""
    driver, program = Path(__file__).parent / "fixtures" / "native_driver.cpp", tmp_path / "driver"
    try:
        compile_to(program, "-O1", "-g", "-fsanitize=address,undefined", f"-I{SOURCE.parent}", source=driver)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this compiler has no sanitizers: {error.stderr[-200:]!r}")
    done = subprocess.run([program], capture_output=True, text=True, env={"ASAN_OPTIONS": "detect_leaks=1"})
    assert done.returncode == 0 and "all right" in done.stdout, done.stdout + done.stderr
