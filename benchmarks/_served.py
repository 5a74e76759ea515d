"""What is served to be measured, ``residua serve --model benchmarks._served:model``, and who asks it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import torch

WIDTH, CLASSES = 32, 10


def model() -> torch.nn.Module:
    """A network of 32 inputs and 10 classes, the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = torch.nn.Linear(WIDTH, 256), torch.nn.ReLU(), torch.nn.Linear(256, 64), torch.nn.ReLU()
        return torch.nn.Sequential(*layers, torch.nn.Linear(64, CLASSES)).eval()


def examples(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs float32 (n, 32), and classes that the network does not know."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, WIDTH)).astype(np.float32)
    return x, np.abs(x[:, :CLASSES]).argmax(axis=1)


class Client:
    """One connection, kept open; opened again where it broke."""

    def __init__(self, port: int):
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and answer; ``ConnectionError`` where the server is not there, or goes away."""
        sent = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: application/json\r\n"
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self._streams
            writer.write(f"{head}content-length: {len(sent)}\r\n\r\n".encode() + sent)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
            return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise ConnectionError(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
