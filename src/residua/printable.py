"""Values in words and in JSON types, and text that a terminal cannot be tricked with: names may hold anything."""

import math


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


def short(value) -> str:
    """A reader, or a value of one of its parameters, in few digits and words."""
    value = value.to_json() if hasattr(value, "to_json") else value
    if isinstance(value, dict) and "shares" in value:  # an AdaptiveLambda
        return f"{min(value['shares']):.2g} to {max(value['shares']):.2g} by distance"
    if isinstance(value, dict) and "reader" in value:
        return f"{value['reader']}({shown(value['params'])})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown(params: dict) -> str:
    """Parameters as ``k=3, sigma=0.1235``; those that are None are left out."""
    return ", ".join(f"{name}={short(value)}" for name, value in params.items() if value is not None)


def plain(value):
    """`value` in JSON types; arrays become lists, NaN and infinity null."""
    if hasattr(value, "tolist"):  # arrays and their scalars
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
