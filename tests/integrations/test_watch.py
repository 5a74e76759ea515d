"""A model in training is looked at, and does not notice."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import residua as rs
from residua.integrations.watch import Watch, undisturbed, usual_reader, usual_rows


def data(n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n, 4, generator=generator)
    return TensorDataset(points, (points[:, 0] > 0).long())


def draws():
    return random.random(), np.random.random(), torch.rand(3).tolist(), torch.randperm(5).tolist()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def test_random_states_are_put_back():
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    expected = draws()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    with undisturbed():
        assert draws() == expected
        draws()
    assert draws() == expected


def test_random_states_are_put_back_after_an_error():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with pytest.raises(ZeroDivisionError), undisturbed():
        torch.rand(1)
        raise ZeroDivisionError
    assert torch.equal(torch.rand(3), expected)


def test_what_is_measured_is_what_the_verbs_say():
    model = network()
    watch = Watch(data(), data(seed=1), usual_reader, usual_rows, "eval_")
    result = watch.evaluate(model)
    reader = rs.ResMem(rs.Memory(rs.encode(model, data())))
    expected = rs.evaluate(reader, rs.encode(model, data(seed=1)), label_knn=False)
    assert result.metrics() == expected.metrics()
    logged = watch.logged(result)
    assert logged["eval_base_accuracy"] == expected.base_accuracy
    assert logged["eval_memory_accuracy"] == expected.accuracy
    assert logged["eval_memory_gain"] == expected.gain
    assert all(type(value) is float for value in logged.values())


def test_the_model_is_as_it_was():
    model, (points, labels) = network(), data().tensors
    model[3].eval()  # somebody froze the dropout alone
    nn.functional.cross_entropy(model(points), labels).backward()
    before = [(p.detach().clone(), p.grad.clone()) for p in model.parameters()]
    buffers = [buffer.clone() for buffer in model.buffers()]

    def careless(model, rows):  # leaves the mode as it likes, and gradients on
        model.eval()
        assert not torch.is_grad_enabled()
        return rs.encode(model, rows)

    Watch(data(), data(seed=1), usual_reader, careless, "").evaluate(model)
    assert [module.training for module in model] == [True, True, True, False, True]
    for parameter, (value, gradient) in zip(model.parameters(), before):
        assert torch.equal(parameter, value) and torch.equal(parameter.grad, gradient)
    assert all(torch.equal(now, then) for now, then in zip(model.buffers(), buffers))
    assert torch.is_grad_enabled()


def test_rows_that_are_encoded_already():
    model = network()
    rows = rs.encode(model, data())
    assert usual_rows(model, rows) is rows


def test_texts_are_read_by_knnlm(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2").train()
    texts = ["def add(first, second):\n    return first + second\n"]
    watch = Watch(texts, texts, usual_reader, lambda model, texts: rs.encode((model, tiny_tokenizer), texts), "")
    result = watch.evaluate(model)
    assert (result.reader, result.objective) == ("KNNLM", "log_loss")
    assert {"base_perplexity", "memory_perplexity"} <= watch.logged(result).keys()
    assert model.training
