"""What is answered, and to whom: the server as another page, another program and a browser would ask it."""

import json

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the inspector's server: pip install residua[inspect]")

from starlette.testclient import TestClient

import residua as rs
from residua.inspector import guard
from residua.inspector.app import STATIC, application
from residua.inspector.session import Session

TOKEN, HOST = "t0ken-_x", "127.0.0.1:8123"
EDITS = {
    "forget": {"ids": ["3"]},
    "relabel": {"ids": ["3"], "label": "cat"},
    "undo": {},
    "keep": {},
}
ASKED = ["about", "status", "figures", "examples", "explanation?example=row-0", "memories"]


@pytest.fixture
def session(made, memory):
    return Session(rs.ResMem(memory, k=10, sigma=1.0), made(60, 1))


@pytest.fixture
def client(session):
    return TestClient(application(session, TOKEN, (HOST,)), base_url=f"http://{HOST}")


def tell(client, what, about, **headers):
    return client.post(f"/{TOKEN}/{what}", json=about, headers=headers)


@pytest.mark.parametrize("path", ASKED)
def test_what_is_asked_is_answered(client, path):
    response = client.get(f"/{TOKEN}/{path}")
    assert response.status_code == 200 and response.json()


def test_figures_over_the_wire_are_those_of_evaluate(client, session, made):
    told = client.get(f"/{TOKEN}/figures", params={"k": 5, "sigma": 0.5, "temperature": 2}).json()
    reader = session.reader.with_params(k=5, sigma=0.5, temperature=2)
    expected = rs.evaluate(reader, made(60, 1), label_knn=False)
    assert {one["key"]: one["value"] for one in told["changes"]} == {
        "gain": expected.gain,
        "tpr": expected.tpr,
        "fpr": expected.fpr,
    }


@pytest.mark.parametrize("path", STATIC)
def test_the_page_is_served_and_runs_nothing_inline(client, path):
    response = client.get(f"/{TOKEN}{path}")
    assert response.status_code == 200
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["x-content-type-options"] == "nosniff"
    for never in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", " onclick"):
        assert never not in response.text
    assert "http://" not in response.text.replace("http://www.w3.org/2000/svg", "") and "https://" not in response.text


@pytest.mark.parametrize(
    "host", ["evil.example:8123", "127.0.0.1", "127.0.0.1:8124", "127.0.0.1:8123.evil.example", "localhost:8123", ""]
)
def test_a_name_that_was_bound_to_this_machine_is_no_host(client, host):
    for request in (client.get(f"/{TOKEN}/about", headers={"host": host}), tell(client, "undo", {}, host=host)):
        assert request.status_code == 421 and "rows" not in request.text


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "%74" + TOKEN[1:] + "x", "é"])
@pytest.mark.parametrize("path", ["", "about", "page.js", "picture/memory/1"])
def test_without_the_token_there_is_nothing(client, session, token, path):
    response = client.get(f"/{token}/{path}")
    assert response.status_code == 404 and "whole address" in response.json()["error"]
    response = client.post(f"/{token}/forget", json=EDITS["forget"])
    assert response.status_code == 404 and 3 in session.memory


@pytest.mark.parametrize("what", EDITS)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": f"https://{HOST}"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},  # a form
    ],
)
def test_another_page_may_not_edit_even_with_the_token(client, session, what, headers):
    session.memory.forget(5)
    response = tell(client, what, EDITS[what], **headers)
    assert response.status_code == 403
    assert len(session.memory.log()) == 2 and 3 in session.memory


def test_another_page_may_not_ask_but_link(client):
    cross = {"sec-fetch-site": "cross-site"}
    assert client.get(f"/{TOKEN}/about", headers=cross).status_code == 403
    assert client.get(f"/{TOKEN}/", headers=cross | {"sec-fetch-mode": "navigate"}).status_code == 200
    allowed = client.get(f"/{TOKEN}/about")
    assert not [name for name in allowed.headers if name.startswith("access-control")]


