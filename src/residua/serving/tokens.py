"""Who may ask what: a token for each tenant, kept in a file that nobody else reads."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from residua import strict
from residua.errors import InputError

OPERATOR = "operator"  # whose token shows the metrics, and no memory
LEAST = 16  # characters of a token


class Tokens:
    """Whose token it is. Only hashes are held, and all are compared, so that the time taken tells nothing."""

    def __init__(self, tokens: Mapping[str, str]):
        self._hashes = {name: _hash(token) for name, token in tokens.items()}

    def whose(self, token: str) -> str | None:
        """The name that a token stands for; None for none."""
        given, found = _hash(token), None
        for name, own in self._hashes.items():
            found = name if hmac.compare_digest(given, own) else found
        return found

    @classmethod
    def in_file(cls, path: Path, names: Iterable[str]) -> Tokens:
        """Those of a JSON file, an object of names and tokens; new ones are made for names that have none there.

        The file is written for its owner alone. ``InputError`` for one that others may read, or that is none.
        """
        try:
            known = _read(path)
        except FileNotFoundError:
            known = {}
        wanted = [*names, OPERATOR]
        lacks = [name for name in wanted if name not in known]
        if lacks:
            known |= {name: secrets.token_urlsafe(32) for name in lacks}
            _write(path, known)
        given = {name: known[name] for name in wanted}
        if len(set(given.values())) < len(given):
            raise InputError(f"{path} gives two names the same token; each needs its own")
        return cls(given)


def _read(path: Path) -> dict[str, str]:
    try:
        found = strict.read_json(path, most=2**20)
        strict.map_of(strict.text(rf"[\x21-\x7e]{{{LEAST},}}", f"a token of at least {LEAST} characters"))(found, "it")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no tokens: {error}; expected a JSON object of names and tokens") from error
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError(f"others may read {path}, which holds tokens: chmod 600 it")
    return found


def _write(path: Path, tokens: Mapping[str, str]) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(tokens, file, indent=1)
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"tokens cannot be written to {path}: {error}") from error


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
