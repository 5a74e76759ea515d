"""Pages in a real browser: a headless Chromium of this machine, driven by Playwright. ``make browser`` sees to both."""

import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest

import residua as rs

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
EVIL = "<script>window.harmed = 1</script>"
EVIL_PICTURE = '<img src=x onerror="window.harmed = 2">'
CLASSES = ("cat", "dog", EVIL)


def pytest_collection_modifyitems(items):
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser():
    """A browser; tests are skipped, saying so, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make browser")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium here: make browser, or apt-get install chromium")
    with playwright.sync_playwright() as driver:
        rebound = "--host-resolver-rules=MAP rebound.test 127.0.0.1"
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", rebound])
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and what went wrong in it."""

    page: object
    errors: list = field(default_factory=list)
    elsewhere: list = field(default_factory=list)  # addresses of other machines

    def unharmed(self):
        """Nothing was run that is data, nothing failed, and nobody else was asked."""
        assert self.page.evaluate("window.harmed") is None
        assert (self.errors, self.elsewhere) == ([], [])


@pytest.fixture
def opened(browser):
    """``opened(url, **mode)``: a new page there, watched until the test ends, and unharmed then."""
    pages = []

    def open_page(url, **mode):
        page = browser.new_page(**{"viewport": {"width": 1500, "height": 900}, **mode})
        watched = Watched(page)
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on("console", lambda said: _note_error(watched, said))
        page.on("dialog", lambda dialog: (watched.errors.append(dialog.message), dialog.dismiss()))
        own = url.split("/")[2]
        page.on("request", lambda asked: _note_elsewhere(watched, asked.url, own))
        page.goto(url)
        pages.append(watched)
        return watched

    yield open_page
    for watched in pages:
        watched.unharmed()
        watched.page.close()


def _note_error(watched, said):
    if said.type in ("error", "warning") and "status of 400" not in said.text:  # what was refused, and said
        watched.errors.append(said.text)


def _note_elsewhere(watched, url, own):
    if not url.startswith(("data:", "blob:")) and url.split("/")[2] != own:
        watched.elsewhere.append(url)


@pytest.fixture(scope="session")
def accessible():
    """``accessible(page)``: axe-core finds nothing wrong with it."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed: make browser"
    ).Axe()

    def check(page):
        found = axe.run(page)
        said = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found.response["violations"]]
        assert said == []

    return check


@pytest.fixture(scope="session")
def rows():
    """``rows(n, seed)``: rows around three centres, known half by the model, with names and labels that are markup."""
    return _rows


def _rows(n, seed=0, names=True):
    rng, centres = np.random.default_rng(seed), np.random.default_rng(9).normal(size=(3, 6))
    labels = rng.integers(0, 3, n)
    keys = (centres[labels] + 1.4 * rng.normal(size=(n, 6))).astype(np.float32)
    said = (keys @ centres.T + 1.5 * rng.normal(size=(n, 3))).astype(np.float32)
    named = [f"{EVIL_PICTURE} {i}" if i % 2 else f"folder/row {i}" for i in range(n)] if names else None
    return rs.Encoded(keys, said, labels, classes=CLASSES, names=named)


@pytest.fixture(scope="session")
def pictures():
    """``pictures(n)``: small ones, each another."""
    return lambda n: np.random.default_rng(0).integers(0, 255, (n, 8, 8, 3), np.uint8)


class Letters:
    """A tokenizer whose tokens are letters."""

    def encode(self, text, add_special_tokens=True):
        return [ord(letter) % 128 for letter in text]

    def decode(self, tokens):
        return "".join(map(chr, tokens))


@pytest.fixture(scope="session")
def letters():
    return Letters()


@pytest.fixture(scope="session")
def texts():
    """``texts(*texts, first=0)``: the rows of texts whose tokens are letters."""
    return _texts


def _texts(*texts, first=0):
    tokens = [Letters().encode(text) for text in texts]
    labels, rng = np.concatenate(tokens), np.random.default_rng(first)
    ids = first + np.repeat(np.arange(len(texts)), [len(one) for one in tokens])
    offsets = np.concatenate([np.arange(len(one)) for one in tokens])
    keys = np.eye(128)[labels][:, ::4] + 0.1 * rng.normal(size=(len(labels), 32))
    said = rng.normal(size=(len(labels), 128)) + 4 * np.eye(128)[labels] * (rng.random((len(labels), 1)) < 0.5)
    return rs.Encoded(keys, said, labels, ids, columns={"offset": offsets})