def test_the_page_itself_may_edit(client, session):
    own = {"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}
    assert tell(client, "forget", EDITS["forget"], **own).json()["forgotten"] == 1
    assert tell(client, "undo", {}, **own).json()["rows"] == 300 and 3 in session.memory


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_is_no_simple_request(client, session, what):
    """What a form of another page can send has another type, and a look never edits."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        body = json.dumps(EDITS[what])
        response = client.post(f"/{TOKEN}/{what}", content=body, headers={"content-type": kind})
        assert response.status_code == 400
    assert client.get(f"/{TOKEN}/{what}").status_code == 405
    assert len(session.memory.log()) == 1


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"ids": 3}',
        '{"ids": [3]}',
        '{"ids": ["3x"]}',
        '{"ids": ["3"], "also": 1}',
        '{"ids": ["3"], "ids": ["4"]}',
        '{"ids": ["' + "9" * 40 + '"]}',
        '{"ids": ["9999999999999999999"]}',
        '{"ids": ["301"]}',
        '{"ids": ["3", "301"]}',
        "[" * 3000,
        '{"ids": ["3"], "note": {"a": 1}}',
    ],
)
def test_an_edit_that_is_not_understood_does_nothing(client, session, body):
    response = client.post(f"/{TOKEN}/forget", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400 and response.json()["error"]
    assert len(session.memory.log()) == 1


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd",
        "..%2f..%2fpage.html",
        "static/page.css",
        "%2e%2e/pyproject.toml",
        "picture/memory/../../etc/passwd",
        "picture/file/7",
        "picture/memory/7x",
        "picture/memory/" + "9" * 30,
        "picture/_pictures/7",
        "__init__.py",
        "//evil.example",
    ],
)
def test_no_path_leads_to_a_file(client, path):
    response = client.get(f"/{TOKEN}/{path}")
    assert response.status_code in (404, 400) and "root:" not in response.text and "[project]" not in response.text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("figures?k=-1", "k=-1"),
        ("figures?k=5.5", "5.5"),
        ("figures?k=301", "301"),
        ("figures?sigma=0", "sigma"),
        ("figures?sigma=nan", "finite"),
        ("figures?sigma=1e400", "finite"),
        ("figures?temperature=hot", "number"),
        ("figures?lmbda=0.5", "lmbda"),
        ("figures?__class__=1", "__class__"),
        ("examples?which=best", "which"),
        ("examples?page=-1", "page"),
        ("examples?page=x", "page"),
        ("explanation", "example"),
        ("explanation?example=row-99", "row 99"),
        ("memories?label=horse", "horse"),
        ("memories?id=x", "whole number"),
    ],
)
def test_what_cannot_be_asked_says_why(client, path, said):
    response = client.get(f"/{TOKEN}/{path}")
    assert response.status_code == 400 and said in response.json()["error"]


def test_too_much_is_not_read(client, monkeypatch):
    monkeypatch.setattr(guard, "FILE_BYTES", 1000)
    binary = {"content-type": "application/octet-stream"}
    for body in (b"x" * 1001, iter([b"x" * 600, b"x" * 600])):  # declared, and not
        response = client.post(f"/{TOKEN}/vector/upload", content=body, headers=binary)
        assert response.status_code == 413 and "1,000 bytes" in response.json()["error"]
    response = client.post(f"/{TOKEN}/vector/upload", content=b"1", headers=binary | {"content-length": "1" * 30})
    assert response.status_code == 413
    body = json.dumps({"ids": ["3"], "note": "x" * guard.JSON_BYTES})
    response = client.post(f"/{TOKEN}/forget", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 413


def test_markup_stays_text(client, session):
    session.memory.rename({7: ("<img src=x onerror=alert(1)>",)})
    response = client.get(f"/{TOKEN}/memories", params={"id": "7"})
    assert response.headers["content-type"] == "application/json"
    assert response.json()["rows"][0]["name"] == "<img src=x onerror=alert(1)>"
    tell(client, "relabel", {"ids": ["7"], "label": "<script>alert(1)</script>"})
    assert (
        client.get(f"/{TOKEN}/memories", params={"id": "7"}).json()["rows"][0]["label"] == "<script>alert(1)</script>"
    )


def test_ids_keep_all_their_digits(made):
    data = made(3)
    ids = [2**63 - 1, -(2**62) - 1, 2**53 + 1]
    session = Session(rs.ResMem(rs.Memory(rs.Encoded(data.keys, data.logits, data.labels, ids=ids)), k=2))
    client = TestClient(application(session, TOKEN, (HOST,)), base_url=f"http://{HOST}")
    assert [one["id"] for one in client.get(f"/{TOKEN}/memories").json()["rows"]] == [str(id) for id in ids]
    assert tell(client, "forget", {"ids": [str(2**53 + 1)]}).json()["forgotten"] == 1
    assert session.memory.ids.tolist() == ids[:2]


def test_pictures_are_small_png(made):
    images = np.zeros((20, 1500, 700, 3), np.uint8)
    session = Session(rs.ResMem(rs.Memory(made(20)), k=5), remembered=images)
    client = TestClient(application(session, TOKEN, (HOST,)), base_url=f"http://{HOST}")
    response = client.get(f"/{TOKEN}/picture/memory/3")
    assert response.headers["content-type"] == "image/png" and response.content[:4] == b"\x89PNG"
    assert response.headers["cache-control"].startswith("private")
    assert client.get(f"/{TOKEN}/picture/memory/30").status_code == 404


def test_a_save_of_another_process_is_not_lost(made, tmp_path):
    path = tmp_path / "mem"
    rs.Memory(made(40)).save(path)
    memory = rs.Memory.load(path)
    session = Session(rs.ResMem(memory, k=5), path=path)
    client = TestClient(application(session, TOKEN, (HOST,)), base_url=f"http://{HOST}")
    tell(client, "relabel", {"ids": ["3"], "label": "dog"})
    other = rs.Memory.load(path)
    other.forget([3, 4])
    other.save(path)
    assert client.get(f"/{TOKEN}/status").json()["elsewhere"]
    assert tell(client, "keep", {}).json()["edits"] == 0
    assert rs.Memory.load(path).ids.tolist() == [0, 1, 2, *range(5, 40)]


def test_what_cannot_be_saved_says_why(made, tmp_path):
    path = tmp_path / "mem"
    rs.Memory(made(40)).save(path)
    session = Session(rs.ResMem(rs.Memory(made(40)), k=5), path=path)  # which was never of this folder
    client = TestClient(application(session, TOKEN, (HOST,)), base_url=f"http://{HOST}")
    response = tell(client, "keep", {})
    assert response.status_code == 400 and response.json()["error"]
