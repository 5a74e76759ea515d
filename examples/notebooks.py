"""``make examples``: each tutorial of docs/tutorials as an executed notebook, its text and its code unchanged.

Needs nbclient and ipykernel (``residua[docs]``). The site shows these outputs below the tutorial's blocks.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).resolve().parent
TUTORIALS = HERE.parent / "docs" / "tutorials"
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SITE = re.compile(r"\]\((\.\./)*([\w/-]+\.md)")  # links between pages of docs/


def cells(text: str) -> list:
    """A tutorial's cells: markdown, and code; the lines of a console block are shell commands."""
    made, at = [], 0
    for block in BLOCK.finditer(text):
        made.append(new_markdown_cell(linked(text[at : block.start()].strip())))
        code = block[2] if block[1] == "python" else re.sub(r"^\$ ", "!", block[2], flags=re.MULTILINE)
        made.append(new_code_cell(code.rstrip()))
        at = block.end()
    made.append(new_markdown_cell(linked(text[at:].strip())))
    return [cell for cell in made if cell.source]


def linked(text: str) -> str:
    """Links of a page of docs/tutorials, as they lead from examples/."""
    return SITE.sub(lambda found: f"](../docs/{'' if found[1] else 'tutorials/'}{found[2]}", text)


def executed(path: Path):
    """The notebook of a tutorial, run in a folder of its own that has examples/, as the tutorial's paths say."""
    notebook = new_notebook(cells=cells(path.read_text(encoding="utf-8")))
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same text is the same file
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(HERE)
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False)
        client.resources = {"metadata": {"path": folder}}
        client.execute()
    return notebook


def quiet(notebook):
    """Without what hangs on the machine: progress bars and other words on standard error."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.pop("language_info", None)
    return notebook


def main(names: list[str]) -> None:
    for path in sorted(TUTORIALS.glob("*.md")):
        if path.stem != "README" and (not names or path.stem in names):
            nbformat.write(quiet(executed(path)), HERE / f"{path.stem}.ipynb")
            print(f"{path.stem}.ipynb", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
