"""A text is rows like any other: its evaluation against float64 NumPy on dense probabilities, document by document."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

import residua as rs
from residua.core import DenseLogits, Prediction
from residua.errors import InputError, LabelError
from residua.evaluation import expected_calibration_error

V = 7


def tokens(seed, documents, length=30, vocabulary=V):
    """Rows of `documents` (ids) whose keys say something about their labels."""
    rng = np.random.default_rng(seed)
    n = len(documents) * length
    labels = rng.integers(0, V, n)
    keys = (np.eye(V)[labels] * 2 + rng.normal(size=(n, V))).astype(np.float32)
    logits = rng.normal(size=(n, vocabulary)).astype(np.float32)
    columns = {"offset": np.tile(np.arange(length), len(documents))}
    return rs.Encoded(keys, logits, labels, ids=np.repeat(documents, length), columns=columns)


REMEMBERED = tokens(0, [1, 2, 3])


@pytest.fixture(scope="module")
def memory():
    return rs.Memory(REMEMBERED, storage="none")


def softmax(logits):
    odds = np.exp(logits.dense().double().numpy())
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_every_measure_is_the_dense_one(memory, temperature):
    reader = rs.KNNLM(memory, k=5, lmbda=0.4, sigma=2.0, temperature=temperature)
    test = tokens(1, [10, 11, 12, 13])
    result = rs.evaluate(reader, iter([test[:50], test[50:]]))
    base, warm = softmax(test.logits), softmax(DenseLogits(test.logits.dense() / temperature))
    squared = ((REMEMBERED.keys[None].astype(np.float64) - test.keys[:, None]) ** 2).sum(axis=2)
    near = np.argsort(squared, axis=1, kind="stable")[:, :5]
    weights = np.exp(-np.take_along_axis(squared, near, axis=1) / 2.0)
    weights /= weights.sum(axis=1, keepdims=True)
    knn = np.zeros_like(base)
    for i in range(5):
        np.add.at(knn, (np.arange(len(test)), REMEMBERED.labels[near[:, i]]), weights[:, i])
    now = 0.4 * knn + 0.6 * warm
    truth, every = test.labels, np.arange(len(test))
    assert result.base_perplexity == pytest.approx(np.exp(-np.log(base[every, truth]).mean()), rel=1e-5)
    assert result.perplexity == pytest.approx(np.exp(-np.log(now[every, truth]).mean()), rel=1e-5)
    assert result.perplexity_ratio == pytest.approx(result.perplexity / result.base_perplexity)
    right, was = now.argmax(axis=1) == truth, base.argmax(axis=1) == truth
    assert (result.base_accuracy, result.accuracy) == (was.mean(), right.mean())
    assert result.tpr == pytest.approx((right & ~was).mean()) and result.fpr == pytest.approx((was & ~right).mean())
    assert result.gain == pytest.approx(result.accuracy - result.base_accuracy)
    assert result.base_ece == pytest.approx(expected_calibration_error(base.max(axis=1), was), abs=1e-5)
    assert result.ece == pytest.approx(expected_calibration_error(now.max(axis=1), right), abs=1e-5)
    assert result.label_knn == (knn.argmax(axis=1) == truth).mean()
    assert (result.n, result.n_groups, result.objective) == (120, 4, "log_loss")
    low, high = result.perplexity_ratio_interval
    assert low < result.perplexity_ratio < high
    inside = truth == 2
    assert result.per_class_gain[2] == pytest.approx(right[inside].mean() - was[inside].mean())


def test_label_knn_is_tuned_on_validation_text(memory):
    validation, test = tokens(3, [20, 21]), tokens(1, [10, 11])
    result = rs.evaluate(rs.KNNLM(memory, k=5, sigma=2.0), test, validation=validation)
    voter = rs.KNNLM(memory, lmbda=1.0, **result.label_knn_params)
    assert result.label_knn_tuned == accuracy_score(test.labels, voter.predict(test))
    assert f"label k-NN, k={voter.k}" in str(result)


def test_intervals_resample_documents_not_tokens(memory):
    """The same documents again: their sums grow, their number does not."""
    reader = rs.KNNLM(memory, k=5, lmbda=0.4, sigma=2.0)
    test = tokens(1, list(range(10, 18)), length=20)
    narrow, whole = rs.evaluate(reader, test), rs.evaluate(reader, [test] * 3)
    assert narrow.n_groups == whole.n_groups == 8 and whole.n == 3 * narrow.n
    assert whole.perplexity_ratio == pytest.approx(narrow.perplexity_ratio)
    assert whole.perplexity_ratio_interval == pytest.approx(narrow.perplexity_ratio_interval)
    sums = [
        np.array([np.log(made.predict_proba(part)[np.arange(20), part.labels]).sum() for part in parts(test, 20)])
        for made in (reader, rs.KNNLM(memory, k=0))
    ]
    drawn = np.random.default_rng(5).integers(0, 8, (20_000, 8))
    ratios = np.exp(-(sums[0] - sums[1])[drawn].sum(axis=1) / 160)
    np.testing.assert_allclose(narrow.perplexity_ratio_interval, np.quantile(ratios, [0.025, 0.975]), atol=0.02)


def parts(enc, length):
    return [enc[i : i + length] for i in range(0, len(enc), length)]


def test_one_document_has_no_interval(memory):
    result = rs.evaluate(rs.KNNLM(memory, k=5, sigma=2.0), tokens(1, [5]))
    assert result.perplexity_ratio_interval is result.gain_interval is None and not result.significant
    assert "one document cannot say" in result.verdict


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_no_memory_is_the_base(memory, temperature):
    test = tokens(1, [5, 6])
    result = rs.evaluate(rs.KNNLM(memory, k=0, temperature=temperature), test)
    expected = np.exp(-np.log(softmax(test.logits)[np.arange(60), test.labels]).mean())
    assert result.base_perplexity == pytest.approx(expected, rel=1e-5)
    assert result.gain == 0 and result.label_knn is None
    if temperature == 1:
        assert result.perplexity_ratio == 1
        assert "makes no difference" in result.verdict


def test_a_document_in_the_memory_does_not_see_itself(memory):
    reader = rs.KNNLM(memory, k=1, lmbda=0.9, sigma=1.0)
    unseen, seen = rs.evaluate(reader, REMEMBERED), rs.evaluate(reader, REMEMBERED, exclude=None)
    assert seen.accuracy == 1.0 > unseen.accuracy
    assert (seen.exact_matches, unseen.exact_matches) == (90, 0)
    assert not seen.significant and "leak" in seen.verdict


@pytest.mark.parametrize("under", [rs.KNNLM, rs.ResMem])
def test_a_cache_is_scored_beside_the_model(under):
    memory, test = rs.Memory(REMEMBERED), tokens(1, [10, 11])
    cache = rs.ContinuousCache(under(memory, k=5, sigma=2.0), theta=1.0, lmbda=0.3)
    result = rs.evaluate(cache, iter([test[:45], test[45:]]), validation=test)
    given = cache.predict_proba(test)[np.arange(60), test.labels]
    assert result.perplexity == pytest.approx(np.exp(-np.log(given).mean()), rel=1e-5)
    assert result.base_perplexity == pytest.approx(
        np.exp(-np.log(softmax(test.logits)[np.arange(60), test.labels]).mean()), rel=1e-5
    )
    assert result.label_knn is result.label_knn_tuned is None
    assert f"ContinuousCache(over={under.__name__}(k=5" in str(result)


def test_tokens_and_the_same_rows_without_offsets_are_measured_alike(memory):
    test = tokens(1, [10, 11, 12])
    rows = rs.Memory(rs.Encoded(REMEMBERED.keys, REMEMBERED.logits, REMEMBERED.labels, REMEMBERED.ids), storage="none")
    text, plain = (rs.evaluate(rs.KNNLM(m, k=5, sigma=2.0), test).to_dict() for m in (memory, rows))
    assert (text.pop("objective"), plain.pop("objective")) == ("log_loss", "accuracy")
    assert text.pop("perplexity_ratio_interval") is not plain.pop("perplexity_ratio_interval") is None
    assert text.pop("remembered") is None and sum(plain.pop("remembered")) == len(rows)
    assert text.pop("tokens").keys() == {"rarity", "distance", "recital"}
    assert text == plain


def perplexities(result, rows):
    frame = result.to_frame()[rows]
    return len(frame), *(pytest.approx(np.exp(-frame[name].mean())) for name in ("base_log_prob", "log_prob"))


def test_tokens_by_rarity_and_by_distance(memory):
    result = rs.evaluate(rs.KNNLM(memory, k=5, lmbda=0.4, sigma=2.0), tokens(1, [10, 11, 12]))
    times = np.bincount(REMEMBERED.labels, minlength=V)
    frame = result.to_frame()
    assert frame.remembered.tolist() == times[frame.label].tolist()
    assert set(times) & set(range(1, 10)) and set(times) & set(range(10, 100))
    assert result.tokens["rarity"] == {
        "1 to 9 times remembered": perplexities(result, times[frame.label] < 10),
        "10 to 99 times remembered": perplexities(result, times[frame.label] >= 10),
    }
    quarters = result.tokens["distance"]
    assert [n for n, *_ in quarters.values()] == [23, 23, 22, 22]
    assert quarters["nearest quarter"] == perplexities(result, frame.distance <= np.sort(frame.distance)[22])
    assert "nearest quarter" in str(result) and "second quarter" not in str(result)
    skipped = rs.evaluate(rs.KNNLM(memory, k=5, sigma=2.0, skip=0.5), tokens(1, [10, 11, 12]))
    searched = sum(n for n, *_ in skipped.tokens["distance"].values())
    assert searched == skipped.to_frame().distance.notna().sum() < 90


def test_a_token_that_is_not_remembered_is_rare():
    test = tokens(1, [10, 11])
    memory = rs.Memory(REMEMBERED[REMEMBERED.labels != 2], storage="none")
    result = rs.evaluate(rs.KNNLM(memory, k=5, sigma=2.0), test)
    assert result.tokens["rarity"]["never remembered"] == perplexities(result, test.labels == 2)


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_recited_tokens_and_new_ones_are_told_apart(noise):
    """A document whose second half is remembered under another id: by its very keys, or by what comes before."""
    rng = np.random.default_rng(0)
    rows = tokens(0, [1, 2], length=60)
    memory = rs.Memory(rows, storage="none")
    new = tokens(7, [3], length=40)
    keys = np.concatenate([new.keys[:10], rows.keys[60:90]]) + rng.normal(size=(40, V), scale=noise)
    labels = np.concatenate([new.labels[:10], rows.labels[60:90]])
    test = rs.Encoded(keys, new.logits, labels, new.ids, columns={"offset": np.arange(40)})
    result = rs.evaluate(rs.KNNLM(memory, k=3, lmbda=0.9, sigma=1e-3), [test[:25], test[25:]])
    recited = np.arange(40) >= (10 if noise == 0 else 10 + 20)  # without a key the text must agree for 20 tokens
    assert result.per_row["recited"].tolist() == recited.tolist()
    assert result.tokens["recital"] == {"recited": perplexities(result, recited), "new": perplexities(result, ~recited)}
    assert "  recited (" in str(result) and "  new (" in str(result)
    # The same labels in a document that a gap parts are no recital.
    gap = rs.Encoded(keys, new.logits, labels, new.ids, columns={"offset": np.arange(40) + 5 * (np.arange(40) > 25)})
    held = rs.evaluate(rs.KNNLM(memory, k=3, lmbda=0.9, sigma=1e-3), gap)
    assert held.per_row["recited"].sum() == (30 if noise == 0 else 0)


def test_bits_per_byte_count_the_bytes_of_the_texts(tiny_model, tiny_tokenizer):
    model, texts = tiny_model("gpt2"), ["def naïve(x):", "return x", "return x", "→"]
    memory = rs.lm.remember(model, tiny_tokenizer, ["x = naïve(y)"], progress=False)
    result = rs.lm.evaluate(model, tiny_tokenizer, texts, rs.KNNLM(memory, k=2, sigma=5.0))
    size = sum(len(text.encode()) for text in texts)
    assert result.bits_per_byte == pytest.approx(result.n * np.log2(result.perplexity) / size)
    assert result.base_bits_per_byte == pytest.approx(result.n * np.log2(result.base_perplexity) / size)
    assert "bits per byte" in str(result) and result.to_dict()["bits_per_byte"] == result.bits_per_byte
    rows = list(rs.lm.encode(model, tiny_tokenizer, texts, like=memory))
    assert rs.evaluate(rs.KNNLM(memory, k=2, sigma=5.0), rows).bits_per_byte is None  # who knows what texts these were


def test_bits_per_byte_of_pairs_are_those_of_targets(tiny_model, tiny_tokenizer):
    model, pairs = tiny_model("t5"), [("x", "def add"), ("y", "naïve")]
    memory = rs.lm.remember(model, tiny_tokenizer, [("z", "add")], progress=False)
    reader = rs.KNNLM(memory, k=2, sigma=5.0)
    result = rs.lm.evaluate(model, tiny_tokenizer, pairs, reader)
    assert result.bits_per_byte == pytest.approx(result.n * np.log2(result.perplexity) / 13)
    with pytest.warns(UserWarning, match="were cut"):
        assert rs.lm.evaluate(model, tiny_tokenizer, pairs, reader, window=3).bits_per_byte is None


def test_the_result_is_json_and_a_table(memory):
    test = tokens(1, [10, 11, 12])
    result = rs.evaluate(rs.KNNLM(memory, k=5, lmbda=0.4, sigma=2.0), iter([test]))
    data = json.loads(json.dumps(result.to_dict()))
    assert data["perplexity"] == result.perplexity and len(data["gain_interval"]) == 2
    assert result.base_tokens_per_second > result.tokens_per_second > 0
    text = str(result)
    for word in ("perplexity", "next-token accuracy", "TPR", "tokens per second", "90 tokens of 3 documents"):
        assert word in text


def test_nothing_as_wide_as_the_vocabulary_is_made(monkeypatch):
    """Sparse values stay sparse: of a vocabulary of 50 000 no second table of probabilities is ever made."""
    rows, test = (tokens(seed, documents, 20, 50_000) for seed, documents in ((0, [1, 2]), (1, [10, 11])))
    memory = rs.Memory(rows, storage="none")

    def refuse(*_, **__):
        raise AssertionError("a dense table was made")

    for dense in ("start", "scores", "probabilities"):
        monkeypatch.setattr(Prediction, dense, property(refuse))
    result = rs.evaluate(rs.KNNLM(memory, k=5, sigma=2.0), test, validation=test)
    assert 0 < result.perplexity < result.base_perplexity
    assert result.label_knn > 0.3
    assert "support" not in result.to_dict()


def test_bad_input(memory):
    reader = rs.KNNLM(memory, k=5, sigma=2.0)
    test = tokens(1, [5])
    with pytest.raises(LabelError, match="no labels"):
        rs.evaluate(reader, rs.Encoded(test.keys, test.logits, ids=test.ids))
    with pytest.raises(InputError, match="no rows"):
        rs.evaluate(reader, [])
