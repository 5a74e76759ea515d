"""On a real Ray cluster of two nodes on this machine, one of which is killed: what a single process makes."""

import functools
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import residua as rs
from residua.errors import EncodeError, InputError, LabelError, MemoryFileError, ParameterError, SourceMismatchError

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray", reason="ray is not installed: make ray")

from ray.cluster_utils import Cluster  # noqa: E402

from residua.integrations import ray as with_ray  # noqa: E402

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("default"),  # Ray's own
]

ROOT = Path(__file__).parents[2]
ROWS, WIDTH, CLASSES, BATCH = 1200, 6, 3, 16
# Dead nodes are noticed in seconds.
NOTICE = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster():
    """Its head, at 127.0.0.2: what Ray takes for this machine's own loopback, 127.0.0.1, it replaces by its address."""
    made = Cluster(
        initialize_head=True, head_node_args={**NODE, "node_ip_address": "127.0.0.2", "_system_config": NOTICE}
    )
    try:
        ray.init(address=made.address, _node_ip_address="127.0.0.2", log_to_driver=False)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def second(cluster):
    """A function that kills the cluster's second node as a power cut does."""
    node = cluster.add_node(**NODE, node_ip_address="127.0.0.3")

    def kill():
        if node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=False)

    yield kill
    kill()


def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(int) + (x[:, 2] > 1), np.arange(ROWS)[::-1] + 7


def dataset(spoilt: Path | None = None, **changed):
    """Read on the cluster, so that what a node held is read again; its pieces are no multiples of batches. Its last
    label is wrong where a file `spoilt` exists."""
    x, y, number = rows()
    columns = {"x": x, "label": y, "number": number} | changed

    def read(batch):
        found = {name: column[batch["id"]] for name, column in columns.items()}
        if spoilt is not None and spoilt.exists():
            found["label"] = found["label"] + (batch["id"] == ROWS - 1) * CLASSES
        return found

    return ray.data.range(ROWS, override_num_blocks=7).map_batches(read, batch_format="numpy")


