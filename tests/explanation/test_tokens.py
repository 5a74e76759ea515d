"""A predicted token's parts add up to what the reader scores."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import ParameterError, ShapeError

V = 9


def tokens(seed, documents, length=12):
    rng = np.random.default_rng(seed)
    n = len(documents) * length
    labels = rng.integers(0, V, n)
    return rs.Encoded(
        rng.normal(size=(n, 4)).astype(np.float32),
        rng.normal(size=(n, V)).astype(np.float32),
        labels,
        ids=np.repeat(documents, length),
        columns={"offset": np.tile(np.arange(length), len(documents))},
    )


@pytest.mark.parametrize("storage", ["none", "top-m", "full"])
def test_the_parts_are_the_scores(storage):
    memory = rs.Memory(tokens(0, [3, 4, 5]), storage=storage, m=4, names={4: "four.py"})
    query = tokens(1, [8])[5]
    reader = rs.KNNLM(memory, k=6, lmbda=0.3, sigma=2.0) if storage == "none" else rs.ResMem(memory, k=6, sigma=2.0)
    why = rs.explain(reader, query)
    scores = reader.scores(query)[0]
    assert why.prediction == scores.argmax() and why.base_prediction == query.logits.argmax()[0]
    np.testing.assert_allclose(why.scores, scores[why.tokens], atol=1e-6)
    for word, token in (("predicted", why.prediction), ("base", why.base_prediction), ("true", why.label)):
        place = np.flatnonzero(why.tokens == token)
        if len(place):
            added = float(why.contributions[word].sum())
            assert why.scale * why.base[place[0]] + added == pytest.approx(why.scores[place[0]], abs=1e-6)
    found = memory.search(query.keys, 6)
    assert why.rows.tolist() == found.rows[0].tolist()
    np.testing.assert_allclose(why.distances, found.distances[0])


def test_contexts_are_the_remembered_tokens_before():
    enc = tokens(0, [3, 4])
    memory = rs.Memory(enc, storage="none", names={3: "three.py", 4: "four.py"})
    why = rs.explain(rs.KNNLM(memory, k=24, sigma=2.0), tokens(1, [8])[0])
    for row, document, offset, context, label in zip(
        why.rows, why.ids, why.offsets, why.contexts, why.labels, strict=True
    ):
        assert (enc.ids[row], enc.columns["offset"][row], enc.labels[row]) == (document, offset, label)
        assert context.tolist() == enc.labels[row - min(offset, 12) : row].tolist()
    assert "three.py" in str(why) and "token " in str(why)


def test_a_frame_has_text():
    class Letters:
        def decode(self, ids):
            return "".join("abcdefghi"[i] for i in ids)

    memory = rs.Memory(tokens(0, [3]), storage="none")
    why = rs.explain(rs.KNNLM(memory, k=3, sigma=2.0), tokens(1, [8])[0]).with_tokenizer(Letters())
    frame = why.to_frame()
    assert frame["next"].tolist() == ["abcdefghi"[i] for i in why.labels]
    assert list(frame)[:6] == ["document", "offset", "context", "next", "distance", "weight"]
    assert "abcdefghi"[why.prediction] in str(why).splitlines()[0]


def test_without_neighbours_it_is_the_base():
    memory = rs.Memory(tokens(0, [3]), storage="none")
    query = tokens(1, [8])[0]
    why = rs.explain(rs.KNNLM(memory, k=0), query)
    p = torch.softmax(query.logits.dense(), dim=1)[0]
    assert len(why) == 0 and why.prediction == why.base_prediction == int(p.argmax())
    assert why.scores[0] == pytest.approx(float(p.max()))
    assert "no neighbours" in str(why)


def test_bad_input():
    memory = rs.Memory(tokens(0, [3]), storage="none")
    reader = rs.KNNLM(memory, k=3, sigma=2.0)
    with pytest.raises(ShapeError, match="one prediction"):
        rs.explain(reader, tokens(1, [8]))
    cache = rs.ContinuousCache(reader, window=5, theta=0.1, lmbda=0.2)
    with pytest.raises(ParameterError, match="looks back"):
        rs.explain(cache, tokens(1, [8])[0])
