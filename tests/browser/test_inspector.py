"""The inspector as a person uses it: every number that is shown is the library's, every edit the memory's."""

import http.server
import io
import threading

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the inspector's server: pip install residua[inspect]")
pytest.importorskip("playwright", reason="Playwright is not installed: make browser")

from playwright.sync_api import expect

import residua as rs

EVIL = "<script>window.harmed = 1</script>"
VIEWS = {"examples": "#detail .neighbours", "memories": "#memories tbody tr", "log": "#log li"}


@pytest.fixture(scope="module")
def served(rows, pictures):
    """An inspector of a memory with pictures, to look at."""
    shown = {"images": pictures(120), "remembered": pictures(300)}
    with rs.inspect(rs.ResMem(rs.Memory(rows(300)), k=10, sigma=1.0), rows(120, 1), **shown) as page:
        yield page


@pytest.fixture
def inspector(rows):
    """One to edit."""
    with rs.inspect(rs.ResMem(rs.Memory(rows(300)), k=10, sigma=1.0), rows(120, 1)) as page:
        yield page


MODES = [
    pytest.param({"color_scheme": scheme, "viewport": {"width": width, "height": 900}}, id=f"{scheme}-{name}")
    for scheme in ("light", "dark")
    for name, width in (("wide", 1500), ("narrow", 390))
]


def view(page, name):
    page.click(f'nav a[href="#/{name}"]')
    page.wait_for_selector(VIEWS[name])


def figure(page, name):
    return float(page.get_attribute(f'[data-figure="{name}"]', "value"))


def settled(page):
    """Until nothing is asked any more."""
    expect(page.locator("[aria-busy]")).to_have_count(0)
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("mode", MODES)
def test_every_view_is_accessible_and_fits(served, opened, accessible, mode):
    page = opened(served.url, **mode).page
    for name in VIEWS:
        view(page, name)
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        accessible(page)


def test_the_figures_shown_are_those_of_evaluate_as_sliders_move(served, opened, rows):
    page, test, reader = opened(served.url).page, rows(120, 1), served.session.reader
    page.wait_for_selector("[data-figure=gain]")
    moves = [("k", "3"), ("sigma", "0.37"), ("temperature", "2.5"), ("k", "0"), ("k", "64")]
    settings = {}
    for name, value in moves:
        with page.expect_response(lambda one: "/figures?" in one.url):
            page.fill(f"#number-{name}", value)
            page.keyboard.press("Tab")
        settled(page)
        settings[name] = int(value) if name == "k" else float(value)
        expected = rs.evaluate(reader.with_params(**settings), test, label_knn=False)
        for shown, of in [("gain", "gain"), ("tpr", "tpr"), ("fpr", "fpr"), ("accuracy", "accuracy"), ("ece", "ece")]:
            shown = {"ece": "calibration error"}.get(shown, shown)
            assert figure(page, shown) == getattr(expected, of)
        assert figure(page, "log-loss") == expected.log_loss
        assert figure(page, "base log-loss") == expected.base_log_loss
        assert page.inner_text('[data-figure="accuracy"]') == f"{100 * expected.accuracy:.2f}\u00a0%"
    assert page.inner_text("#code") == "reader.with_params(k=64, sigma=0.37, temperature=2.5)"
    page.click("#reset")
    settled(page)
    assert figure(page, "gain") == rs.evaluate(reader, test, label_knn=False).gain


def test_a_slider_is_moved_by_keys(served, opened, rows):
    page, reader = opened(served.url).page, served.session.reader
    page.wait_for_selector("[data-figure=gain]")
    page.focus("#slider-k")
    for _ in range(5):
        with page.expect_response(lambda one: "/examples?" in one.url):
            page.keyboard.press("PageUp")
    settled(page)
    k = int(page.input_value("#number-k"))
    assert k > 10 and page.get_attribute("#slider-k", "aria-valuetext") == f"k = {k}"
    assert figure(page, "gain") == rs.evaluate(reader.with_params(k=k), rows(120, 1), label_knn=False).gain


def test_an_example_s_scores_and_memories_are_those_of_explain(served, opened, rows):
    page, reader = opened(served.url).page, served.session.reader
    page.wait_for_selector("#detail .neighbours li")
    page.click('[data-example="row-5"]')
    page.wait_for_selector('[data-example="row-5"][aria-current="true"]')
    settled(page)
    why = rs.explain(reader, rows(120, 1)[5])
    classes = list(reader.memory.schema.classes)
    for line in page.query_selector_all(".scores tbody tr"):
        at = classes.index(line.query_selector("th").inner_text())
        base, added, score = (float(one.get_attribute("value")) for one in line.query_selector_all("data"))
        assert (base, score) == (float(why.base[at]), float(why.scores[at]))
        assert base * why.scale + added == pytest.approx(score, abs=1e-6)
    shown = page.query_selector_all("#detail .neighbours li")
    assert sorted(int(one.get_attribute("data-id")) for one in shown) == sorted(why.ids.tolist())
    labels = {id: classes[label] for id, label in zip(why.ids.tolist(), why.labels.tolist())}
    for one in shown:
        assert one.query_selector(".label").inner_text() == labels[int(one.get_attribute("data-id"))]


