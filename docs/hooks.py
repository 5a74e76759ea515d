"""How the site is made of the repository's own pages, which GitHub shows as they are.

README.md is the home page. A link that leaves docs/ brings its file into the site, where it is a file; of one to a
folder the words stay. A tutorial's blocks are followed by what they print, from its executed notebook in examples/.
"""

import json
import logging
import os
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "examples/models/README.md": "models.md",
}
LINK = re.compile(r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\((?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")
BLOCK = re.compile(r"^```(python|console)( lm)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
log = logging.getLogger("mkdocs.plugins.residua")


def on_files(files: Files, config) -> Files:
    """Adds the pages above docs/, and every file outside docs/ that a page links to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    linked = {
        target
        for file in files.documentation_pages()
        for _, _, path, _ in LINK.findall(file.content_string)
        if (target := _target(path, file.src_uri))
        and _where(target) not in files.src_uris
        and (ROOT / target).is_file()
    }
    for target in sorted(linked):
        files.append(File.generated(config, _where(target), abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page, config, files: Files) -> str:
    """The page as Python-Markdown reads it: its links, its folds, its outputs."""
    markdown = LINK.sub(lambda found: _link(found, page.file.src_uri, files), markdown)
    notebook = ROOT / "examples" / f"{Path(page.file.src_uri).stem}.ipynb"
    if page.file.src_uri.startswith("tutorials/") and notebook.is_file():
        markdown = with_outputs(markdown, json.loads(notebook.read_text(encoding="utf-8")))
    markdown = re.sub(r"^```(python|console) lm$", r"```\1", markdown, flags=re.MULTILINE)
    return markdown.replace("<details>", '<details markdown="1">')


def on_page_content(html: str, page, config, files: Files) -> str:
    """Docstrings are reStructuredText where they announce a block: Markdown needs no second colon."""
    if not page.file.src_uri.startswith("reference/"):
        return html
    return re.sub(r"::(?=</p>)", ":", html.replace("<p>::</p>", ""))


def on_post_page(output: str, page, config) -> str:
    """Nothing that a page shows may come from another machine."""
    for tag in ELSEWHERE.findall(output):
        if 'rel="canonical"' not in tag:
            log.warning("%s loads something from elsewhere: %s", page.file.src_uri, tag)
    return output


def with_outputs(markdown: str, notebook: dict) -> str:
    """A tutorial, each block followed by what its cell in the notebook shows: text, and pictures."""
    said = {"".join(cell["source"]): cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"}

    def followed(block: re.Match) -> str:
        return block[0] + _shown(said.get(re.sub(r"^\$ ", "!", block[3].rstrip(), flags=re.MULTILINE), []))

    return BLOCK.sub(followed, markdown)


def _shown(outputs: list[dict]) -> str:
    shown = []
    for output in outputs:
        data = output.get("data", {})
        text = "".join(output.get("text", data.get("text/plain", "")))
        if picture := data.get("image/png"):
            data = "".join(picture).strip().replace("\n", "")
            shown.append(f'<img alt="what the block above draws" src="data:image/png;base64,{data}">')
        elif text:
            shown.append(f"```{{.text .output}}\n{text.rstrip()}\n```")
    return "".join(f"\n\n{one}" for one in shown)


def _target(path: str, source: str) -> str:
    """Where a link leads, from the repository's root; nothing where it leaves it."""
    page = next((name for name, page in PAGES.items() if page == source), f"docs/{source}")
    found = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    return "" if found.startswith("..") else found


def _where(target: str) -> str:
    """What a file of the repository is called in the site."""
    if target in PAGES:
        return PAGES[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else f"repository/{target}"


def _link(found: re.Match, source: str, files: Files) -> str:
    mark, words, path, anchor = found.groups()
    target = _target(path, source)
    if target and (ROOT / target).is_dir():
        return words
    name = _where(target)
    if name not in files.src_uris:
        return found[0]  # mkdocs says so, and stops
    return f"{mark}[{words}]({os.path.relpath(name, posixpath.dirname(source) or '.')}{anchor or ''})"
