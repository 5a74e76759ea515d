import asyncio
import socket

import pytest

pytest.importorskip("starlette", reason="the servers: pip install residua[serve]")

from starlette.requests import Request

from residua.errors import InputError
from residua.web import TooLarge, bound, declared, limited, loopback_hosts, stranger, with_headers

HOST = "127.0.0.1:8123"


def request(method="POST", **headers):
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "headers": raw, "path": "/"})


def test_hosts_of_this_machine():
    assert loopback_hosts(8123) == {HOST, "localhost:8123", "[::1]:8123"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": HOST}, None),
        ({"host": "LOCALHOST:8123"}, None),
        ({"host": HOST, "origin": f"http://{HOST}"}, None),
        ({"host": HOST, "sec_fetch_site": "same-origin"}, None),
        ({}, 421),
        ({"host": "evil.example:8123"}, 421),
        ({"host": HOST, "origin": "http://evil.example"}, 403),
        ({"host": HOST, "origin": "http://localhost:8123"}, 403),
        ({"host": HOST, "sec_fetch_site": "cross-site"}, 403),
        ({"host": HOST, "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, 403),
    ],
)
def test_strangers(headers, status):
    found = stranger(request(**headers), loopback_hosts(8123))
    assert (found and found[0]) == status


def test_a_link_may_be_followed():
    assert stranger(request("GET", host=HOST, sec_fetch_site="cross-site", sec_fetch_mode="navigate"), {HOST}) is None


@pytest.mark.parametrize(("length", "read"), [("0", 0), ("17", 17), ("-1", 2**62), ("1e3", 2**62), ("9" * 30, 2**62)])
def test_declared_lengths(length, read):
    assert declared(request(content_length=length)) == read


def test_a_body_that_goes_on_is_cut():
    async def receive():
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    async def main():
        counted = limited(receive, 25)
        await counted()
        await counted()
        with pytest.raises(TooLarge, match="25 bytes"):
            await counted()

    asyncio.run(main())


def test_headers_do_not_take_the_place_of_an_answers_own():
    sent = []

    async def send(message):
        sent.append(message)

    async def main():
        out = with_headers(send, {"x-one": "1", "x-two": "2"})
        await out({"type": "http.response.start", "status": 200, "headers": [(b"x-one", b"own")]})
        await out({"type": "http.response.body", "body": b""})

    asyncio.run(main())
    assert sent[0]["headers"] == [(b"x-one", b"own"), (b"x-two", b"2")] and sent[1]["body"] == b""


def test_a_port():
    with bound("127.0.0.1", 0) as one:
        port = one.getsockname()[1]
        one.listen()
        with pytest.raises(InputError, match=f"port={port}"):
            bound("127.0.0.1", port)
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(InputError, match="port=70000"):
        bound("127.0.0.1", 70000)
