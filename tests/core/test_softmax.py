"""One reading of the logits answers as PyTorch's own functions do."""

import pytest
import torch

from residua.core import DenseLogits, Head, HeadLogits, Softmax, TopLogits
from residua.core import softmax as module


@pytest.mark.parametrize("width", [2, 300, 512, 1025, 3000])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_torch(width, temperature, dtype, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2 * width)  # several blocks
    logits = (4 * torch.randn(7, width, generator=torch.Generator().manual_seed(width))).to(dtype)
    logits[3, width - 1], logits[4, 0] = 30, -torch.inf  # the best in the last, short piece; an impossible token
    said, expected = Softmax(DenseLogits(logits), temperature), torch.log_softmax(logits.double() / temperature, dim=1)
    torch.testing.assert_close(said.best.token, logits.argmax(dim=1))
    torch.testing.assert_close(said.best.log_prob.double(), expected.amax(dim=1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(said.log_probabilities().double(), expected, rtol=1e-5, atol=1e-5)
    tokens, rows = torch.tensor([[1, 0], [0, 1]] * 2), torch.tensor([5, 0, 4, 2])
    torch.testing.assert_close(
        said.log_prob(tokens, rows).double(), expected[rows].gather(1, tokens), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(said.log_prob(tokens[:2], slice(5, 7)), said.log_prob(tokens[:2], torch.tensor([5, 6])))
    torch.testing.assert_close(said.log_prob(tokens[[0] * 7, 1])[:, None], said.log_prob(tokens[[0] * 7])[:, 1:])


def test_every_kind_of_logits():
    generator = torch.Generator().manual_seed(0)
    keys, head = torch.randn(5, 4, generator=generator), Head(torch.randn(9, 4, generator=generator))
    expected = torch.log_softmax(head(keys) / 2, dim=1)
    every = head(keys).topk(9, dim=1)
    kept = TopLogits(every.indices.int(), every.values, torch.logsumexp(head(keys) / 2, dim=1), 9, 2.0)
    for logits in (HeadLogits(head, keys), kept):
        said = Softmax(logits, 2.0)
        torch.testing.assert_close(said.best.token, expected.argmax(dim=1))
        torch.testing.assert_close(said.log_probabilities(), expected)
        torch.testing.assert_close(said.log_prob(torch.tensor([8, 0, 1, 2, 3])), expected[range(5), [8, 0, 1, 2, 3]])


def test_no_rows():
    said = Softmax(DenseLogits(torch.empty(0, 600)))
    assert (len(said), len(said.best.token), said.log_probabilities().shape) == (0, 0, (0, 600))
