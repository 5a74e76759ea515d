"""A Trainer with the callback learns what it would have learned without, and logs what the verbs say."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import residua as rs

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import Trainer, TrainerCallback, TrainingArguments

from residua.integrations.transformers import MemoryCallback


class Network(nn.Module):
    """A classifier as transformers' are: named inputs, a loss where there are labels, logits."""

    def __init__(self):
        super().__init__()
        self.body, self.norm, self.drop = nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3)
        self.classifier = nn.Linear(16, 2)

    def forward(self, features, labels=None):
        logits = self.classifier(self.drop(self.norm(self.body(features)).relu()))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}


class Rows(torch.utils.data.Dataset):
    def __init__(self, n=48, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.features = torch.randn(n, 4, generator=generator)
        self.labels = (self.features[:, 0] * self.features[:, 1] > 0).long()

    def __len__(self):
        return len(self.features)

    def __getitem__(self, i):
        return {"features": self.features[i], "labels": self.labels[i], "unused": 1.0}


class Noisy(Rows):
    """The same, and reading it draws random numbers."""

    def __getitem__(self, i):
        random.random(), np.random.random(), torch.rand(1)
        return super().__getitem__(i)


def trained(folder, callback=True, **options):
    torch.manual_seed(0)
    usual = {"num_train_epochs": 3, "per_device_train_batch_size": 8, "learning_rate": 0.01, "use_cpu": True}
    usual |= {"report_to": [], "logging_strategy": "epoch", "disable_tqdm": True, "save_strategy": "no"}
    trainer = Trainer(Network(), TrainingArguments(str(folder), **usual | options), train_dataset=Rows())
    if callback:
        trainer.add_callback(MemoryCallback(trainer, Noisy(seed=1), Noisy(seed=2)))
    trainer.train()
    return trainer


def weights(trainer):
    return torch.cat([tensor.detach().float().reshape(-1) for tensor in trainer.model.state_dict().values()])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 4},
        {"bf16": True},
        {"max_steps": 10, "gradient_accumulation_steps": 3, "logging_strategy": "steps", "logging_steps": 3},
        {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
    ],
)
def test_training_goes_on_as_without(tmp_path, options):
    alone, watched = trained(tmp_path, callback=False, **options), trained(tmp_path, **options)
    assert torch.equal(weights(alone), weights(watched))
    kept = [{k: v for k, v in row.items() if "runtime" not in k and "per_second" not in k} for row in losses(watched)]
    assert kept == [{name: row[name] for name in now} for now, row in zip(kept, losses(alone))]
    assert len(losses(alone)) == len(losses(watched))
    assert watched.model.training == alone.model.training


def losses(trainer):
    return [row for row in trainer.state.log_history if not any("memory" in name for name in row)]


