"""Who calls: a program of this machine, or a browser that another page, or another name of it, has sent here."""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request


def loopback_hosts(port: int) -> frozenset[str]:
    """By what names a server of this machine alone is called at `port`."""
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))


def stranger(request: Request, hosts: Collection[str]) -> tuple[int, str] | None:
    """The status and the reason by which a request is refused; None: it may pass.

    It must name one of `hosts`, so that no name that was bound to this machine leads here; and what says that another
    page sent it does not pass, unless somebody follows a link, to look.
    """
    given = request.headers.getlist("host")
    if len(given) != 1 or given[0].lower() not in hosts:
        return 421, "this server answers to its own address alone"
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    follows = request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"
    if origin not in (None, f"http://{given[0].lower()}") or (site in ("cross-site", "same-site") and not follows):
        return 403, "another page may not ask here"
    return None
