"""Questions and answers out of a package's documentation: its *See Also* entries say in other words what a docstring
says, and the definition is the answer."""

import ast
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

ENTRY = re.compile(r"^ *([A-Za-z_][\w.]*) ?: (.+(?:\n {4,}(?! *[\w.]+ ?: ).+)*)", re.MULTILINE)
SECTION = re.compile(r"^ *See Also\n *-+\n(.*?)(?=^\s*\n *\w[\w ]*\n *-{3,}|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Question:
    """What is asked, and the name of what is meant."""

    words: str
    name: str


def definitions(files: list[tuple[str, Path]]) -> dict[str, tuple[str, str]]:
    """By the name of each public class or function of a module: the summary of its docstring, and how it is defined,
    such as ``def r2_score(y_true, y_pred)``. Names that mean several things are left out."""
    found: dict[str, tuple[str, str]] = {}
    several = set()
    for node, text in _documented(files):
        if node.name in found:
            several.add(node.name)
        found[node.name] = one_line(text.split("\n\n")[0]), _defined(node)
    return {name: said for name, said in found.items() if name not in several and said[0]}


def questions(files: list[tuple[str, Path]], known: dict[str, tuple[str, str]]) -> list[Question]:
    """What *See Also* entries say of `known` names, in other words than their own summary; each saying once, in an
    order apart from the names."""
    found = {}
    for _, text in _documented(files):
        for section in SECTION.findall(text):
            for name, words in ENTRY.findall(section):
                name, words = name.split(".")[-1], one_line(words)
                if name in known and plain(words) != plain(known[name][0]):
                    found[plain(words)] = Question(words, name)
    return sorted(found.values(), key=lambda one: hashlib.sha256(one.words.encode()).digest())


def one_line(text: str) -> str:
    """A text's words with one space between them."""
    return " ".join(text.split())


def plain(words: str) -> str:
    """Its letters and digits, in small letters.

    >>> plain("The R^2 score.")
    'the r 2 score'
    """
    return " ".join(re.findall(r"[a-z0-9]+", words.lower()))


def _documented(files: list[tuple[str, Path]]):
    for _, path in files:
        for node in ast.parse(path.read_text(encoding="utf-8", errors="replace")).body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if public and (text := ast.get_docstring(node)):
                yield node, text


def _defined(node: ast.FunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}({', '.join(map(ast.unparse, node.bases))})"
    return f"def {node.name}({ast.unparse(node.args)})"