@pytest.mark.slow
def test_what_is_logged_is_what_the_verbs_say(tmp_path):
    seen = []

    class Logger(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            seen.append(dict(logs))

    torch.manual_seed(0)
    options = {"num_train_epochs": 2, "use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    trainer = Trainer(Network(), TrainingArguments(str(tmp_path), **options), train_dataset=Rows(), callbacks=[Logger])
    callback = MemoryCallback(trainer, Rows(seed=1), Rows(seed=2), build=lambda rows: rs.ResMem(rs.Memory(rows), k=3))
    trainer.add_callback(callback)
    trainer.train()
    logged = [row for row in seen if "eval_memory_accuracy" in row]
    assert len(logged) == len(callback.results) == 2
    model = trainer.model
    reader = rs.ResMem(rs.Memory(rs.encode(model, Rows(seed=1))), k=3)
    expected = rs.evaluate(reader, rs.encode(model, Rows(seed=2)), label_knn=False)
    assert logged[-1]["eval_base_accuracy"] == expected.base_accuracy
    assert logged[-1]["eval_memory_accuracy"] == expected.accuracy == callback.results[-1].accuracy
    assert logged[-1]["eval_memory_gain"] == pytest.approx(expected.gain)
    assert logged[-1]["epoch"] == 2


@pytest.mark.slow
def test_texts_of_a_language_model(tmp_path, tiny_model, tiny_tokenizer):
    texts = ["def add(first, second):\n    return first + second\n", "class Counter:\n    pass\n"] * 4
    blocks = [{"input_ids": row, "labels": row} for row in tiny_tokenizer(texts)["input_ids"]]
    blocks = [{name: torch.tensor(row[:8]) for name, row in block.items()} for block in blocks]
    options = {"num_train_epochs": 1, "use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    trainer = Trainer(tiny_model("gpt2"), TrainingArguments(str(tmp_path), **options), train_dataset=blocks)
    encode = lambda model, texts: rs.encode((model, tiny_tokenizer), texts)  # noqa: E731
    callback = MemoryCallback(trainer, texts[:1], ["def add(first, third):\n    return third\n"], encode=encode)
    trainer.add_callback(callback)
    trainer.train()
    (result,) = callback.results
    assert result.perplexity > 0 and "eval_memory_perplexity" in trainer.state.log_history[-2]


@pytest.mark.slow
def test_hugging_faces_datasets(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = Rows()
    data = datasets.Dataset.from_dict(
        {"features": rows.features.tolist(), "labels": rows.labels.tolist(), "text": ["x"] * len(rows)}
    )
    options = {"num_train_epochs": 1, "use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    trainer = Trainer(Network(), TrainingArguments(str(tmp_path), **options), train_dataset=data)
    callback = MemoryCallback(trainer, data, data.shuffle(seed=0))
    trainer.add_callback(callback)
    trainer.train()
    assert callback.results[0].n == len(rows)
    assert np.isfinite(callback.results[0].log_loss)


@pytest.fixture
def trainer(tmp_path):
    options = {"num_train_epochs": 1, "use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    torch.manual_seed(0)
    return Trainer(Network(), TrainingArguments(str(tmp_path), **options), train_dataset=Rows())


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return (Rows(seed=1)[i] for i in range(len(Rows())))


def as_tensors(rows):
    return rows.features, rows.labels


@pytest.mark.parametrize(
    "data",
    [
        Rows(seed=1),
        [Rows(seed=1)[i] for i in range(48)],
        Stream(),
        torch.utils.data.DataLoader(Rows(seed=1), batch_size=5, shuffle=True),
        as_tensors(Rows(seed=1)),
    ],
    ids=["dataset", "list", "stream", "loader", "pair"],
)
def test_whatever_holds_the_rows(trainer, data):
    model = trainer.model.train()
    found = MemoryCallback(trainer, data, data)._watch.evaluate(model)
    expected = rs.encode(model, (Rows(seed=1).features, Rows(seed=1).labels))
    assert found.n == len(expected)
    assert found.base_accuracy == (expected.logits.dense().argmax(1).numpy() == expected.labels).mean()
    assert model.training


def test_texts_need_a_tokenizer(trainer):
    callback = MemoryCallback(trainer, ["a text"], ["another"])
    with pytest.raises(rs.errors.InputError, match=r"rs.encode\(\(model, tokenizer\), texts\)"):
        callback._watch.evaluate(trainer.model)


@pytest.mark.slow
def test_evaluation_and_early_stopping_go_on(tmp_path):
    from transformers import EarlyStoppingCallback

    def run(watched):
        torch.manual_seed(0)
        options = {"num_train_epochs": 6, "use_cpu": True, "report_to": [], "disable_tqdm": True}
        options |= {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
        options |= {"metric_for_best_model": "eval_loss", "logging_strategy": "epoch", "save_total_limit": 1}
        arguments = TrainingArguments(str(tmp_path / str(watched)), learning_rate=0.2, **options)
        own = Trainer(Network(), arguments, train_dataset=Rows(), eval_dataset=Rows(seed=3))
        own.add_callback(EarlyStoppingCallback(1, 0.05))
        if watched:
            own.add_callback(MemoryCallback(own, Noisy(seed=1), Noisy(seed=2)))
        own.train()
        return own

    alone, watched = run(False), run(True)
    assert alone.state.global_step == watched.state.global_step < 6 * 6  # it stopped early
    assert torch.equal(weights(alone), weights(watched))
    assert len(losses(alone)) == len(losses(watched))
