import json
import socket
import threading
import urllib.error
import urllib.request

import pytest

pytest.importorskip("uvicorn", reason="the inspector's server: pip install residua[inspect]")

import residua as rs


def got(url):
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)


def test_it_is_served_on_this_machine_alone_until_it_is_closed(made, memory):
    with rs.inspect(rs.ResMem(memory, k=5), made(20, 1)) as page:
        assert page.url.startswith("http://127.0.0.1:") and len(page.url.rstrip("/").rsplit("/", 1)[1]) >= 40
        assert got(f"{page.url}status")["rows"] == 300
        port = int(page.url.split(":")[2].split("/")[0])
        with pytest.raises(urllib.error.HTTPError, match="404"):
            got(f"http://127.0.0.1:{port}/status")
        assert page.url in page._repr_html_()
        with pytest.raises(rs.errors.InputError, match=f"port={port}"):
            rs.inspect(rs.ResMem(memory, k=5), port=port)
    with pytest.raises(urllib.error.URLError):
        got(f"{page.url}status")


def test_two_pages_have_two_tokens(memory):
    with rs.inspect(rs.ResMem(memory)) as one, rs.inspect(rs.ResMem(memory)) as other:
        assert one.url.rsplit("/", 2)[1] != other.url.rsplit("/", 2)[1]


def test_many_ask_while_others_edit(made, memory):
    failed = []

    def ask(path):
        try:
            for _ in range(8):
                got(path)
        except (urllib.error.URLError, ValueError) as error:
            failed.append(error)

    with rs.inspect(rs.ResMem(memory, k=5), made(200, 1)) as page:
        paths = ["figures?k=3", "figures?temperature=2", "explanation?example=row-3", "memories?label=cat", "examples"]
        threads = [threading.Thread(target=ask, args=(page.url + path,)) for path in paths]
        for thread in threads:
            thread.start()
        for id in range(20):
            memory.forget(id)
        memory.undo()
        for thread in threads:
            thread.join()
        told = got(f"{page.url}figures")
    assert not failed
    expected = rs.evaluate(rs.ResMem(memory, k=5, sigma=page.session.reader.sigma), made(200, 1), label_knn=False)
    assert told["measures"][0]["memory"] == expected.accuracy


def test_a_request_that_is_no_request_ends_nothing(made, memory):
    with rs.inspect(rs.ResMem(memory, k=5)) as page:
        port = int(page.url.split(":")[2].split("/")[0])
        for sent in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000, b"\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
                caller.sendall(sent)
        assert got(f"{page.url}status")["rows"] == 300


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "page.css/../../../etc/passwd", "..%2f..%2fetc/passwd", "%00", "."]
)
def test_a_path_as_no_browser_sends_it_leads_nowhere(memory, path):
    with rs.inspect(rs.ResMem(memory, k=5)) as page:
        _, _, host, token, _ = page.url.split("/")
        port = int(host.split(":")[1])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
            caller.sendall(f"GET /{token}/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: caller.recv(65536), b""))
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")) and b"root:" not in answer
