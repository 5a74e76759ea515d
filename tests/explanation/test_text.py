"""Where the memory is a text, neighbours come with their contexts, and are shown as text."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import ParameterError, ShapeError

V = 9


class Letters:
    def decode(self, ids):
        return "".join("abcdefghi"[i] for i in ids)


class Lines:
    """Every token is the same troublesome text."""

    def decode(self, ids):
        return "\n\x1b[31m" * len(ids)


def tokens(seed, documents, length=12, V=V, **columns):
    rng = np.random.default_rng(seed)
    n = len(documents) * length
    labels = rng.integers(0, V, n)
    return rs.Encoded(
        rng.normal(size=(n, 4)).astype(np.float32),
        rng.normal(size=(n, V)).astype(np.float32),
        labels,
        ids=np.repeat(documents, length),
        columns={"offset": np.tile(np.arange(length), len(documents))} | columns,
    )


@pytest.mark.parametrize("vocabulary", [V, 1500])
@pytest.mark.parametrize("storage", ["none", "top-m", "full"])
def test_the_parts_are_the_scores(storage, vocabulary):
    memory = rs.Memory(tokens(0, [3, 4, 5], V=vocabulary), storage=storage, m=4, names={4: "four.py"})
    query = tokens(1, [8], V=vocabulary)[5]
    reader = rs.KNNLM(memory, k=6, lmbda=0.3, sigma=2.0) if storage == "none" else rs.ResMem(memory, k=6, sigma=2.0)
    why = rs.explain(reader, query)
    scores = reader.scores(query)[0]
    assert why.prediction == scores.argmax() and why.base_prediction == query.logits.argmax()[0]
    np.testing.assert_allclose(why.scores, scores[why.outputs], atol=1e-6)
    np.testing.assert_allclose(why.scale * why.base + why.contributions.sum(axis=0), why.scores, atol=1e-6)
    for word, token in (("predicted", why.prediction), ("base", why.base_prediction), ("true", why.label)):
        (place,) = np.flatnonzero(why.outputs == token)
        added = float(why.contributions_to[word].sum())
        assert why.scale * why.base[place] + added == pytest.approx(why.scores[place], abs=1e-6)
    if storage == "none" and vocabulary > 1000:
        touched = {*why.labels.tolist(), why.prediction, why.base_prediction, why.label}
        assert why.outputs.tolist() == sorted(touched)
    found = memory.search(query.keys, 6)
    assert why.rows.tolist() == found.rows[0].tolist()
    np.testing.assert_allclose(why.distances, found.distances[0])


def test_a_document_is_not_its_own_neighbour():
    enc = tokens(0, [3, 4])
    reader = rs.KNNLM(rs.Memory(enc, storage="none", names={3: "three.py", 4: "four.py"}), k=6, sigma=2.0)
    why = rs.explain(reader, enc[5])
    assert set(why.ids) == {4} and why.names == {4: "four.py"}
    assert rs.explain(reader, enc[5], exclude=None).rows[0] == 5


def test_contexts_are_the_remembered_tokens_before():
    enc = tokens(0, [3, 4])
    memory = rs.Memory(enc, storage="none", names={3: "three.py", 4: "four.py"})
    why = rs.explain(rs.KNNLM(memory, k=24, sigma=2.0), tokens(1, [8])[0])
    for row, document, offset, context, label in zip(
        why.rows, why.ids, why.offsets, why.contexts, why.labels, strict=True
    ):
        assert (enc.ids[row], enc.columns["offset"][row], enc.labels[row]) == (document, offset, label)
        assert context.tolist() == enc.labels[row - min(offset, 12) : row].tolist()
    short = rs.explain(rs.KNNLM(memory, k=24, sigma=2.0), tokens(1, [8])[0], context=2)
    assert [c.tolist() for c in short.contexts] == [c.tolist()[-2:] for c in why.contexts]
    assert why.names == {3: "three.py", 4: "four.py"}
    assert "three.py" in str(why) and "token " in str(why)


def test_a_frame_has_text():
    memory = rs.Memory(tokens(0, [3], weight=np.ones(12)), storage="none")
    why = rs.explain(rs.KNNLM(memory, k=3, sigma=2.0), tokens(1, [8])[0]).with_tokenizer(Letters())
    frame = why.to_frame()
    assert frame["next"].tolist() == ["abcdefghi"[i] for i in why.labels]
    assert list(frame)[:6] == ["document", "offset", "context", "next", "distance", "weight"]
    assert list(frame)[6:] == ["to_predicted", "to_base", "to_true", "column.weight"]
    for word, values in why.contributions_to.items():
        np.testing.assert_array_equal(frame[f"to_{word}"], values)
    assert str(why).startswith(f"prediction '{'abcdefghi'[why.prediction]}' (base alone ")
    same = rs.explain(rs.KNNLM(memory, k=3, sigma=2.0), tokens(1, [8])[0], tokenizer=Letters())
    assert str(same) == str(why)
    named = why.with_tokenizer(None).to_frame([f"word {i}" for i in range(V)])
    assert named["next"].tolist() == [f"word {label}" for label in why.labels]
    with pytest.raises(ShapeError, match="1 names for 9"):
        why.to_frame(["a"])


def test_nothing_unprintable_is_printed():
    memory = rs.Memory(tokens(0, [3]), storage="none", names={3: "three\x1b[31m\n\u202e.py"})
    why = rs.explain(rs.KNNLM(memory, k=2, sigma=2.0), tokens(1, [8])[0]).with_tokenizer(Lines())
    assert all(line.isprintable() for line in str(why).split("\n"))
    assert str(why).count("\n") == str(why.with_tokenizer(None)).count("\n")
    assert r"(three\x1b[31m\n\u202e.py, token " in str(why)
    assert str(why).startswith(r"prediction '\n\x1b[31m' (base alone '\n\x1b[31m', truth '\n\x1b[31m')")
    assert repr(why).isprintable() and "2 neighbours" in repr(why)
    assert why.to_frame()["document"].tolist() == ["three\x1b[31m\n\u202e.py"] * 2  # the data are as they are


def test_without_neighbours_it_is_the_base():
    memory = rs.Memory(tokens(0, [3]), storage="none")
    query = tokens(1, [8])[0]
    why = rs.explain(rs.KNNLM(memory, k=0), query)
    p = torch.softmax(query.logits.dense(), dim=1)[0]
    assert len(why) == 0 and why.prediction == why.base_prediction == int(p.argmax())
    np.testing.assert_allclose(why.scores, p, atol=1e-6)
    assert "no neighbours" in str(why)


def test_bad_input():
    memory = rs.Memory(tokens(0, [3]), storage="none")
    reader = rs.KNNLM(memory, k=3, sigma=2.0)
    with pytest.raises(ShapeError, match="one prediction"):
        rs.explain(reader, tokens(1, [8]))
    cache = rs.ContinuousCache(reader, window=5, theta=0.1, lmbda=0.2)
    with pytest.raises(ParameterError, match="looks back"):
        rs.explain(cache, tokens(1, [8])[0])
