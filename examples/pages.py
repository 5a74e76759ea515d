"""Runs pages as a reader would: a page's python blocks and ``$ residua`` lines as one script, in a folder of its own.

``python examples/pages.py README.md docs/tutorials/*.md`` says how long each took; the first that fails ends it.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def script(text: str) -> str:
    """A page's blocks as one Python script.

    >>> print(script("```python\\na = 1\\n```\\nand then\\n```console\\n$ residua info mem/\\n```\\n"))
    a = 1
    __import__('subprocess').run(['residua', 'info', 'mem/'], check=True)
    """
    parts = []
    for language, code in BLOCK.findall(text):
        if language == "console":
            lines = (line[2:].split() for line in code.splitlines() if line.startswith("$ residua "))
            parts += [f"__import__('subprocess').run({line}, check=True)" for line in lines]
        else:
            parts.append(code.rstrip())
    return "\n".join(parts)


def run(page: Path) -> float:
    """Seconds that a page takes."""
    code, start = script(page.read_text(encoding="utf-8")), time.perf_counter()
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "page.py").write_text(code, encoding="utf-8")
        (Path(folder) / "examples").symlink_to(EXAMPLES)
        done = subprocess.run(
            [sys.executable, "page.py"],
            cwd=folder,
            env={**os.environ, "PATH": commands},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        sys.exit(f"{page} fails:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {run(Path(name)):.0f} s", flush=True)
