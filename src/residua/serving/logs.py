"""What a server says of itself: a line of JSON for each event, and never a word of what somebody sent."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO


class Log(logging.Handler):
    """Writes events to a stream; as a handler, also what the HTTP server logs: its own words without their values."""

    def __init__(self, stream: TextIO):
        super().__init__(logging.WARNING)
        self._stream, self._writing = stream, threading.Lock()

    def event(self, what: str, **facts: Any) -> None:
        """Write one line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": what, **facts})
        with self._writing:
            print(line, file=self._stream, flush=True)

    def failure(self, error: BaseException, **facts: Any) -> None:
        """What failed inside, and where; what the error says may quote a request, and is left out."""
        frames = traceback.extract_tb(error.__traceback__)[-8:]
        where = [f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in frames]
        self.event("failure", error=type(error).__name__, where=where, **facts)

    def emit(self, record: logging.LogRecord) -> None:
        """A record of the HTTP server's."""
        if record.exc_info and record.exc_info[1] is not None:
            self.failure(record.exc_info[1])
        else:
            self.event("server", level=record.levelname.lower(), message=str(record.msg))

    def warned(self, message: Warning | str, category: type[Warning], filename: str, line: int, *_: Any) -> None:
        """As ``warnings.showwarning``: that there was one, and where."""
        self.event("warning", category=category.__name__, where=f"{Path(filename).name}:{line}")
