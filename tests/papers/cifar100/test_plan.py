"""From options to the page: trainings, networks, tables, figure; and a run that is stopped goes on."""

from pathlib import Path

import pytest

from residua.errors import MemoryFileError, ParameterError
from residua.papers.cifar100 import REPRODUCTION, load, plan
from residua.papers.cifar100.tell import main_networks
from residua.papers.record import rounded
from residua.papers.work import Work

BASIC = {name: option.default for name, option in REPRODUCTION.options.items()}


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def trained(small_cifar, tmp_path_factory, kept):
    """Two fractions, two seeds, two epochs, kept for the module."""
    if not kept:
        folder = tmp_path_factory.mktemp("checkpoints")
        chosen = {"epochs": 2, "seeds": 2, "fraction": (0.5, 1.0), "checkpoints": str(folder), "data": "here"}
        kept["folder"] = folder
        kept["results"] = rounded(REPRODUCTION.run(Work(), **{**BASIC, **chosen}))
    return kept


def test_networks_are_every_mark_of_every_training(trained):
    networks = trained["results"]["networks"]
    assert [(n["fraction"], n["seed"], n["epoch"], n["last"]) for n in networks] == [
        (share, seed, epoch, epoch == 2) for share in (0.5, 1.0) for seed in (0, 1) for epoch in (1, 2)
    ]
    assert {n["memory"] for n in networks if n["fraction"] == 0.5} == {60}
    assert len(main_networks(networks)) == 2
    assert [len(training["loss"]) for training in trained["results"]["trainings"]] == [2] * 4


def test_page_of_trainings(trained):
    text = "\n".join(map(str, REPRODUCTION.tell(trained["results"])))
    for words in ("Table 1", "Figure 2(b)", "2 networks, trained by this command, 2 epochs", "±", "What this says"):
        assert words in text
    assert "Figure 2(a)" not in text
    titles = [axes.get_title() for axes in REPRODUCTION.draw(trained["results"]).axes]
    assert "Table 1: epochs trained" in titles and "Figure 2(b): training data, %" in titles


def test_given_weights_are_measured_and_not_trained(trained, small_cifar, monkeypatch):
    path = next(trained["folder"].glob("*100percent*seed0/epoch-002.safetensors"))
    monkeypatch.setattr(plan, "train", lambda *_, **__: pytest.fail("trained"))
    chosen = {"weights": (str(path),), "trained_epochs": 2, "data": "here"}
    results = rounded(REPRODUCTION.run(Work(), **{**BASIC, **chosen}))
    again = next(n for n in trained["results"]["networks"] if n["last"] and n["fraction"] == 1 and n["seed"] == 0)
    assert results["networks"][0] == again
    text = "\n".join(map(str, REPRODUCTION.tell(results)))
    assert "1 network, trained before and given, 2 epochs (the paper: 256" in text
    assert str(path) not in str(results)
    assert "Table 1" not in text
    assert len(REPRODUCTION.draw(results).axes) == 5
    unknown = {**results, "epochs": None}
    assert "an unknown number of epochs" in "\n".join(map(str, REPRODUCTION.tell(unknown)))


def test_stopped_run_goes_on_without_training_again(small_cifar, tmp_path, monkeypatch):
    chosen = {**BASIC, "epochs": 2, "seeds": 1, "checkpoints": str(tmp_path / "runs"), "data": "here"}
    measure = plan.sweeps

    def sweeps(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "sweeps", sweeps)
    with pytest.raises(KeyboardInterrupt):
        REPRODUCTION.run(Work(tmp_path / "part"), **chosen)
    monkeypatch.setattr(plan, "sweeps", measure)
    monkeypatch.setattr(plan, "train", lambda *_, **__: pytest.fail("trained again"))
    results = REPRODUCTION.run(Work(tmp_path / "part"), **chosen)
    assert [network["epoch"] for network in results["networks"]] == [1, 2]


@pytest.mark.parametrize(
    "wrong",
    [{"seeds": 0}, {"weights": ("a",), "depth": (8, 14)}, {"weights": ("a",), "fraction": (0.5, 1.0)}, {"epochs": 0}],
)
def test_wrong_options_are_refused_before_the_work(small_cifar, wrong, tmp_path):
    with pytest.raises(ParameterError, match=r"expected|give one"):
        REPRODUCTION.run(Work(), **{**BASIC, "data": "here", "checkpoints": str(tmp_path), **wrong})


def test_missing_weights_and_data_are_named(small_cifar, tmp_path, monkeypatch):
    with pytest.raises(MemoryFileError, match="nowhere"):
        REPRODUCTION.run(Work(), **{**BASIC, "weights": ("nowhere",), "data": "here"})
    monkeypatch.undo()
    with pytest.raises(MemoryFileError, match="holds neither"):
        REPRODUCTION.run(Work(), **{**BASIC, "data": str(tmp_path)})


def test_marks_can_be_loaded(trained):
    for path in Path(trained["folder"]).glob("*/epoch-*.safetensors"):
        assert len(load(path).blocks) == 3
