"""The machine a number was measured on, without its name or its paths: for experiments and for benchmarks.

``python -P machine.py`` prints the installation's part as JSON: whatever version of residua an interpreter has.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
from pathlib import Path

LIBRARIES = ["residua", "torch", "numpy", "scipy", "faiss-cpu", "scikit-learn", "transformers", "torchvision"]
LIBRARIES += ["safetensors"]
# What a run writes does not make the code that ran another one.
WRITTEN = ("benchmarks/results", "results", "docs/results")


def machine() -> dict:
    """What a reader needs to compare a number with their own: hardware, installation, ``gpu`` (name or None) and
    torch's ``threads``.

    >>> sorted(machine())
    ['commit', 'cores', 'cpu', 'gpu', 'os', 'python', 'ram_gib', 'threads', 'versions']
    """
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {**hardware(), "gpu": gpu, **installation(), "threads": torch.get_num_threads()}


def device_of(name: str) -> str:
    """The device called `name`; ``"auto"`` is a GPU where there is one."""
    import torch

    return name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def hardware() -> dict:
    """``cpu`` (model name), ``cores`` (those this process may use), ``ram_gib`` (None where unknown) and ``os``."""
    cpuinfo, ram = Path("/proc/cpuinfo"), None
    named = re.search(r"^model name.*?: *(.*\S)", cpuinfo.read_text("utf-8"), re.M) if cpuinfo.exists() else None
    with contextlib.suppress(AttributeError, ValueError):
        ram = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {
        "cpu": named[1] if named else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ram_gib": ram,
        "os": f"{platform.system()} {platform.machine()}",
    }


def installation() -> dict:
    """``python``, ``versions`` of the libraries that are installed, and the ``commit`` that residua is imported at."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    package = importlib.util.find_spec("residua")
    at = commit(Path(package.origin).resolve().parents[2]) if package else None
    return {"python": platform.python_version(), "versions": found, "commit": at}


def commit(checkout: Path) -> str | None:
    """The commit of a checkout; ``+`` when tracked files differ from it, results aside.

    None where there is none: a repository that merely holds an installed package says nothing about it.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != checkout.resolve():
            return None
        aside = [f":(top,exclude){path}" for path in WRITTEN]
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", *aside)
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    print(json.dumps(installation()))  # noqa: T201
