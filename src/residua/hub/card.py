"""The card of a memory's folder, its ``README.md``: what is remembered, whose it is, and what can be done about it.

All of it is what the folder's manifest says, and what an evaluation found. Names are the user's, and may hold anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from residua.core.atomic import atomic_write
from residua.folder import read_manifest, reader_in
from residua.printable import count, one_line, short, shown_memory

CARD = "README.md"
BEGIN, END = "<!-- residua: written by save_pretrained, and anew each time -->", "<!-- residua: the end of it -->"
TAGS = {"ResMem": "resmem", "KNNLM": "knn-lm"}
CLASSES = 20  # names that are shown
# What may begin something in Markdown, in HTML or in the mathematics that the hub renders.
_MARKUP = re.compile(r"[&<>`*_\[\]|~\\@$]|:(?=//)")
_KINDS = {"classification": "classifier", "multi-label": "classifier", "regression": "regressor"}

CODE = """```python
import residua as rs

{load}("FOLDER OR REPOSITORY")
```"""
RIGHTS = """Whoever can write into this folder, or push to this repository, can change what is remembered; nobody else.
`rs.Memory.open(folder)` edits a folder in place, one writer at a time, and `residua log folder/` says what was done
to it, and when. Every file's checksum is in `manifest.json`: `residua verify folder/` reads them all. Checksums show
damage; they do not show who wrote. Loading runs no code of this folder's: nothing in it is pickled."""
ERASE = """- `memory.forget(ids)` hides rows from every answer at once. Their keys and labels stay in the files, so that
  `undo` can bring them back.
- `memory.purge(folder)`, or `residua purge folder/`, removes forgotten rows from every file, and searches each byte to
  show that they are gone.
- Copies are not reached: earlier commits of a repository, what others downloaded, and caches keep what was there.
  On the hub push again, then `huggingface_hub.super_squash_history(repo_id)`, and have copies deleted.
- What a base model learned from these rows by its own training stays in the base model."""


class Findings(Protocol):
    """What ``rs.evaluate`` returns."""

    @property
    def n(self) -> int: ...
    @property
    def verdict(self) -> str: ...
    def metrics(self) -> dict[str, float]: ...


def write_card(
    folder: Path, *, base_model: str | None = None, license: str | None = None, evaluation: Findings | None = None
) -> None:
    """Write ``README.md`` into the folder of a memory that was just saved.

    Of one that is there, what stands between the two marks of an earlier card is written anew, and all else stays; one
    without marks is somebody's own, and stays as it is.
    """
    file = folder / CARD
    said = body(folder, evaluation)
    if file.exists():
        own = file.read_bytes().decode("utf-8", "surrogateescape")
        before, begun, rest = own.partition(BEGIN)
        _, ended, after = rest.partition(END)
        if not (begun and ended):
            return
        text = before + said + after
    else:
        text = f"{front_matter(folder, base_model, license, evaluation)}\n{said}\n"
    with atomic_write(file) as part:
        part.write_bytes(text.encode("utf-8", "surrogateescape"))


def front_matter(
    folder: Path, base_model: str | None = None, license: str | None = None, evaluation: Findings | None = None
) -> str:
    """What the hub searches by: YAML, whose values are written as JSON, which is YAML too."""
    manifest = read_manifest(folder)
    reader, task = reader_in(folder, manifest), manifest["schema"]["task"]
    tags = ["residua", "memory", "retrieval", task]
    if reader and reader["reader"] in TAGS:
        tags.append(TAGS[reader["reader"]])
    said: dict[str, Any] = {"library_name": "residua", "tags": tags}
    if base_model is not None:
        said["base_model"] = base_model
    if license is not None:
        said["license"] = license
    if evaluation is not None:
        said["metrics"] = [name for name, _, _ in _measured(evaluation)]
    return "\n".join(["---", *(f"{name}: {_json(value)}" for name, value in said.items()), "---"])


def body(folder: Path, evaluation: Findings | None = None) -> str:
    """The part between the marks."""
    manifest = read_manifest(folder)
    reader, summary = reader_in(folder, manifest), manifest["summary"]
    kind = "language model" if "documents" in summary else _KINDS[manifest["schema"]["task"]]
    what = f"An explicit memory for a {kind}{', and a reader of it' if reader else ''}"
    load = "reader = rs.from_pretrained" if reader else "memory = rs.Memory.from_pretrained"
    facts = shown_memory(summary) | ({"reader": short(reader)} if reader else {})
    facts |= _classes(manifest["schema"].get("classes"))
    parts = [
        BEGIN,
        "# A memory of examples",
        f"{what}: examples that a trained model saw are kept as they were (an inner layer's output, the label, what "
        "the model said), and correct the model where a new example is near them. The model itself is not in here.",
        CODE.format(load=load),
        "## What is in it",
        _table(("", ""), facts.items()),
        "## Whose it is",
        _whose(manifest["schema"].get("source")),
        "## Where it lies, and how it persists",
        "In this folder alone: the rows and the log of edits in `.safetensors` files, and `manifest.json`, which names "
        "them and is written last, so that a save that fails leaves the old state. A loaded memory is a copy in RAM; "
        f"its edits last when it is saved. {_forgotten(summary)}",
        "## Who may write",
        RIGHTS,
        "## How to erase",
        ERASE,
    ]
    if evaluation is not None:
        rows = [(name, f"{base:.4g}", f"{now:.4g}") for name, base, now in _measured(evaluation)]
        measured = f"On {count(evaluation.n, 'row')}. {escape(evaluation.verdict)}"
        parts += ["## What it changes", _table(("", "model alone", "with memory"), rows), measured]
    return "\n\n".join([*parts, END])


def escape(text: str) -> str:
    r"""`text` on one line, of which Markdown, HTML and TeX make nothing but itself.

    Examples
    --------
    >>> escape("fc_1 <b>\n---")
    'fc&#95;1 &#60;b&#62;&#92;n---'
    """
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", one_line(text))


def _json(value: Any) -> str:
    whole = [one_line(one) for one in value] if isinstance(value, list) else one_line(value)
    return json.dumps(whole, ensure_ascii=False)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [" | ".join(escape(str(cell)) for cell in row) for row in (head, *rows)]
    lines.insert(1, " | ".join("---" for _ in head))
    return "\n".join(f"| {line} |" for line in lines)


def _classes(classes: list[str] | None) -> Mapping[str, str]:
    if not classes:
        return {}
    more = f", and {len(classes) - CLASSES:,} more" if len(classes) > CLASSES else ""
    return {"classes": ", ".join(classes[:CLASSES]) + more}


def _whose(source: dict[str, Any] | None) -> str:
    made = "The keys came as bare arrays: which model made them is not known, and is not checked."
    if source is not None:
        made = (
            f"The keys were made by a model that calls itself {escape(source['name'])}. The memory knows that model by "
            "a fingerprint of its function, and refuses another."
        )
    return (
        f"{made} Each row is an example of somebody's, and a key can say much of the example that it was made from: "
        "share a memory only where you may share its examples."
    )


def _forgotten(summary: dict[str, Any]) -> str:
    if not summary["forgotten"]:
        return "No forgotten row is in the files."
    is_are = "is" if summary["forgotten"] == 1 else "are"
    return f"**{count(summary['forgotten'], 'forgotten row')} {is_are} still in the files.**"


def _measured(found: Findings) -> list[tuple[str, float, float]]:
    """Each measure that is there of the model alone and of the reader: name, base, reader."""
    values = found.metrics()
    names = [name.removeprefix("base_") for name in values if name.startswith("base_")]
    return [(name, values[f"base_{name}"], values[name]) for name in names if name in values]
