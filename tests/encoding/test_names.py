"""What datasets and estimators call their classes and examples."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

import residua as rs


class Folder(Dataset):
    """As torchvision's ImageFolder: ``classes``, and ``samples`` of (path, class)."""

    def __init__(self):
        self.classes = ["cat", "dog", "emu"]
        self.samples = [(f"root/{self.classes[i % 3]}/{i}.png", i % 3) for i in range(9)]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        return torch.tensor([float(i), 1.0]), self.samples[i][1]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)).eval()


def test_classes_and_paths_of_a_folder(model):
    enc = rs.encode(model, Folder())
    assert enc.classes == ("cat", "dog", "emu")
    assert enc.names.tolist() == [path for path, _ in Folder().samples]


def test_through_loaders_and_subsets(model):
    part = Subset(Subset(Folder(), [8, 1, 5, 3]), [3, 0])
    enc = rs.encode(model, DataLoader(part, batch_size=2))
    assert enc.names.tolist() == ["root/cat/3.png", "root/emu/8.png"] and enc.labels.tolist() == [0, 2]


def test_names_of_other_classes_than_the_models_are_left_out():
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 5)).eval()
    assert rs.encode(model, Folder()).classes is None


def test_features_of_a_datasets_table(model):
    datasets = pytest.importorskip("datasets")
    kinds = {"x": datasets.List(datasets.Value("float32")), "label": datasets.ClassLabel(names=["n", "o", "p"])}
    table = datasets.Dataset.from_dict({"x": [[0.0, 1.0]] * 3, "label": [0, 1, 2]}, datasets.Features(kinds))

    class Pairs(Dataset):
        features = table.features

        def __len__(self):
            return len(table)

        def __getitem__(self, i):
            return torch.tensor(table[i]["x"]), table[i]["label"]

    assert rs.encode(model, Pairs()).classes == ("n", "o", "p")


def test_classes_of_an_estimator():
    linear = pytest.importorskip("sklearn.linear_model")
    X = np.random.default_rng(0).normal(size=(40, 3))
    side = (X[:, 0] > 0).astype(int)
    of_words = rs.encode(linear.LogisticRegression().fit(X, np.array(["no", "yes"])[side]), X)
    assert of_words.classes == ("no", "yes")
    assert rs.encode(linear.LogisticRegression().fit(X, side + 7), X).classes == ("7", "8")
    assert rs.encode(linear.LogisticRegression().fit(X, side), X).classes is None


def test_columns_of_a_frame_of_targets():
    linear, pandas = pytest.importorskip("sklearn.linear_model"), pytest.importorskip("pandas")
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = pandas.DataFrame({"rent": X[:, 0] + X[:, 1] ** 2, "heat": X[:, 2] ** 3})
    assert rs.encode(linear.LinearRegression().fit(X, y), X, y).classes == ("rent", "heat")
