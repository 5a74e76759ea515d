"""The card says what the folder holds; whatever a name is, it is shown as itself."""

import re
from html import unescape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import residua as rs
from residua.hub.card import BEGIN, END, body, escape, front_matter, write_card
from residua.printable import one_line

HOSTILE = [
    "---\nlicense: mit\n---",
    "<script>alert(1)</script>",
    "| a | b |",
    "[x](javascript:x)",
    "`</code>` $x$ **b**",
]
TAGS = {"h1", "h2", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td", "strong", "ul", "li"}


def rendered(markdown: str) -> str:
    """HTML by the rules of CommonMark with tables, in which raw HTML stays as it is."""
    markdown_it = pytest.importorskip("markdown_it")
    return markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)


def memory(classes=("cat", "dog"), **options):
    rng = np.random.default_rng(0)
    n = len(classes)
    rows = rs.Encoded(rng.normal(size=(30, 4)), rng.normal(size=(30, n)), np.arange(30) % n, classes=list(classes))
    return rs.Memory(rows, **options)


@settings(max_examples=40)
@given(st.text(max_size=60))
def test_any_name_is_rendered_as_itself(name):
    html = rendered(f"| head |\n| --- |\n| x{escape(name)}x |")
    (cell,) = re.findall(r"<td>(.*)</td>", html)
    assert "<" not in cell
    assert unescape(cell) == f"x{one_line(name)}x"


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["base_model", "license"]), st.text(max_size=60)))
def test_any_text_stands_in_the_head_as_itself(tmp_path_factory, given):
    yaml = pytest.importorskip("yaml")
    folder = saved_once(tmp_path_factory)
    begin, *lines, end = front_matter(folder, **given).splitlines()
    assert (begin, end) == ("---", "---")
    said = yaml.safe_load("\n".join(lines))
    assert said == {
        "library_name": "residua",
        "tags": ["residua", "memory", "retrieval", "classification"],
        **{name: one_line(value) for name, value in given.items()},
    }


def saved_once(factory, _made=[]):  # noqa: B006
    if not _made:
        _made.append(factory.mktemp("card"))
        memory().save(_made[0])
    return _made[0]


def test_hostile_classes_are_words_in_the_table(tmp_path):
    memory(HOSTILE).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    html = rendered(text.partition(BEGIN)[2])
    assert set(re.findall(r"</?(\w+)", html)) <= TAGS
    (cell,) = re.findall(r"<td>classes</td>\s*<td>(.*)</td>", html)
    assert unescape(cell) == ", ".join(map(one_line, HOSTILE))
    assert text.count("\n---\n") == 1  # where its head ends


def test_the_hub_reads_the_head(tmp_path):
    cards = pytest.importorskip("huggingface_hub")
    best = rs.ResMem(memory(), k=3)
    best.save_pretrained(tmp_path, base_model="me/model", license="apache-2.0")
    data = cards.ModelCard.load(tmp_path / "README.md").data
    assert (data.library_name, data.base_model, data.license) == ("residua", "me/model", "apache-2.0")
    assert data.tags == ["residua", "memory", "retrieval", "classification", "resmem"]


def test_it_says_what_is_there_and_what_is_not(tmp_path):
    said = memory()
    said.forget([3, 4])
    rs.KNNLM(said, k=5, lmbda=0.5).save_pretrained(tmp_path)
    html = rendered(body(tmp_path))
    facts = dict(re.findall(r"<td>([^<]*)</td>\s*<td>([^<]*)</td>", html))
    assert facts["rows"] == "28 (2 more are forgotten)"
    assert facts["classes"] == "cat, dog"
    assert facts["reader"].startswith("KNNLM(k=5, lmbda=0.5")
    assert "<strong>2 forgotten rows are still in the files.</strong>" in html
    assert "which model made them is not known" in html
    said.purge(tmp_path)
    rs.KNNLM(said, k=5, lmbda=0.5).save_pretrained(tmp_path)
    assert "No forgotten row is in the files" in (tmp_path / "README.md").read_text()


def test_the_model_is_named(tmp_path):
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    rs.Memory(rs.encode(model, torch.randn(9, 3), torch.arange(9) % 2)).save(tmp_path)
    html = rendered(body(tmp_path))
    assert "a model that calls itself Sequential" in html
    assert "key 2:input" in unescape(html)


def test_a_memory_of_texts(tmp_path, tiny_model, tiny_tokenizer):
    texts = [("<script>.py", "def add(first, second):\n    return first + second\n")]
    stream = rs.encode((tiny_model("gpt2"), tiny_tokenizer), texts)
    rs.KNNLM(rs.Memory(stream, storage="none"), k=3).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "for a language model, and a reader of it" in text and "| documents | 1 |" in text
    assert "script" not in text  # names of documents are not told


def test_what_was_measured_is_in_it(tmp_path):
    rng = np.random.default_rng(0)
    own = memory()
    test = rs.Encoded(rng.normal(size=(20, 4)), rng.normal(size=(20, 2)), np.arange(20) % 2)
    result = rs.evaluate(rs.ResMem(own, k=3), test)
    rs.ResMem(own, k=3).save_pretrained(tmp_path, evaluation=result)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"<td>(\w+)</td>\s*<td>([\d.]+)</td>\s*<td>([\d.]+)</td>", rendered(text))
    measured = {name: (base, now) for name, base, now in rows}
    assert measured["accuracy"] == (f"{result.base_accuracy:.4g}", f"{result.accuracy:.4g}")
    assert measured["log_loss"] == (f"{result.base_log_loss:.4g}", f"{result.log_loss:.4g}")
    assert "accuracy" in re.search(r"^metrics: (.*)$", text, flags=re.MULTILINE)[1]
    assert result.verdict in unescape(rendered(text))


def test_what_was_written_by_hand_stays(tmp_path):
    own, file = memory(), tmp_path / "README.md"
    own.save_pretrained(tmp_path)
    file.write_text(f"{file.read_text()}\n## Thanks\n\nto my mother\n".replace("library_name", "x: 1\nlibrary_name"))
    own.forget([0])
    own.save_pretrained(tmp_path)
    text = file.read_text()
    assert "| rows | 29 (1 more are forgotten) |" in text
    assert text.startswith("---\nx: 1\n") and text.endswith("## Thanks\n\nto my mother\n")
    assert text.count(BEGIN) == text.count(END) == 1
    file.write_text("all mine")
    own.save_pretrained(tmp_path)
    assert file.read_text() == "all mine"


def test_a_card_of_bytes_that_are_no_text_is_kept(tmp_path):
    own, file = memory(), tmp_path / "README.md"
    own.save(tmp_path)
    file.write_bytes(b"\xff\xfe mine \r\n" + f"{BEGIN}stale words{END}".encode() + b"\xff")
    write_card(tmp_path)
    assert file.read_bytes().startswith(b"\xff\xfe mine \r\n<!--")
    assert file.read_bytes().endswith(END.encode() + b"\xff")
    assert b"stale words" not in file.read_bytes()
