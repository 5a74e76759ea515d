import re
from html.parser import HTMLParser

import numpy as np
import pytest

import residua as rs


def blobs(seed: int, n: int, **more) -> rs.Encoded:
    """Three classes around three corners, and a base that cannot tell the last two apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    keys = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])[labels] + rng.normal(size=(n, 2))
    logits = np.where(labels[:, None] == 0, [2.0, 0.0, 0.0], [0.0, 1.0, 1.0]) + 0.3 * rng.normal(size=(n, 3))
    return rs.Encoded(keys, logits, labels, **more)


@pytest.fixture(scope="session")
def rows():
    """``rows(seed, n, **more)``: three classes, of which the model mixes up two."""
    return blobs


@pytest.fixture(scope="session")
def reader():
    """A reader that mends much of it."""
    return rs.ResMem(rs.Memory(blobs(1, 90)), k=5, sigma=1.0)


class Page(HTMLParser):
    """A page as a browser reads it: tags that are closed in their order, ids, links, and the text between."""

    EMPTY = ("meta", "img")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.attributes, self.words = [], [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="session")
def parsed():
    """``parsed(report)``: its page, which is well formed and asks no other address for anything."""

    def read(report) -> Page:
        text = report.html
        page = Page(text)
        assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
        assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
        assert len(page.ids) == len(set(page.ids))
        assert "script" not in page.tags and not [name for name in page.attributes if name.startswith("on")]
        assert "url(" not in text and "@import" not in text
        assert all(one.isprintable() or one == "\n" for one in text)
        return page

    return read
