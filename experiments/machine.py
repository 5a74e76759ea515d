"""The machine a number was measured on, without its name or its paths: for experiments and for benchmarks.

``python -P machine.py`` prints the installation's part as JSON: whatever version of residua an interpreter has.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
from pathlib import Path

LIBRARIES = [
    "residua",
    "torch",
    "numpy",
    "scipy",
    "faiss-cpu",
    "scikit-learn",
    "transformers",
    "torchvision",
    "safetensors",
]
# What a run writes does not make the code that ran another one.
WRITTEN = ("benchmarks/results", "results", "docs/results")


def machine() -> dict:
    """What a reader needs to compare a number with their own.

    Returns
    -------
    dict
        What ``hardware`` and ``installation`` give, ``gpu`` (name or None) and ``threads`` (torch's).

    Examples
    --------
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
    try:
        ram = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError):
        ram = None
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ram_gib": ram,
        "os": f"{platform.system()} {platform.machine()}",
    }


def cpu_model() -> str:
    """The processor's model name, as the operating system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def installation() -> dict:
    """``python``, ``versions`` of the libraries that are installed, and the ``commit`` that residua is imported at."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    package = importlib.util.find_spec("residua")
    return {
        "python": platform.python_version(),
        "versions": found,
        "commit": commit(Path(package.origin).resolve().parents[2]) if package else None,
    }


def commit(checkout: Path) -> str | None:
    """The commit of a checkout; ``+`` when tracked files differ from it, results aside.

    None where there is none: a repository that merely holds an installed package says nothing about it.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout

    try:
        if Path(git("rev-parse", "--show-toplevel").strip()).resolve() != checkout.resolve():
            return None
        aside = [f":(top,exclude){path}" for path in WRITTEN]
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", *aside)
        return git("rev-parse", "HEAD").strip() + ("+" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    print(json.dumps(installation()))  # noqa: T201
