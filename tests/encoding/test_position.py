"""Keys of sequences: read where the model reads its outputs, or as the attention mask says, or refused."""

import numpy as np
import pytest
import torch
from torch import nn

import residua as rs
from residua.errors import KeyModuleError, ParameterError

N, T, C = 12, 5, 6


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Sequence(nn.Module):
    """States (n, t, c), what `reads` takes of them, and a head."""

    def __init__(self, reads):
        super().__init__()
        self.states, self.act, self.head, self.reads = nn.Linear(3, C), nn.Tanh(), nn.Linear(C, 2), reads

    def forward(self, x):
        return self.head(self.reads(self.act(self.states(x))))


class Recurrent(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.lstm, self.fc, self.batch_first = nn.LSTM(3, C, batch_first=batch_first), nn.Linear(C, 2), batch_first

    def forward(self, x):
        states, _ = self.lstm(x if self.batch_first else x.transpose(0, 1))
        return self.fc(states[:, -1] if self.batch_first else states[-1])


READS = {
    "first": lambda states: states[:, 0],
    "last": lambda states: states[:, -1],
    "mean": lambda states: states.mean(1),
}


@pytest.mark.parametrize("position", READS)
def test_keys_are_read_where_the_outputs_are(position):
    model = Sequence(READS[position]).eval()
    x = torch.randn(N, T, 3)
    enc = rs.encode(model, (x, torch.arange(N) % 2), key="act", batch_size=5)
    states = model.states(x).tanh().detach()
    np.testing.assert_allclose(enc.keys, READS[position](states), atol=1e-6)
    assert enc.source.position == position
    # So does an attached memory, and a folder keeps it.
    reader = rs.ResMem(rs.Memory(enc), k=3)
    with torch.no_grad(), rs.attach(model, reader):
        np.testing.assert_allclose(model(x).softmax(1), reader.predict_proba(enc, exclude=None), atol=1e-6)
    assert rs.core.Source.from_json(enc.source.to_json()) == enc.source
    np.testing.assert_array_equal(rs.encode(model, x, like=enc).keys, enc.keys)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("steps", [T, 8])
def test_the_batch_is_never_averaged_over(batch_first, steps):
    model = Recurrent(batch_first).eval()
    x = torch.randn(8, steps, 3)  # as many examples as steps, where steps is 8
    enc = rs.encode(model, (x, torch.arange(8) % 2), key="lstm")
    with torch.no_grad():
        states, _ = model.lstm(x if batch_first else x.transpose(0, 1))
    np.testing.assert_allclose(enc.keys, states[:, -1] if batch_first else states[-1], atol=1e-6)
    reader = rs.ResMem(rs.Memory(enc), k=3)
    with torch.no_grad(), rs.attach(model, reader):
        np.testing.assert_allclose(model(x).softmax(1), reader.predict_proba(enc, exclude=None), atol=1e-6)
    mean = rs.encode(model, x, key="lstm", position="mean").keys
    np.testing.assert_allclose(mean, states.mean(1 if batch_first else 0), atol=1e-6)


def test_as_many_steps_as_rows_of_any_module():
    model = Sequence(lambda states: states.amax(0))  # (t, n, c)
    x = torch.randn(8, 8, 3)
    model.forward = lambda rows: Sequence.forward(model, rows.transpose(0, 1))
    keys = rs.encode(model, x, key="states", position="mean").keys
    np.testing.assert_allclose(keys, model.states(x).detach().mean(1), atol=1e-6)


def test_what_cannot_be_seen_is_refused_and_can_be_said():
    model = Sequence(lambda states: states.amax(1))
    x = torch.randn(N, T, 3)
    with pytest.raises(KeyModuleError, match=r"'states' gave sequences \(8, 5, 6\).*position='first'"):
        rs.encode(model, x, key="states")
    np.testing.assert_allclose(
        rs.encode(model, x, key="states", position="mean").keys, model.states(x).detach().mean(1), atol=1e-6
    )
    with pytest.raises(ParameterError, match="position='middle'; expected one of 'first'"):
        rs.encode(model, x, key="states", position="middle")
    with pytest.raises(ParameterError, match="position='last' is for torch models"):
        from sklearn.linear_model import LogisticRegression

        rs.encode(LogisticRegression().fit([[0], [1]], [0, 1]), [[0], [1]], position="last")


def test_a_memory_of_one_position_does_not_take_keys_of_another():
    model = Sequence(READS["first"])
    x, y = torch.randn(N, T, 3), torch.arange(N) % 2
    memory = rs.Memory(rs.encode(model, (x, y), key="states", position="mean"))
    with pytest.raises(rs.errors.SourceMismatchError, match="read at 'mean' here and at 'last' there"):
        memory.add(rs.encode(model, (x, y), key="states", position="last"))


def padded(side):
    """Rows as a tokenizer makes them, each with its own amount of padding (token 1)."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, 50, (N, 9), generator=generator)
    mask = torch.ones_like(tokens)
    for row in range(N):
        for place in range(row % 4):
            at = place if side == "left" else -1 - place
            tokens[row, at], mask[row, at] = 1, 0
    labels = torch.arange(N) % 3
    return [{"input_ids": a, "attention_mask": b, "labels": c} for a, b, c in zip(tokens, mask, labels)]


SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 32, "pad_token_id": 1, "num_labels": 3}
GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "pad_token_id": 1}
GPT2 |= {"num_labels": 3, "bos_token_id": 2, "eos_token_id": 2}


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("key", ["score:input", "transformer.h.0"])
def test_the_last_token_that_is_no_padding(side, key):
    transformers = pytest.importorskip("transformers")
    model = transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**GPT2)).eval()
    rows = padded(side)
    enc = rs.encode(model, rows, key=None if key == "score:input" else key, batch_size=5)
    inputs = {name: torch.stack([row[name] for row in rows]) for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    states = model.transformer.h[0](states[0])[0] if key != "score:input" else states[-1]
    if key == "score:input":
        last = [int(mask.nonzero()[-1]) for mask in inputs["attention_mask"]]
        np.testing.assert_allclose(enc.keys, states[torch.arange(N), last], atol=1e-6)
        assert enc.head is not None
    assert (enc.source.key, enc.source.position) == (key, "last")
    with torch.no_grad():
        np.testing.assert_allclose(np.asarray(enc.logits), model(**inputs).logits, atol=1e-6)


@pytest.mark.slow
def test_the_mean_leaves_padding_out_where_only_the_mask_says_so():
    transformers = pytest.importorskip("transformers")
    model = transformers.DistilBertModel(
        transformers.DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=32, pad_token_id=1)
    ).eval()
    rows = padded("right")
    enc = rs.encode(model, rows, output=None)
    for row, key in zip(rows, enc.keys):
        kept = int(row["attention_mask"].sum())
        with torch.no_grad():
            states = model(row["input_ids"][None, :kept]).last_hidden_state[0]
        np.testing.assert_allclose(key, states.mean(0), atol=1e-5)


@pytest.mark.slow
def test_outputs_at_each_position_are_refused_in_one_way():
    transformers = pytest.importorskip("transformers")
    model = transformers.BertForTokenClassification(transformers.BertConfig(**SIZES))
    with pytest.raises(rs.errors.EncodeError, match=r"shape \(8, 9, 3\).*token classification.*rs\.Encoded\(states"):
        rs.encode(model, padded("right"))
