"""A Lightning trainer with the callback learns what it would have learned without, and logs what the verbs say."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import residua as rs

pytest.importorskip("lightning.pytorch")

import lightning.pytorch as lightning

from residua.integrations.lightning import MemoryCallback

# Lightning's own advice about small machines, and what it does with torch.
pytestmark = [pytest.mark.filterwarnings("ignore:.*"), pytest.mark.slow]


def rows(n=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, 4, generator=generator)
    return TensorDataset(points, (points[:, 0] * points[:, 1] > 0).long())


class Noisy(torch.utils.data.Dataset):
    """The same, and reading it draws random numbers."""

    def __init__(self, seed):
        self.rows = rows(seed=seed)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        random.random(), np.random.random(), torch.rand(1)
        return self.rows[i]


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"rate": 0.01})
        self.network = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, _):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, _):
        accuracy = (self(batch[0]).argmax(1) == batch[1]).float().mean()
        self.log("val_accuracy", accuracy, on_epoch=True, batch_size=len(batch[0]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def trained(folder, *callbacks, validate=False, **options):
    lightning.seed_everything(0, verbose=False)
    usual = {"max_epochs": 3, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    usual |= {"enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": folder}
    trainer = lightning.Trainer(callbacks=list(callbacks), **usual | options)
    shuffled = DataLoader(rows(), batch_size=8, shuffle=True)
    trainer.fit(Module(), shuffled, DataLoader(rows(seed=2), batch_size=8) if validate else None)
    return trainer


def weights(trainer):
    return torch.cat([tensor.detach().float().reshape(-1) for tensor in trainer.lightning_module.state_dict().values()])


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 4}, {"precision": "bf16-mixed"}, {"precision": "bf16-true"}, {"validate": True}],
)
def test_training_goes_on_as_without(tmp_path, options):
    alone = trained(tmp_path, **options)
    watched = trained(tmp_path, callback := MemoryCallback(Noisy(1), Noisy(2)), **options)
    assert torch.equal(weights(alone), weights(watched))
    assert len(callback.results) == 3
    assert all(module.training for module in watched.lightning_module.modules()) == all(
        module.training for module in alone.lightning_module.modules()
    )
    assert {name: watched.callback_metrics[name] for name in alone.callback_metrics} == alone.callback_metrics


def test_what_is_logged_is_what_the_verbs_say(tmp_path):
    shuffled = DataLoader(rows(seed=1), batch_size=5, shuffle=True)
    callback = MemoryCallback(shuffled, rows(seed=2), build=lambda seen: rs.ResMem(rs.Memory(seen), k=3))
    trainer = trained(tmp_path, callback, validate=True)
    module = trainer.lightning_module
    reader = rs.ResMem(rs.Memory(rs.encode(module, rows(seed=1))), k=3)
    expected = rs.evaluate(reader, rs.encode(module, rows(seed=2)), label_knn=False)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["val_base_accuracy"] == pytest.approx(expected.base_accuracy)
    assert logged["val_memory_accuracy"] == pytest.approx(expected.accuracy)
    assert logged["val_memory_gain"] == pytest.approx(expected.gain)
    assert logged["val_base_accuracy"] == pytest.approx(logged["val_accuracy"])  # its own validation


def test_the_precision_is_that_of_its_own_validation(tmp_path):
    trainer = trained(tmp_path, MemoryCallback(rows(seed=1), rows(seed=2)), validate=True, precision="bf16-mixed")
    logged = trainer.callback_metrics
    assert float(logged["val_base_accuracy"]) == pytest.approx(float(logged["val_accuracy"]))


def test_every_logger_there_is_gets_it(tmp_path):
    logger = lightning.loggers.CSVLogger(tmp_path)
    trained(tmp_path, MemoryCallback(rows(seed=1), rows(seed=2)), logger=logger)
    logger.save()
    header, *lines = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()
    place = header.split(",").index("val_memory_accuracy")
    assert len([line for line in lines if line.split(",")[place]]) == 3


def test_checkpoints_go_by_it(tmp_path):
    best = lightning.callbacks.ModelCheckpoint(tmp_path / "best", monitor="val_memory_accuracy", mode="max")
    callback = MemoryCallback(rows(seed=1), rows(seed=2))
    trained(tmp_path, best, callback, enable_checkpointing=True)
    assert float(best.best_model_score) == pytest.approx(max(result.accuracy for result in callback.results))


def test_a_part_of_the_module(tmp_path):
    encode = lambda module, data: rs.encode(module.network, data, key="2")  # noqa: E731
    callback = MemoryCallback(rows(seed=1), rows(seed=2), encode=encode, prefix="")
    trainer = trained(tmp_path, callback)
    assert float(trainer.callback_metrics["memory_accuracy"]) == pytest.approx(callback.results[-1].accuracy)


@pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])
def test_either_package_takes_it(name):
    pytest.importorskip(name)
    code = f"import {name} as pl; from residua.integrations.lightning import MemoryCallback as M; "
    code += "assert issubclass(M, pl.Callback)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
