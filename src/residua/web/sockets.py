"""A port to listen at."""

from __future__ import annotations

import os
import socket

from residua.errors import InputError


def bound(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address, at a port of which 0 is any that is free; ``InputError`` where it cannot
    be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let another program take the port
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        raise InputError(f"port={port}: {error}; give another one, or 0 for any that is free") from error
    return found
