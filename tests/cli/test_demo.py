import json
import struct
import sys

import numpy as np
import pytest
import torch

import residua as rs
from residua.cli.digits import load_digits, train_base

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


@pytest.fixture
def demo(run):
    """What ``residua demo --out pictures`` prints."""
    return run("demo", "--out", "pictures").stdout


def test_the_numbers_printed_are_the_librarys_and_the_picture_is_there(demo, here):
    digits = load_digits(0)
    model = train_base(digits["train"], 0)
    train, val, test = (
        rs.encode(model, digits[name].images, digits[name].labels) for name in ("train", "validation", "test")
    )
    best = rs.tune(rs.ResMem(rs.Memory(train)), val)
    result = rs.evaluate(best, test, validation=val)
    for line in str(result).splitlines():
        assert f"   {line}".rstrip() in demo.splitlines()
    said, now = test.logits.argmax().numpy(), best.predict(test)
    corrected = np.flatnonzero((said != test.labels) & (now == test.labels))
    assert f"base {100 * result.base_accuracy:.2f} % -> ResMem {100 * result.accuracy:.2f} %; label k-NN" in demo
    assert f"{100 * result.label_knn:.2f} % with ResMem's settings, {100 * result.label_knn_tuned:.2f} %" in demo
    assert f"7. Explain: test digit {corrected[0]}, the first one corrected" in demo
    for line in str(rs.explain(best, test[int(corrected[0])])).splitlines():
        assert f"   {line}" in demo.splitlines()
    # The demo is there to show a real effect; without one it would have to be built differently.
    assert result.significant and result.gain > 0.02 and result.accuracy > result.label_knn_tuned

    picture = here / "pictures" / "resmem-digits.png"
    assert f"8. Picture: {picture.resolve()}" in demo
    header = picture.read_bytes()[:24]
    width, height = struct.unpack(">II", header[16:])
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and width > 1000 and height > 800
    assert [file.name for file in picture.parent.iterdir()] == ["resmem-digits.png"]


def test_parts_are_disjoint_whole_and_drawn_by_the_seed():
    digits = load_digits(0)
    assert {name: len(part) for name, part in digits.items()} == {"test": 629, "validation": 359, "train": 809}
    rows = torch.cat([part.images.flatten(1) for part in digits.values()])
    assert sorted(map(tuple, rows.tolist())) == sorted(
        map(tuple, torch.cat([part.images.flatten(1) for part in load_digits(1).values()]).tolist())
    )
    assert not torch.equal(digits["test"].labels, load_digits(1)["test"].labels)
    assert torch.equal(digits["test"].labels, load_digits(0)["test"].labels)
    assert all(len(part.labels.unique()) == 10 for part in digits.values())


def test_training_leaves_the_callers_random_state_alone_and_the_model_frozen(monkeypatch):
    monkeypatch.setattr("residua.cli.digits.EPOCHS", 1)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    train = load_digits(0)["train"]
    one, other = train_base(train, 0), train_base(train, 0)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(one.parameters(), other.parameters()))


@pytest.mark.parametrize("missing", ["sklearn", "matplotlib"])
def test_a_missing_dependency_is_named_before_any_work(run, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr("residua.cli.digits.load_digits", lambda *_: pytest.fail("it worked first"))
    stderr = run("demo", code=1).stderr
    assert f"{missing} is needed for the demo" in stderr and 'pip install "residua[sklearn,plot]"' in stderr


def test_machines_get_the_same_figures_and_nothing_else(run, here):
    done = run("demo", "--json")
    data = json.loads(done.stdout)
    assert data["accuracy"] > data["base_accuracy"] and data["corrected"] > data["broken"]
    assert data["picture"] == str(here / "resmem-digits.png") and done.stderr == ""


def test_quiet_is_the_result_and_the_picture(run, here, demo):
    done = run("demo", "-q")
    *table, blank, picture = done.stdout.splitlines()
    assert done.stderr == "" and (blank, picture) == ("", str(here / "resmem-digits.png"))
    assert all(f"   {line}".rstrip() in demo.splitlines() for line in table)
