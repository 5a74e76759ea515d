"""The site and the examples are whole, as far as can be seen without building them (``make docs``)."""

import doctest
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import residua as rs
from docs.figures import draw
from experiments.cifar100 import resnet

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "examples/models/README.md"]
PAGES += sorted(page.relative_to(ROOT).as_posix() for page in DOCS.glob("**/*.md"))
TUTORIALS = sorted(page.stem for page in DOCS.glob("tutorials/*.md") if page.stem != "README")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(#[^)\s]*)?\)")


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page: str) -> set[str]:
    """What GitHub and the site call a page's headings."""
    prose = re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def in_menu(entry) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for one in (entry.values() if isinstance(entry, dict) else entry) for page in in_menu(one)]


def test_the_menu_has_every_page_once():
    listed = in_menu(yaml.safe_load(text("mkdocs.yml"))["nav"])
    above = {"index.md", "changelog.md", "contributing.md", "models.md"}  # docs/hooks.py makes these
    assert sorted(listed) == sorted({*above, *(page.relative_to(DOCS).as_posix() for page in DOCS.glob("**/*.md"))})


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for path, anchor in LINK.findall(re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL)):
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {path}"
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), f"{page} links to {path}{anchor}"


def test_nothing_is_fetched_from_elsewhere():
    theme = yaml.safe_load(text("mkdocs.yml"))["theme"]
    assert theme["font"] is False
    assert not re.findall(r"url\(|@import|https?:", text("docs/stylesheets/site.css"))


def test_the_reference_has_every_public_name_once():
    listed = [
        name for page in DOCS.glob("reference/*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)
    ]
    assert len(listed) == len(set(listed))
    assert {f"residua.{name}" for name in rs.__all__ if name != "__version__"} <= set(listed)
    for name in listed:
        room, _, last = name.rpartition(".")
        module = importlib.import_module(room)
        assert hasattr(module, last) or importlib.import_module(name)


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_notebook_is_its_tutorial_executed(name):
    notebook = json.loads(text(f"examples/{name}.ipynb"))
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    blocks = re.findall(r"^```(?:python|console)\n(.*?)^```$", text(f"docs/tutorials/{name}.md"), re.M | re.DOTALL)
    assert ["".join(cell["source"]) for cell in codes] == [
        re.sub(r"^\$ ", "!", block.rstrip(), flags=re.MULTILINE) for block in blocks
    ], "make examples"
    assert all(cell["execution_count"] for cell in codes)
    kinds = {output["output_type"] for cell in codes for output in cell["outputs"]}
    assert "stream" in kinds and "error" not in kinds
    assert (ROOT / f"examples/{name}.ipynb").stat().st_size < 400_000


@pytest.mark.parametrize("name", ["examples.headline", "examples.pages"])
def test_docstrings_of_examples(name):
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted and not outcome.failed


def test_the_readme_shows_what_was_said():
    record, readme = json.loads(text("examples/headline.json")), text("README.md")
    said = {name: record[name]["text"] for name in ("base", "memory")}
    signature = said["memory"][: said["memory"].index("):") + 2]
    assert signature in readme
    (before,) = re.findall(
        r"^(def barplot\(name\):.*?), a string,? …$|^(def barplot\(name\):.*?)a string, …$", readme, re.M | re.S
    )
    assert said["base"].startswith("".join(before))
    found = record["memory"]
    assert found["same_as"] == ["boxplot"]
    for said in (
        f"{found['of_the_function']} of its {found['parameters']} parameters",
        f"has {record['of_the_function']}.",
    ):
        assert said in readme


def test_the_models_are_there():
    network = resnet.load(ROOT / "examples" / "models" / "cifar100-resnet8")
    assert sum(one.numel() for one in network.parameters()) == 81_140


@pytest.mark.slow
def test_the_code_model_is_the_given_one_in_half_the_bytes(shared):
    transformers = pytest.importorskip("transformers")
    ours, given = (
        transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
        for folder in (ROOT / "examples" / "models" / "code-gpt2", shared / "models" / "code-gpt2")
    )
    assert ours.keys() == given.keys()
    for name, weight in given.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-6)


def test_the_pictures_show_what_the_page_says():
    def error(k, sigma):
        _, _, at, base, said = draw.answered(k, sigma)
        return [float(np.mean((one - draw.target(at)) ** 2)) for one in (said, base)]

    for small, right, large in draw.SETTINGS:
        (low, base), (middle, _), (high, _) = (error(*setting[1:]) for setting in (small, right, large))
        assert middle < low / 3 and middle < high / 3 and high > 0.8 * base
