"""The machine a number was measured on, without its name or its paths."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = ("residua", "torch", "numpy", "scipy", "faiss-cpu", "scikit-learn", "torchvision", "safetensors")
# What a run writes does not make the code that ran another one.
WRITTEN = ("benchmarks/results", "results", "docs/results.md")


def machine() -> dict:
    """What a reader needs to compare a number with their own.

    Returns
    -------
    dict
        ``cpu`` (model name), ``cores`` (those this process may use), ``ram_gib``, ``gpu`` (name or None),
        ``os``, ``python``, ``versions`` (of the libraries that are installed), ``threads`` (torch's), and
        ``commit`` (of the checkout, with ``+`` when files differ from it; None outside a checkout).

    Examples
    --------
    >>> sorted(machine())
    ['commit', 'cores', 'cpu', 'gpu', 'os', 'python', 'ram_gib', 'threads', 'versions']
    """
    import torch

    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ram_gib": ram_gib(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "os": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }


def cpu_model() -> str:
    """The processor's model name, as the operating system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def ram_gib() -> float | None:
    """Physical memory in GiB; None where the operating system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError):
        return None


def versions() -> dict[str, str]:
    """Versions of the libraries that decide the numbers, for those that are installed."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit(package: Path = PACKAGE) -> str | None:
    """The commit of the checkout that `package` is in; ``+`` when tracked files differ from it, results aside.

    None when the package is installed: a repository that merely holds its site-packages says nothing about it.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=package, capture_output=True, text=True, check=True).stdout

    try:
        top = Path(git("rev-parse", "--show-toplevel").strip())
        if top.resolve() != package.parents[1]:
            return None
        aside = [f":(top,exclude){path}" for path in WRITTEN]
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", *aside)
        return git("rev-parse", "HEAD").strip() + ("+" if changed.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None
