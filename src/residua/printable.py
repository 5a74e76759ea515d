"""Text that a terminal cannot be tricked with: file names and class names may hold anything."""


def one_line(text: str) -> str:
    r"""`text` with everything unprintable, line ends too, as backslash escapes.

    Examples
    --------
    >>> print(one_line("a\x1b[31mb\n"))
    a\x1b[31mb\n
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
