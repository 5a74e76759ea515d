"""The server in a process of its own: who reaches it, how it stops, and what is left when it is killed."""

import json
import os
import signal
import stat
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the server: pip install residua[serve]")

import residua as rs
from residua.serving import Limits, Server

NET = """
import torch


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).eval()
"""


def post(url, body, **headers):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture
def net(tmp_path, network, examples):
    """A folder with a memory of a network that ``net:model`` makes."""
    (tmp_path / "net.py").write_text(NET)
    rs.ResMem(rs.Memory(rs.encode(network, examples(60))), k=5, sigma=0.5).save(tmp_path / "mem")
    return tmp_path


@pytest.mark.slow
def test_it_is_killed_and_loses_nothing_then_stops_when_it_is_told(net, served):
    url, process = served("mem", "--model", "net:model", "--input-shape", "3")
    acknowledged = []

    def add():
        x = np.random.default_rng(1)
        try:
            while True:
                rows = [{"input": x.normal(size=3).tolist(), "label": 1}]
                acknowledged.extend(post(f"{url}/add", {"rows": rows})["ids"])
                if len(acknowledged) == 5:
                    process.kill()  # while others are on their way
        except (urllib.error.URLError, OSError):
            return

    adding = [threading.Thread(target=add) for _ in range(3)]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join(60)
    assert len(acknowledged) >= 5 and process.wait(60) == -signal.SIGKILL
    assert set(acknowledged) <= set(rs.Memory.load(net / "mem").ids.tolist())

    url, process = served("mem", "--model", "net:model", "--input-shape", "3")
    assert set(acknowledged) <= set(range(60, 60 + json.load(urllib.request.urlopen(f"{url}/memory"))["rows"]))
    process.terminate()
    assert process.wait(60) == 0
    events = [json.loads(line)["event"] for line in process.log.read_text().splitlines() if line.startswith("{")]
    assert events[0] == "start" and events[-1] == "stop"


@pytest.mark.slow
def test_a_signal_is_heard_from_the_first_moment(net, served):
    _, process = served("mem", "--model", "net:model", "--input-shape", "3")
    process.terminate()
    assert process.wait(30) in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_tenants_have_tokens_of_their_own(net, served):
    (net / "bob").mkdir()
    rs.load(net / "mem").save(net / "bob")
    tenants = ("--tenant", "ada=mem", "--tenant", "bob=bob")
    url, process = served(*tenants, "--model", "net:model", "--input-shape", "3", "--tokens", "tokens.json")
    tokens = json.loads((net / "tokens.json").read_text())
    assert stat.S_IMODE(os.stat(net / "tokens.json").st_mode) == 0o600
    assert set(tokens) == {"ada", "bob", "operator"} and len(set(tokens.values())) == 3
    bearer = {name: {"authorization": f"Bearer {token}"} for name, token in tokens.items()}
    row = {"input": [1, 2, 3], "label": 1}
    assert post(f"{url}/add", {"rows": [row]}, **bearer["ada"])["rows"] == 61
    assert post(f"{url}/forget", {"ids": [0]}, **bearer["bob"])["rows"] == 59
    assert len(rs.Memory.load(net / "mem")) == 61 and len(rs.Memory.load(net / "bob")) == 59
    with pytest.raises(urllib.error.HTTPError, match="401"):
        post(f"{url}/forget", {"ids": [0]})
    assert all(token not in process.log.read_text() for token in tokens.values())


def server(folder, **options):
    reader = rs.load(folder, live=True)
    return Server({"mem": (reader, folder)}, **options)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.7.7", "example.org"])
def test_an_address_that_others_reach_needs_tokens(folder, host):
    with pytest.raises(rs.errors.InputError, match="tokens"):
        server(folder, host=host)


def test_several_memories_need_tokens(folder):
    reader = rs.load(folder, live=True)
    with pytest.raises(rs.errors.InputError, match="tokens"):
        Server({"one": (reader, folder), "two": (reader, folder)})


def test_there_is_something_to_serve():
    with pytest.raises(rs.errors.ParameterError, match="no memory"):
        Server({})


def test_a_port_that_is_taken_is_said(folder):
    first = server(folder)
    port = int(first.url.rpartition(":")[2])
    with pytest.raises(rs.errors.InputError, match=f"port={port}"):
        server(folder, port=port)
    first.close()


@pytest.mark.parametrize("about", [{"rows": 0}, {"seconds": -1}, {"rate": 0.0}, {"wait": -0.1}])
def test_limits_are_above_nothing(about):
    with pytest.raises(rs.errors.ParameterError, match="limit"):
        Limits(**about)