def maker(seed: int = 0, seen: Path | None = None, dies_at: float | None = None, pause: float = 0.0):
    """Makes a network, which notes in a folder where it is asked, waits there for one of the other node's when it finds
    "both", and may kill its process the first time that it sees a number."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.inner, self.outer = nn.Linear(WIDTH, 16), nn.Linear(16, CLASSES)

        def forward(self, x):
            time.sleep(pause)
            if seen is not None:
                (seen / f"{ray.util.get_node_ip_address()}-{time.monotonic_ns()}").touch()
                until = time.monotonic() + 30
                while (seen / "both").exists() and not at_work(seen, 1) and time.monotonic() < until:
                    time.sleep(0.05)
                if dies_at is not None and len(x) == BATCH and (x == dies_at).any() and not (seen / "died").exists():
                    (seen / "died").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            return self.outer(torch.relu(self.inner(x)))

    return Network


def at_work(seen: Path, each: int) -> bool:
    """Whether both nodes have been asked so often."""
    return all(len(list(seen.glob(f"127.0.0.{node}-*"))) >= each for node in (2, 3))


def joined(batches) -> dict[str, np.ndarray]:
    batches = list(batches)
    found = {name: [getattr(batch, name) for batch in batches] for name in ("keys", "labels", "ids")}
    found["logits"] = [batch.logits.dense() for batch in batches]
    return {name: np.concatenate(parts) for name, parts in found.items()}


def test_rows_are_those_of_one_process_whoever_dies(cluster, second, tmp_path, monkeypatch):
    monkeypatch.setattr(with_ray, "EACH", 2)
    x, y, number = rows()
    alone = rs.encode(maker()(), (x, y), ids=number, batch_size=BATCH)
    make = maker(seen=tmp_path, dies_at=float(x[700, 0]), pause=0.02)
    how = {"inputs": "x", "labels": "label", "ids": "number"}
    encoded = with_ray.encode(make, dataset(tmp_path / "spoilt"), **how, batch_size=BATCH, workers=2)
    assert (encoded.task, encoded.n_outputs, encoded.source.key) == ("classification", CLASSES, "outer:input")
    for file in tmp_path.iterdir():
        file.unlink()
    (tmp_path / "both").touch()
    found, killed = [], False
    for batch in encoded:
        found.append(batch)
        if not killed and at_work(tmp_path, 3):
            second()
            killed = True
    assert killed and (tmp_path / "died").exists()
    assert [len(batch) for batch in found] == [2 * BATCH] * (ROWS // (2 * BATCH)) + [ROWS % (2 * BATCH)]
    for name, column in joined(found).items():
        assert np.array_equal(column, joined([alone])[name]), name

    reader, expected = (rs.ResMem(rs.Memory(batches), k=9) for batches in (found, alone))
    assert (reader.memory.ids == expected.memory.ids).all() and (reader.memory.labels == expected.memory.labels).all()
    assert rs.evaluate(reader, iter(found)).accuracy == rs.evaluate(expected, alone).accuracy

    # Read and encoded again, by the node that is left.
    (tmp_path / "spoilt").touch()
    with pytest.raises(LabelError, match="out of range"):
        rs.evaluate(reader, encoded)


def test_a_memory_of_texts_is_that_of_one_process_whoever_dies(cluster, second, tmp_path, tiny_model, tiny_tokenizer):
    for saved in (tiny_model("gpt2"), tiny_tokenizer):
        saved.save_pretrained(tmp_path / "model")
    texts = [(f"text {i}", f"def add_{i}(first, second):\n    return first + {i} * second\n" * 20) for i in range(24)]
    seen = tmp_path / "seen"
    seen.mkdir()

    def make(worker: bool = True):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from residua.memory import blocks

        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
        if worker:
            blocks.EACH, forward, here = 2, model.forward, ray.util.get_node_ip_address()

            @functools.wraps(forward)
            def noted(*args, **named):
                (seen / f"{here}-{time.monotonic_ns()}").touch()
                until = time.monotonic() + 30
                while not at_work(seen, 1) and time.monotonic() < until:
                    time.sleep(0.05)
                time.sleep(0.05)
                return forward(*args, **named)

            model.forward = noted
        return model, AutoTokenizer.from_pretrained(tmp_path / "model")

    def watch():
        while not done.wait(0.05):
            if at_work(seen, 6):
                second()
                killed.set()
                return

    how = {"window": 32, "batch_size": 4, "storage": "full"}
    killed, done = threading.Event(), threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        memory = with_ray.remember(make, texts, tmp_path / "memory", workers=2, **how)
    finally:
        done.set()
        watcher.join()
    assert killed.is_set() and not list(tmp_path.glob("*.blocks"))
    alone = rs.lm.remember(*make(worker=False), texts, tmp_path / "alone", **how)
    assert_alike(memory, alone)
    assert_alike(rs.Memory.load(tmp_path / "memory"), alone)
    with pytest.raises(MemoryFileError, match="finished memory"):
        with_ray.remember(make, texts, tmp_path / "memory", workers=2, **how)


def assert_alike(one: rs.Memory, other: rs.Memory):
    assert len(one) == len(other) and (one.names, one.about) == (other.names, other.about)
    for name in ("label", "id", *one.schema.columns):
        assert torch.equal(one.column(name)[:], other.column(name)[:]), name
    assert (one.keys == other.keys).all() and torch.equal(one.logits.dense(), other.logits.dense())


def test_what_is_wrong_is_said_here(cluster):
    made, how = maker(), {"inputs": "x", "labels": "label", "batch_size": 100, "workers": 1}
    with pytest.raises(InputError, match="there is no 'y'"):
        with_ray.encode(made, dataset(), **how | {"labels": "y"})
    with pytest.raises(InputError, match="'x' must be of numbers"):
        with_ray.encode(made, dataset(x=np.array(["a"] * ROWS)), **how)
    with pytest.raises(EncodeError, match=r"made a tuple; expected a torch\.nn\.Module; texts are remembered by"):
        with_ray.encode(lambda: (1, 2), dataset(), **how)
    with pytest.raises(InputError, match="no rows"):
        with_ray.encode(made, ray.data.range(0), **how)
    alone = rs.encode(maker(seed=1)(), rows()[:2])
    with pytest.raises(SourceMismatchError):
        with_ray.encode(made, dataset(), **how, like=alone)

    def broken():
        raise InputError("no weights here")

    with pytest.raises(InputError, match="no weights here"):
        with_ray.remember(broken, ["a text"], Path("mem"), workers=2)


@pytest.mark.parametrize(
    ("how", "match"), [({"workers": 0}, "workers=0"), ({"workers": 1, "batch_size": 1.5}, "batch_size=1.5")]
)
def test_parameters_are_checked(cluster, how, match):
    with pytest.raises(ParameterError, match=match):
        with_ray.encode(maker(), ray.data.range(3), **how)


def test_other_data_are_refused():
    with pytest.raises(InputError, match=r"expected a ray\.data\.Dataset"):
        with_ray.encode(maker(), rows()[0], workers=1)
    with pytest.raises(InputError, match="can be read once"):
        with_ray.remember(maker, iter(["a"]), "mem", workers=1)
    with pytest.raises(ParameterError, match="workers=True"):
        with_ray.remember(maker, ["a"], "mem", workers=True)
