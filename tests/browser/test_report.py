"""The report as a person opens it: a file that asks nobody for anything, light and dark, wide, narrow and printed."""

import warnings

import pytest

import residua as rs

pytestmark = pytest.mark.skipif(not hasattr(rs, "report"), reason="this version of residua writes no report")

MODES = [
    pytest.param({"color_scheme": scheme, "viewport": {"width": width, "height": 900}}, id=f"{scheme}-{name}")
    for scheme in ("light", "dark")
    for name, width in (("wide", 1500), ("narrow", 390))
]


@pytest.fixture(scope="module")
def written(rows, pictures, tmp_path_factory):
    """The address of a report whose names and labels are markup, and what it is about."""
    pytest.importorskip("jinja2", reason="the report: pip install residua[report]")
    path = tmp_path_factory.mktemp("report") / "report.html"
    reader, test = rs.ResMem(rs.Memory(rows(300)), k=10, sigma=1.0), rows(120, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it has to say of so few rows
        report = rs.report(reader, test, images=pictures(120), remembered=pictures(300), path=path)
    return path.as_uri(), report


@pytest.mark.parametrize("mode", MODES)
def test_it_is_accessible_and_fits(written, opened, accessible, mode):
    page = opened(written[0], **mode).page
    for fold in page.query_selector_all("details:not([open])"):
        fold.evaluate("fold => { fold.open = true }")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    accessible(page)


def test_it_says_what_evaluate_says(written, opened):
    page, result = opened(written[0]).page, written[1].result
    text = page.inner_text("body")
    assert f"{100 * result.accuracy:.2f}" in text and f"{100 * result.base_accuracy:.2f}" in text


def test_it_needs_no_script(written, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(written[0])
    assert len(page.inner_text("body")) > 1000
    context.close()


def test_it_prints(written, opened):
    page = opened(written[0]).page
    page.emulate_media(media="print")
    assert page.pdf().startswith(b"%PDF")
