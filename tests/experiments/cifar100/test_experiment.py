"""From options to tables and picture: trainings, networks; and a run that is stopped goes on."""

import pytest

from experiments import cifar100
from experiments.cifar100 import networks
from experiments.runner import rounded
from experiments.work import Work
from residua.errors import MemoryFileError, ParameterError


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def trained(small_cifar, tmp_path_factory, kept):
    """Two depths, two shares on the first, two seeds of the headline's, two epochs; kept for the module."""
    if not kept:
        folder = tmp_path_factory.mktemp("checkpoints")
        chosen = {"epochs": 2, "seeds": 2, "depth": (8, 14), "fraction": (0.5, 1.0), "crossed": 1, "data": "here"}
        kept["folder"] = folder
        kept["results"] = rounded(cifar100.measure(Work(), **chosen, checkpoints=str(folder)))
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


def test_trainings_have_the_curves_tables_and_panels_and_given_networks_not(trained, small_cifar, monkeypatch):
    every = cifar100.tables(trained["results"])
    assert {"headline", "epochs", "depths", "fractions", "crossed"} <= set(every)
    assert "not trained" in str(every["crossed"])  # the smaller share on the second depth
    rows = every["training time"].rows
    assert [row[0] for row in rows] == ["ResNet-8, 1 epochs", "ResNet-8, 2 epochs", "ResNet-14, 2 epochs"]
    assert rows[1][3] == next(row for row in every["depths"].rows if row[0] == "ResNet-8")[1]
    assert " ± " in str(every["headline"])
    path = str(next(trained["folder"].glob("resnet8-100percent*seed0/epoch-002.safetensors")))
    monkeypatch.setattr(networks, "train", lambda *_, **__: pytest.fail("trained"))
    results = rounded(cifar100.measure(Work(), weights=(path,), trained_epochs=2, data="here"))
    assert results["networks"] == trained["results"]["networks"][:1]
    assert results["points"] == []
    assert path not in str(results)
    assert not {"epochs", "depths", "fractions", "crossed", "training time"} & set(cifar100.tables(results))
    assert len(cifar100.draw(trained["results"]).axes) == len(cifar100.draw(results).axes) + 3


def test_given_weights_of_several_depths_make_a_curve(trained, small_cifar):
    paths = [str(next(trained["folder"].glob(f"resnet{d}-100percent*seed0/epoch-002.safetensors"))) for d in (8, 14)]
    results = rounded(cifar100.measure(Work(), weights=tuple(paths), data="here"))
    assert [network["depth"] for network in results["networks"]] == [8]
    assert [point["depth"] for point in results["points"]] == [8, 14]
    assert {"depths", "epochs"} & set(cifar100.tables(results)) == {"depths"}


def test_networks_called_as_trainings_are_measured_as_what_they_are_called(trained, small_cifar, tmp_path):
    names = {"resnet8-100percent-2epochs-seed1": 2, "resnet8-100percent-2epochs-seed0": 2}
    names |= {"resnet8-100percent-2epochs-seed0-epoch1": 1, "resnet8-50percent-2epochs-seed0": 2}
    for name, epoch in names.items():
        folder = trained["folder"] / name.removesuffix("-epoch1")
        (tmp_path / f"{name}.safetensors").write_bytes((folder / f"epoch-{epoch:03d}.safetensors").read_bytes())
    paths = tuple(str(tmp_path / f"{name}.safetensors") for name in names)
    results = rounded(cifar100.measure(Work(), weights=paths, data="here"))
    assert [network["seed"] for network in results["networks"]] == [1, 0]
    own = [point for point in trained["results"]["points"] if point["depth"] == 8]
    order = [own[3], own[1], own[0], own[4]]
    assert results["points"] == order
    assert results["epochs"] == 2
    assert {"epochs", "fractions"} <= set(cifar100.tables(results))


def test_stopped_run_goes_on_without_training_again(small_cifar, tmp_path, monkeypatch):
    chosen = {"epochs": 2, "seeds": 1, "checkpoints": str(tmp_path / "runs"), "data": "here"}

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cifar100.sweeps, "sweeps", stopped)
        with pytest.raises(KeyboardInterrupt):
            cifar100.measure(Work(tmp_path / "part"), **chosen)
    monkeypatch.setattr(networks, "train", lambda *_, **__: pytest.fail("trained again"))
    results = cifar100.measure(Work(tmp_path / "part"), **chosen)
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
        cifar100.measure(Work(), **{"data": "here", "checkpoints": str(tmp_path), **wrong})


def test_missing_weights_and_data_are_named(small_cifar, tmp_path, monkeypatch):
    with pytest.raises(MemoryFileError, match="nowhere"):
        cifar100.measure(Work(), weights=("nowhere",), data="here")
    monkeypatch.undo()
    with pytest.raises(MemoryFileError, match="holds neither"):
        cifar100.measure(Work(), data=str(tmp_path))
