"""The committed networks are those that the committed record measured."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.cifar100.data import normalise, read
from experiments.cifar100.resnet import load
from experiments.runner import read as read_record

RESULTS = Path(__file__).resolve().parents[3] / "results"
CHECKPOINTS = sorted((RESULTS / "checkpoints").glob("*.safetensors"))


def test_every_network_of_the_headline_is_there():
    record = read_record(RESULTS / "cifar100.json")
    assert len(CHECKPOINTS) == len(record["results"]["networks"]) == record["options"]["seeds"]


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_network_has_the_recorded_accuracy(shared, path):
    images, labels = read(shared / "data" / "cifar100", "test")
    seed = int(re.search(r"seed(\d+)", path.stem)[1])
    networks = read_record(RESULTS / "cifar100.json")["results"]["networks"]
    (recorded,) = (network["base"] for network in networks if network["seed"] == seed)
    model = load(path)
    with torch.inference_mode():
        predicted = torch.cat([model(batch).argmax(dim=1) for batch in normalise(images).split(1000)])
    # Another processor may round a tie or two otherwise.
    assert 100 * np.mean(predicted.numpy() == labels) == pytest.approx(recorded, abs=0.05)
