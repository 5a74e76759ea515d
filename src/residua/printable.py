"""Values in words and in JSON types, and text that a terminal cannot be tricked with: names may hold anything."""

import math
from typing import Any


def one_line(text: str) -> str:
    r"""`text` with everything unprintable, line ends too, as backslash escapes.

    Examples
    --------
    >>> print(one_line("a\x1b[31mb\n"))
    a\x1b[31mb\n
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def count(number: int, noun: str) -> str:
    """``1 row``, ``2 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(number: int) -> str:
    """Bytes in the unit that people say: ``123.5 kB``."""
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= least:
            return f"{number / least:.1f} {unit}"
    return count(number, "byte")


def duration(seconds: float) -> str:
    """Seconds in the unit that people say: ``1.2 ms``.

    Examples
    --------
    >>> duration(0.00123), duration(2.5), duration(4e-6)
    ('1.23 ms', '2.5 s', '4 µs')
    """
    for unit, least in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= least:
            return f"{seconds / least:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def short(value: Any) -> str:
    """A reader, or a value of one of its parameters, in few digits and words."""
    value = value.to_json() if hasattr(value, "to_json") else value
    if isinstance(value, dict) and "shares" in value:  # an AdaptiveLambda
        return f"{min(value['shares']):.2g} to {max(value['shares']):.2g} by distance"
    if isinstance(value, dict) and "weights" in value:  # a gate's
        return f"by query, {sum(map(len, value['weights']))} weights and power {value['power']:.3g}"
    if isinstance(value, dict) and "reader" in value:
        return f"{value['reader']}({shown(value['params'])})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown(params: dict[str, Any]) -> str:
    """Parameters as ``k=3, sigma=0.1235``; those that are None are left out."""
    return ", ".join(f"{name}={short(value)}" for name, value in params.items() if value is not None)


def shown_recall(value: float, k: int, queries: int, n: int = 0, rows: int = 0, date: str = "") -> str:
    """What was measured of an index, when, and over how many remembered rows, in words."""
    when = f" ({count(n, 'row')}, {one_line(date)})" if date else ""
    return f"recall@{k} = {value:.3f} on {queries} queries near its keys{when}"


def shown_keys(kept: bool, dtype: str, normalised: bool) -> str:
    """Whether a memory's keys are kept beside its index, and are of length 1, in words."""
    length = "normalised (cosine), " if normalised else ""
    return length + (f"kept as {dtype}" if kept else "discarded: the index keeps codes of them")


def shown_memory(summary: dict[str, Any]) -> dict[str, str]:
    """What a memory's summary (``residua.memory.summary``) says, in words, by name."""
    forgotten = f" ({summary['forgotten']:,} more are forgotten)" if summary["forgotten"] else ""
    many = f", which stand for {summary['stands_for']:,}" if "stands_for" in summary else ""
    of_its_kind = {"rows": f"{summary['rows']:,}{many}{forgotten}"}
    if "documents" in summary:
        cut = summary.get("windowing") or {}
        of_its_kind = {
            "tokens": of_its_kind["rows"],
            "documents": f"{summary['documents']:,}",
            "windows": ", ".join(f"{name} {cut[name]}" for name in ("window", "stride") if name in cut) or "unknown",
            "model": summary.get("model") or "unknown",
        }
    columns, source, recall = summary["bytes_per_row"], summary["source"], summary["recall"]
    storage = {name: value for name, value in summary["storage"].items() if name not in ("name", "classes")}
    kept = shown_keys(summary["keys_kept"], summary["key_dtype"], summary.get("normalised", False))
    said = {
        "task": f"{summary['task']}, {count(summary['outputs'], 'output')}",
        **of_its_kind,
        "keys": f"{count(summary['dim'], 'number')} each, {kept}",
        "columns": ", ".join(summary["columns"]) or "none of their own",
        "bytes per row": f"{sum(columns.values()):,} ({', '.join(f'{name} {size}' for name, size in columns.items())})",
        "index": summary["index"] + (f", {shown_recall(**recall)}" if recall else ""),
        "storage": summary["storage"]["name"] + (f" ({shown(storage)})" if storage else ""),
        "made by": _made_by(source) if source else "unknown",
    }
    return {name: one_line(str(value)) for name, value in said.items()}


def _made_by(source: dict[str, Any]) -> str:
    said = f", outputs {source['output']}" if source.get("output") else ""  # not of earlier versions
    return f"{source['model']} ({source['dtype']}), key {source['key']}{said}"


def plain(value: Any) -> Any:
    """`value` in JSON types; arrays become lists, NaN and infinity null."""
    if hasattr(value, "tolist"):  # arrays and their scalars
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