def test_the_examples_that_were_fixed_and_broken(served, opened, rows):
    page, test, reader = opened(served.url).page, rows(120, 1), served.session.reader
    now, base = reader.predict(test), test.logits.argmax().numpy()
    for which, right, before in (("fixed", now, base), ("broken", base, now)):
        places = np.flatnonzero((right == test.labels) & (before != test.labels))
        page.click(f"#which >> text={which}")
        expect(page.locator(f"#examples .{which}")).to_have_count(min(24, len(places)))
        listed = [one.get_attribute("data-example") for one in page.query_selector_all("#examples button")]
        assert listed == [f"row-{place}" for place in places[:24]] and listed


def test_forget_relabel_and_undo(inspector, opened, rows):
    page, memory = opened(inspector.url).page, inspector.session.memory
    page.wait_for_selector("[data-figure=gain]")
    before = figure(page, "log-loss")
    card = page.locator("#detail .neighbours li").first
    id = int(card.get_attribute("data-id"))
    with page.expect_response(lambda one: "/figures" in one.url):
        card.locator("[data-forget]").click()
    settled(page)
    assert id not in memory and "1 row forgotten" in page.inner_text("#said")
    assert page.locator(f'#detail [data-id="{id}"]').count() == 0
    reader = rs.ResMem(memory, k=10, sigma=1.0)
    assert figure(page, "log-loss") == rs.evaluate(reader, rows(120, 1), label_knn=False).log_loss != before
    assert page.inner_text("#edits") == "1 edit not kept" and page.is_disabled("#keep")

    with page.expect_response(lambda one: "/figures" in one.url):
        page.click("#undo")
    settled(page)
    assert id in memory and figure(page, "log-loss") == before

    view(page, "memories")
    page.fill("#search [name=id]", str(id))
    page.keyboard.press("Enter")
    expect(page.locator("#memories tbody tr")).to_have_count(1)
    page.click(f'#memories [data-relabel="{id}"]')
    page.fill("#relabel-label", "no such class")
    page.click("#relabel .strong")
    expect(page.locator("#said")).to_contain_text("no such class")
    for label in (EVIL, "dog"):
        page.click(f'#memories [data-relabel="{id}"]')
        page.fill("#relabel-label", label)
        page.keyboard.press("Enter")
        expect(page.locator("#memories .label")).to_have_text(label)
    settled(page)
    assert memory.labels[memory.ids == id].tolist() == [1]
    view(page, "log")
    assert [one.split()[1] for one in page.locator("#log li").all_inner_texts()] == [
        "relabel:", "relabel:", "undo:", "forget:", "create:",
    ]  # fmt: skip


PAGE = b"<!doctype html><title>another page</title><body>"


