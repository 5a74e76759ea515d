import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import residua as rs

CLASSES = ("cat", "dog", "fox")
HOST = "127.0.0.1:8123"


@pytest.fixture(scope="session")
def rows():
    """``rows(n, seed)``: rows around three centres, whose model knows them half."""

    def made(n, seed=0, task="classification"):
        rng, centres = np.random.default_rng(seed), np.random.default_rng(9).normal(size=(3, 4))
        labels = rng.integers(0, 3, n)
        keys = (centres[labels] + rng.normal(size=(n, 4))).astype(np.float32)
        said = (keys @ centres.T + 1.5 * rng.normal(size=(n, 3))).astype(np.float32)
        if task == "regression":
            targets = keys @ np.arange(4.0) + rng.normal(size=n)
            return rs.Encoded(keys, (targets + 3 * rng.normal(size=n))[:, None], targets, task="regression")
        if task == "multi-label":
            return rs.Encoded(keys, said, (keys[:, :3] > 0).astype(np.int8), task="multi-label")
        return rs.Encoded(keys, said, labels, classes=CLASSES)

    return made


@pytest.fixture
def folder(tmp_path, rows):
    """A memory of bare arrays, with its reader."""
    rs.ResMem(rs.Memory(rows(60)), k=5, sigma=1.0).save(tmp_path / "mem")
    return tmp_path / "mem"


@pytest.fixture(scope="session")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).eval()


@pytest.fixture(scope="session")
def examples():
    """``examples(n, seed)``: inputs float32 (n, 3), and labels."""

    def made(n, seed=0):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, 3)).astype(np.float32)
        return x, (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0.5)

    return made


@pytest.fixture
def log():
    """What was logged: ``log.stream``, and ``log()``, its events."""

    class Events:
        stream = io.StringIO()

        def __call__(self, what=None):
            found = map(json.loads, self.stream.getvalue().splitlines())
            return [one for one in found if what in (None, one["event"])]

    Events.stream = io.StringIO()
    return Events()


@pytest.fixture
def client(log):
    """``client(folder, model=…, limits=…, tokens=…)``: asks a server of these folders, in this process."""
    pytest.importorskip("prometheus_client", reason="the server: pip install residua[serve]")
    from contextlib import ExitStack

    from starlette.testclient import TestClient

    from residua.serving.app import application
    from residua.serving.logs import Log
    from residua.serving.service import Service
    from residua.serving.tenants import Tenant
    from residua.serving.tokens import Tokens

    with ExitStack() as stack:

        def made(*folders, tokens=None, **options):
            tenants = [Tenant(one.name, rs.load(one, live=True), one) for one in folders]
            service = Service(tenants, **options)
            app = application(service, None if tokens is None else Tokens(tokens), {HOST}, Log(log.stream))
            asked = TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False)
            asked.service = service
            return stack.enter_context(asked)

        yield made


@pytest.fixture
def given():
    """``given(enc)``: rows as JSON."""

    def made(enc, labels=False, first=None):
        found = [
            {"key": key, "logits": said}
            for key, said in zip(enc.keys.tolist(), enc.logits.dense().tolist(), strict=True)
        ]
        for place, one in enumerate(found):
            if labels:
                one["label"] = enc.labels[place].tolist()
            if first is not None:
                one["id"] = first + place
        return found

    return made


@pytest.fixture
def served(tmp_path):
    """``served(*arguments, cwd=…)``: ``residua serve`` in a process of its own; its address and the process."""
    pytest.importorskip("prometheus_client", reason="the server: pip install residua[serve]")
    begun = []

    def start(*arguments, cwd=tmp_path):
        log = open(tmp_path / f"log{len(begun)}", "w+")  # noqa: SIM115 (closed below)
        path = os.pathsep.join([str(Path(rs.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "residua", "serve", *map(str, arguments), "--port", "0"],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        begun.append((process, log))
        url = process.stdout.readline().strip()  # which it prints before it listens
        assert url.startswith("http"), Path(log.name).read_text()
        process.log = Path(log.name)
        return url, process

    yield start
    for process, log in begun:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        log.close()
