"""From options to the page: trainings, networks, tables, figure; and a run that is stopped goes on."""

from pathlib import Path

import pytest

from residua.errors import MemoryFileError, ParameterError
from residua.papers.cifar100 import REPRODUCTION, load, plan
from residua.papers.record import rounded
from residua.papers.work import Work

BASIC = {name: option.default for name, option in REPRODUCTION.options.items()}


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def trained(small_cifar, tmp_path_factory, kept):
    """Two depths, two shares on the first, two seeds of the headline's, two epochs; kept for the module."""
    if not kept:
        folder = tmp_path_factory.mktemp("checkpoints")
        chosen = {"epochs": 2, "seeds": 2, "depth": (8, 14), "fraction": (0.5, 1.0), "crossed": 1}
        kept["folder"] = folder
        kept["results"] = rounded(
            REPRODUCTION.run(Work(), **{**BASIC, **chosen, "checkpoints": str(folder), "data": "here"})
        )
    return kept


def test_headline_is_every_seed_and_points_are_its_marks_and_the_others(trained):
    results = trained["results"]
    assert [(n["depth"], n["fraction"], n["seed"], n["epoch"]) for n in results["networks"]] == [
        (8, 1.0, 0, 2),
        (8, 1.0, 1, 2),
    ]
    points = [(p["depth"], p["fraction"], p["seed"], p["epoch"], p["last"]) for p in results["points"]]
    assert points == [
        *((8, 1.0, seed, epoch, epoch == 2) for seed in (0, 1) for epoch in (1, 2)),
        (14, 1.0, 0, 2, True),
        (8, 0.5, 0, 2, True),
    ]
    assert [p["memory"] for p in results["points"]] == [120] * 5 + [60]
    assert [len(training["loss"]) for training in results["trainings"]] == [2] * 4


def test_points_and_headline_agree_where_they_measure_the_same(trained):
    for network in trained["results"]["networks"]:
        point = next(p for p in trained["results"]["points"] if p["last"] and p["seed"] == network["seed"])
        for name in ("n", "memory", "base", "train_base", "train_resmem"):
            assert point[name] == network[name]
        assert point["readers"]["resmem_paper"]["accuracy"] == network["readers"]["resmem_paper"]["accuracy"]


def test_page_of_trainings(trained):
    text = "\n".join(map(str, REPRODUCTION.tell(trained["results"])))
    for words in (
        "Table 1",
        "Figure 2(a)",
        "Figure 2(b)",
        "Figure 4",
        "not trained",  # the smaller share on the second depth
        "2 networks, trained by this command, 2 epochs",
        "The 4 trainings took 0.0 hours in all",
        "±",
        "What this says",
        "For one image, searched exactly, the memory adds",
    ):
        assert words in text
    titles = [axes.get_title() for axes in REPRODUCTION.draw(trained["results"]).axes]
    assert {"Table 1: epochs trained", "Figure 2(a): depth", "Figure 2(b): training data, %"} <= set(titles)


def test_given_weights_are_measured_and_not_trained(trained, small_cifar, monkeypatch):
    path = next(trained["folder"].glob("resnet8-100percent*seed0/epoch-002.safetensors"))
    monkeypatch.setattr(plan, "train", lambda *_, **__: pytest.fail("trained"))
    chosen = {"weights": (str(path),), "trained_epochs": 2, "data": "here"}
    results = rounded(REPRODUCTION.run(Work(), **{**BASIC, **chosen}))
    assert results["networks"] == trained["results"]["networks"][:1]
    assert results["points"] == []
    text = "\n".join(map(str, REPRODUCTION.tell(results)))
    assert "1 network, trained before and given, 2 epochs (the paper: 256" in text
    assert str(path) not in str(results)
    assert "Table 1" not in text
    assert len(REPRODUCTION.draw(results).axes) == 5
    unknown = {**results, "epochs": None}
    assert "an unknown number of epochs" in "\n".join(map(str, REPRODUCTION.tell(unknown)))


def test_given_weights_of_several_depths_make_a_curve(trained, small_cifar):
    paths = [str(next(trained["folder"].glob(f"resnet{d}-100percent*seed0/epoch-002.safetensors"))) for d in (8, 14)]
    results = rounded(REPRODUCTION.run(Work(), **{**BASIC, "weights": tuple(paths), "data": "here"}))
    assert [network["depth"] for network in results["networks"]] == [8]
    assert [point["depth"] for point in results["points"]] == [8, 14]
    text = "\n".join(map(str, REPRODUCTION.tell(results)))
    assert "Figure 2(a)" in text and "Table 1" not in text


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
    assert [point["epoch"] for point in results["points"]] == [1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"seeds": 0},
        {"others": 0},
        {"crossed": 2},
        {"weights": ("a",), "depth": (8, 14)},
        {"weights": ("a",), "fraction": (0.5, 1.0)},
        {"epochs": 0},
    ],
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
        assert len(load(path).blocks) == (6 if path.parent.name.startswith("resnet14") else 3)
