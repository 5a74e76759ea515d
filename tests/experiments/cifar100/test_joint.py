"""Joint training: its loss by hand, and a small run from a network to tables and picture."""

import numpy as np
import pytest
import torch

from experiments import joint
from experiments.joint import Queue, joint_loss, residual
from experiments.runner import run


def queue_of(keys, labels, said, rows):
    queue = Queue()
    queue.push(torch.tensor(keys), torch.tensor(labels), torch.tensor(said), torch.tensor(rows))
    return queue


def test_the_residual_by_hand():
    queue = queue_of([[0.0], [1.0], [3.0]], [0, 1, 1], [[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]], [7, 8, 9])
    found = residual(torch.tensor([[0.0], [3.0]]), torch.tensor([7, 5]), queue, 2)
    # The first goes without its own row: distances squared 1 and 9; the second's are 9, 4, 0. Their typical one is 0.
    typical = 1e-12  # the lower median of 1 and 0
    weights = np.exp(-np.array([1.0, 9.0]) / typical)
    assert weights.sum() == 0  # so far apart that the nearest alone counts
    assert found.numpy() == pytest.approx(np.array([[-0.2, 0.2], [-0.9, 0.9]]), abs=1e-6)


def test_kernel_weights_by_hand():
    queue = queue_of([[0.0], [2.0]], [0, 1], [[0.5, 0.5], [0.5, 0.5]], [0, 1])
    found = residual(torch.tensor([[1.0], [0.0], [0.5]]), torch.tensor([5, 0, 6]), queue, 2).numpy()
    # Nearest distances squared: 1, 4 (its own is left out), 0.25; the median is 1.
    each = np.exp(-np.array([[1.0, 1.0], [np.inf, 4.0], [0.25, 2.25]]))
    each /= each.sum(axis=1, keepdims=True)
    assert found == pytest.approx(each @ np.array([[0.5, -0.5], [-0.5, 0.5]]), abs=1e-6)


def test_the_loss_is_half_plain_and_half_corrected_and_moves_the_keys():
    logits, keys = torch.zeros(2, 2), torch.tensor([[0.9], [1.0]], requires_grad=True)
    labels, rows = torch.tensor([1, 1]), torch.tensor([3, 4])
    assert float(joint_loss(logits, keys, labels, rows, Queue())) == pytest.approx(np.log(2))
    queue = queue_of([[0.0], [2.0]], [0, 1], [[0.5, 0.5], [0.5, 0.5]], [0, 1])
    said = joint.STRENGTH * residual(keys, rows, queue, 2).detach().numpy()
    corrected = -said[:, 1] + np.log(np.exp(said).sum(axis=1))
    loss = joint_loss(logits, keys, labels, rows, queue)
    assert loss.item() == pytest.approx(np.log(2) / 2 + corrected.mean() / 2, rel=1e-5)
    loss.backward()
    assert float(keys.grad[0]) < 0  # nearer to the row of its own label


def test_a_queue_forgets_its_oldest(monkeypatch):
    monkeypatch.setattr(joint, "QUEUE", 3)
    queue = queue_of([[0.0], [1.0]], [0, 1], [[0.5], [0.5]], [0, 1])
    queue.push(torch.tensor([[2.0], [3.0]]), torch.tensor([1, 0]), torch.tensor([[0.1], [0.2]]), torch.tensor([2, 3]))
    assert queue.rows.tolist() == [1, 2, 3] and queue.keys[:, 0].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.slow
def test_a_small_run(small_cifar, small_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(joint, "GRID", {"k": [3], "temperature": [1.0]})
    found = run("joint", tmp_path, weights=str(small_weights), data="here", epochs=1, device="cpu")["results"]
    (one,) = found["runs"]
    assert one["ways"]["before"]["steps"] == 0 < one["ways"]["joint"]["steps"] == one["ways"]["steps"]["steps"]
    assert len(joint.tables(found)["ways"].rows) == len(joint.WAYS) and joint.draw(found).axes