@pytest.fixture
def another_page():
    """The address of a page of this machine that is none of the inspector's."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


ATTACKS = """async (url) => {
  const body = JSON.stringify({ ids: ["3"] });
  const tried = (about) =>
    fetch(url + "forget", { method: "POST", body, ...about }).then((r) => r.type, () => "refused");
  const said = [];
  for (const kind of ["application/json", "text/plain"]) {
    said.push(await tried({ headers: { "Content-Type": kind } }));
    said.push(await tried({ headers: { "Content-Type": kind }, mode: "no-cors", credentials: "include" }));
  }
  said.push(await fetch(url + "status").then((r) => r.type, () => "refused"));
  const script = document.createElement("script");
  script.src = url + "about";
  document.body.append(script);
  const frame = document.createElement("iframe");
  frame.src = url;
  document.body.append(frame);
  await new Promise((done) => setTimeout(done, 700));
  return said;
}"""
FORM = """(url) => {
  const form = document.createElement("form");
  form.method = "post";
  form.enctype = "text/plain";
  form.action = url + "forget";
  form.innerHTML = `<input name='{"ids": ["3"], "note": "' value='"}'>`;
  document.body.append(form);
  form.submit();
}"""


def test_another_page_that_knows_the_address_neither_edits_nor_reads_nor_frames(inspector, browser, another_page):
    page = browser.new_page()
    page.goto(another_page)
    said = page.evaluate(ATTACKS, inspector.url)
    assert set(said) <= {"refused", "opaque"} and said[0] == said[-1] == "refused"
    (frame,) = [one for one in page.frames if one != page.main_frame]
    assert frame.query_selector("#view-examples") is None
    with page.expect_response(lambda one: one.url.endswith("/forget")) as answered:
        page.evaluate(FORM, inspector.url)
    assert answered.value.status == 403
    assert len(inspector.session.memory.log()) == 1 and 3 in inspector.session.memory
    page.close()


def test_a_name_that_was_bound_to_this_machine_gets_nothing(inspector, browser):
    page = browser.new_page()
    answered = page.goto(inspector.url.replace("127.0.0.1", "rebound.test"))
    assert answered.status == 421 and "rows" not in answered.text()
    page.close()


def test_what_is_kept_is_saved(rows, opened, tmp_path):
    path = tmp_path / "mem"
    rs.ResMem(rs.Memory(rows(60)), k=5, sigma=1.0).save(path)
    with rs.inspect(rs.load(path), rows(20, 1), path=path) as served:
        page = opened(served.url).page
        page.wait_for_selector("#detail .neighbours li")
        page.locator("#detail [data-forget]").first.click()
        page.wait_for_selector("#keep:enabled")
        page.click("#keep")
        page.wait_for_selector("#keep:disabled")
        assert len(rs.Memory.load(path)) == 59 == len(served.session.memory)


def test_what_is_remembered_is_looked_through(inspector, opened):
    page, memory = opened(inspector.url).page, inspector.session.memory
    view(page, "memories")
    assert page.inner_text("#found") == "300 rows"
    page.click("#memories-pages >> text=Next")
    page.wait_for_selector('#memories [data-id="50"]')
    for field, text, expected in [
        ("label", EVIL, (memory.labels == 2).sum()),
        ("label", "1", (memory.labels == 1).sum()),
        ("name", "<IMG", 150),
        ("name", "row 29", 5),
    ]:
        page.click("#search [type=reset]")
        expect(page.locator("#found")).to_have_text("300 rows")
        page.fill(f"#search [name={field}]", text)
        page.click("#search [type=submit]")
        expect(page.locator("#found")).to_have_text(f"{expected} rows")


def test_a_text_with_its_token_marked(texts, letters, opened, accessible):
    memory = rs.Memory(texts("the cat <script>sat</script>", f"a dog {EVIL} sat"), names={0: EVIL, 1: "b"})
    test = texts(f"the log {EVIL}", first=7)
    with rs.inspect(rs.KNNLM(memory, k=8, lmbda=0.5), test, tokenizer=letters) as served:
        page = opened(served.url).page
        page.wait_for_selector("#detail .neighbours li")
        page.click('[data-example="row-6"]')
        expect(page.locator("#detail .asked .text")).to_have_text("the log")
        expect(page.locator("#detail .asked .text mark")).to_have_text("g")
        page.fill("#number-lmbda", "0.25")
        page.keyboard.press("Tab")
        settled(page)
        expected = rs.evaluate(served.session.reader.with_params(lmbda=0.25), test)
        assert figure(page, "log-loss") == expected.log_loss
        accessible(page)
        view(page, "memories")
        page.fill("#search [name=text]", "sat</")
        page.keyboard.press("Enter")
        expect(page.locator("#found")).to_have_text("1 row")
        page.click("#memories [data-forget]")
        expect(page.locator("#said")).to_contain_text("28 rows forgotten")
        assert page.locator("#memories [data-relabel]").count() == 0
        accessible(page)


def test_a_vector_and_a_file_are_brought(opened, accessible, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)).eval()
    x = torch.randn(50, 3)
    reader = rs.ResMem(rs.Memory(rs.encode(model, x, 1 - model(x).argmax(1), progress=False)), k=3)
    file = io.BytesIO()
    np.save(file, np.array([0.5, 1.0, -2.0], np.float32))
    with rs.inspect(reader, model=model) as served:
        page = opened(served.url).page
        page.click("nav a >> text=Examples")
        page.click("#bring summary")
        page.fill("#bring-text", "0.5, 1, -2")
        page.click("#bring button")
        page.wait_for_selector("#detail .neighbours li")
        row = rs.encode(model, np.array([[0.5, 1.0, -2.0]], np.float32), like=reader, progress=False)
        why = rs.explain(reader, row)
        shown = float(page.locator(".scores tbody tr data").nth(2).get_attribute("value"))
        assert shown == pytest.approx(float(why.scores[why.prediction]), abs=1e-6)
        accessible(page)
        page.set_input_files("#bring-file", {"name": "x.npy", "mimeType": "", "buffer": file.getvalue()})
        with page.expect_response(lambda one: "/explanation?" in one.url and "upload-1" in one.url):
            page.click("#bring button")
        page.set_input_files("#bring-file", {"name": "x.npy", "mimeType": "", "buffer": b"{}"})
        page.click("#bring button")
        expect(page.locator("#said")).to_contain_text("no numbers")
