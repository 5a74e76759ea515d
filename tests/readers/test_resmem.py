"""ResMem: by hand, against NumPy and scikit-learn, and the paper's own properties."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import residua as rs
from residua.core import DenseLogits, Head, HeadLogits, TopLogits
from residua.errors import ParameterError, StorageError, TaskError
from residua.readers.resmem import ResidualValues, residual_table

CLASSES, DIM = 5, 3
WEIGHT = np.random.default_rng(42).normal(size=(CLASSES, DIM)).astype(np.float32)


def made(n, seed, **more):
    """Keys, logits that are a linear head's, and labels that are not always its argmax."""
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, DIM)).astype(np.float32)
    logits = 2 * keys @ WEIGHT.T
    labels = np.where(rng.random(n) < 0.5, logits.argmax(axis=1), rng.integers(0, CLASSES, n))
    return rs.Encoded(keys, logits, labels, head=Head(torch.from_numpy(2 * WEIGHT)), **more)


def softmax(logits, temperature=1.0):
    powers = np.exp(np.asarray(logits, np.float64) / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def neighbourhood(train, test, k, sigma, kernel="exponential", own=None):
    """Rows (q, k) and normalised weights (q, k) in float64, every distance computed."""
    gaps = test.keys[:, None].astype(np.float64) - train.keys[None]
    d = np.sqrt((gaps**2).sum(axis=2))
    rows = np.argsort(d, axis=1, kind="stable")[:, :k]
    d = np.take_along_axis(d, rows, axis=1)
    weights = np.exp(-(d**2 if kernel == "gaussian" else d) / sigma) * (1 if own is None else own[rows])
    return rows, weights / weights.sum(axis=1, keepdims=True)


def resmem(train, test, k, sigma, temperature, kernel="exponential", own=None, m=None):
    """Equations 7 and 8, word for word."""
    residuals = np.eye(CLASSES)[train.labels] - softmax(train.logits, temperature)
    if m is not None:  # section 4.3: the m largest in magnitude, the others 0
        small = np.argsort(np.abs(residuals), axis=1)[:, : CLASSES - m]
        np.put_along_axis(residuals, small, 0, axis=1)
    rows, weights = neighbourhood(train, test, k, sigma, kernel, own)
    return softmax(test.logits, temperature) + np.einsum("qk,qkl->ql", weights, residuals[rows])


def test_equations_7_and_8_by_hand():
    train = rs.Encoded([[0.0], [2.0], [9.0]], np.log([[0.5, 0.5], [0.2, 0.8], [0.5, 0.5]]), [0, 0, 1])
    reader = rs.ResMem(rs.Memory(train), k=2, sigma=2 / np.log(3))
    # Residuals (1/2, -1/2) and (4/5, -4/5); distances 0 and 2, so weights 3/4 and 1/4: r = ±(3/8 + 1/5).
    query = rs.Encoded([[0.0]], np.log([[0.1, 0.9]]))
    np.testing.assert_allclose(reader.scores(query), [[0.675, 0.325]], atol=1e-6)
    np.testing.assert_allclose(reader.predict_proba(query), [[0.6, 0.4]], atol=1e-6)  # 0.325 < epsilon p = 0.45


def test_temperature_is_for_queries_and_rows_alike():
    train = rs.Encoded([[0.0]], np.log([[0.2, 0.8]]), [0])
    query = rs.Encoded([[3.0]], np.log([[0.75, 0.25]]))
    # At T = 1/2 probabilities are squared: (9, 1)/10 and (1, 16)/17.
    scores = rs.ResMem(rs.Memory(train), k=1, temperature=0.5).scores(query)
    np.testing.assert_allclose(scores, [[0.9 + 16 / 17, 0.1 - 16 / 17]], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("step", [40, 1], ids=["many queries", "one query at a time"])
@pytest.mark.parametrize("storage", ["full", "head", "top-m"])
@pytest.mark.parametrize(
    ("k", "sigma", "temperature", "kernel"),
    [
        (1, 1.0, 1.0, "exponential"),
        (8, 0.3, 1.4, "exponential"),
        (80, 5.0, 0.5, "exponential"),
        (400, 5.0, 0.5, "exponential"),
        (30, 0.7, 2, "gaussian"),
    ],
)
def test_every_storage_against_numpy(storage, k, sigma, temperature, kernel, step):
    train, test = made(400, 0), made(40, 1)
    top = {"m": CLASSES, "temperature": temperature} if storage == "top-m" else {}
    reader = rs.ResMem(rs.Memory(train, storage=storage, **top), k, sigma, temperature, kernel=kernel)
    scores = reader.scores(test[start : start + step] for start in range(0, 40, step))
    np.testing.assert_allclose(scores, resmem(train, test, k, sigma, temperature, kernel), rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("m", [1, 2, 4])
def test_top_m_is_the_truncated_formula(m):
    train, test = made(80, 0), made(40, 1)
    memory = rs.Memory(train, storage="top-m", m=m, temperature=1.4)
    scores = rs.ResMem(memory, 8, 0.3, 1.4).scores(test)
    np.testing.assert_allclose(scores, resmem(train, test, 8, 0.3, 1.4, m=m), rtol=0, atol=1e-5)
    assert np.abs(scores - resmem(train, test, 8, 0.3, 1.4)).max() > 1e-3


def test_top_m_follows_relabelling():
    train, test = made(80, 0), made(40, 1)
    memory = rs.Memory(train, storage="top-m", m=CLASSES, temperature=1.4)
    reader = rs.ResMem(memory, 8, 0.3, 1.4)
    reader.scores(test)
    labels = (train.labels + 1) % CLASSES
    memory.relabel(np.arange(80), labels)
    expected = resmem(rs.Encoded(train.keys, train.logits, labels), test, 8, 0.3, 1.4)
    np.testing.assert_allclose(reader.scores(test), expected, rtol=0, atol=1e-5)


def test_queries_may_come_with_a_head_alone():
    train, test = made(80, 0), made(40, 1)
    lazy = rs.Encoded(test.keys, HeadLogits(test.head, torch.from_numpy(test.keys)))
    reader = rs.ResMem(rs.Memory(train), 8, 0.3, 1.4)
    np.testing.assert_allclose(reader.scores(lazy), reader.scores(test), atol=1e-6)


# --- the paper's properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["full", "head"])
@pytest.mark.parametrize(("k", "sigma"), [(1, 1.0), (60, 1e-3), (60, 1e-40)])
def test_remark_41_every_training_example_gets_its_label(storage, k, sigma):
    train = made(60, 0)
    assert (train.logits.argmax(None).numpy() != train.labels).sum() > 10  # the base alone does not
    reader = rs.ResMem(rs.Memory(train, storage=storage), k, sigma, temperature=1.4)
    np.testing.assert_array_equal(reader.predict(train), train.labels)
    np.testing.assert_allclose(reader.scores(train), np.eye(CLASSES)[train.labels], atol=1e-5)


def test_no_residual_is_the_base():
    """A base that is right and sure of every row leaves nothing to add."""
    train, test = made(60, 0), made(20, 1)
    sure = rs.Encoded(train.keys, 1000 * np.eye(CLASSES)[train.labels], train.labels)
    for storage in ("full", "top-m"):
        reader = rs.ResMem(rs.Memory(sure, storage=storage), k=9)
        base = torch.softmax(test.logits.dense(), dim=1).numpy()
        np.testing.assert_array_equal(reader.scores(test), base)
        np.testing.assert_array_equal(reader.scores(test[3]), base[3:4])


@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(1e-6, 1e6), st.floats(0.05, 20), st.sampled_from([1, 6]))
def test_scores_sum_to_one(seed, k, sigma, temperature, step):
    queries = made(6, seed + 1)
    reader = rs.ResMem(rs.Memory(made(130, seed)), k, sigma, temperature)
    scores = reader.scores(queries[start : start + step] for start in range(0, 6, step))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert np.abs(scores).max() <= 2


@pytest.mark.parametrize("kernel", ["exponential", "gaussian"])
def test_far_from_everything_and_extreme_widths(kernel):
    train = made(30, 0)
    memory = rs.Memory(train)
    far = rs.Encoded(np.array([[1e6, 0, 0], [0, 0, -1e15], [0, 3e19, 0]]), np.zeros((3, CLASSES)))
    for sigma in (1e-300, 1e-30, 1.0, 1e30, 1e300):
        reader = rs.ResMem(memory, 30, sigma, kernel=kernel)
        for queries in (far, far[1], train):
            scores = reader.scores(queries)
            assert np.isfinite(scores).all()
            np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    everyone = rs.ResMem(memory, 30, 1e300, kernel=kernel).scores(far[0])  # all rows weigh the same
    residuals = np.eye(CLASSES)[train.labels] - softmax(train.logits)
    np.testing.assert_allclose(everyone, 1 / CLASSES + residuals.mean(axis=0, keepdims=True), atol=1e-5)


def test_weight_column_multiplies():
    own = np.random.default_rng(5).random(80) * (np.arange(80) % 4 > 0)
    train, test = made(80, 0, columns={"weight": own}), made(40, 1)
    expected = resmem(train, test, 20, 0.5, 1.4, own=own)
    for storage in ("full", "head"):
        scores = rs.ResMem(rs.Memory(train, storage=storage), 20, 0.5, 1.4).scores(test)
        np.testing.assert_allclose(scores, expected, atol=1e-5)


# --- regression -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["exponential", "gaussian"])
@pytest.mark.parametrize("outputs", [0, 1, 3])
def test_equations_3_and_4_against_scikit_learn(outputs, kernel):
    neighbors = pytest.importorskip("sklearn.neighbors")
    rng = np.random.default_rng(0)
    train, test = (rng.normal(size=(n, DIM)).astype(np.float32) for n in (120, 40))
    shape = (outputs,) if outputs else ()
    said, targets, asked = (rng.normal(size=(n, *shape)).astype(np.float32) for n in (120, 120, 40))
    peer = neighbors.KNeighborsRegressor(
        9, weights=lambda d: np.exp(-(d**2 if kernel == "gaussian" else d) / 0.6), algorithm="brute"
    )
    peer.fit(train.astype(np.float64), (targets - said).astype(np.float64))
    expected = asked + peer.predict(test.astype(np.float64))
    reader = rs.ResMem(rs.Memory(rs.Encoded(train, said, targets)), k=9, sigma=0.6, kernel=kernel)
    predicted = reader.predict(rs.Encoded(test, asked))
    assert predicted.shape == asked.shape and predicted.dtype == np.float64
    np.testing.assert_allclose(predicted, expected, atol=1e-5)


def test_regression_by_hand_and_after_edits():
    memory = rs.Memory(rs.Encoded([[0.0], [1.0]], [1.0, 2.0], [1.5, 0.0]))
    reader, query = rs.ResMem(memory, k=2, sigma=1 / np.log(3)), rs.Encoded([[0.0]], [10.0])
    assert reader.predict(query).tolist() == pytest.approx([10 + 0.75 * 0.5 - 0.25 * 2])
    memory.relabel(1, 4.0)
    assert reader.predict(query).tolist() == pytest.approx([10 + 0.75 * 0.5 + 0.25 * 2])
    memory.forget(1)
    assert reader.predict(query).tolist() == pytest.approx([10.5])
    memory.add(rs.Encoded([[0.0]], [0.0], [1.5]))
    assert reader.predict(query).tolist() == pytest.approx([11])


# --- residuals in the exponent --------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["full", "head", "top-m"])
def test_residuals_in_the_exponent_follow_every_edit(storage):
    """``a log p_T + b`` times the residual term that the reader of probabilities adds."""
    memory, test = rs.Memory(made(60, 0), storage=storage, m=CLASSES, temperature=2.0), made(20, 1)
    plain = rs.ResMem(memory, 8, 0.4, temperature=2.0)
    reader = plain.with_params(space="exponent", base_weight=0.7, residual_weight=3.0)

    def check():
        residuals = plain.scores(test) - softmax(test.logits.dense().numpy(), 2.0)
        expected = 0.7 * test.logits.dense().numpy() / 2 + 3 * residuals
        np.testing.assert_allclose(reader.scores(test), expected, rtol=0, atol=2e-5)
        np.testing.assert_allclose(reader.predict_proba(test), softmax(expected, 1.0), rtol=0, atol=2e-5)

    check()
    memory.forget(np.arange(0, 20))
    check()
    memory.relabel(np.arange(20, 40), (memory.labels[:20] + 2) % CLASSES)
    check()
    memory.add(made(30, 3))
    check()
    memory.forget(memory.ids[memory.labels == 1])  # a class without rows
    check()


def test_the_exponent_is_for_classes_and_takes_the_place_of_logits():
    memory = rs.Memory(made(9, 0))
    with pytest.raises(StorageError, match="stores labels only"):
        rs.ResMem(rs.Memory(made(9, 0), storage="none"), k=2, space="exponent")
    with pytest.raises(TaskError, match="space='exponent' is for classes"):
        rs.ResMem(rs.Memory(rs.Encoded([[0.0]], [0.0], [0.0])), k=1, space="exponent")
    with pytest.raises(ParameterError, match="space='log'"):
        rs.ResMem(memory, k=2, space="log")
    with pytest.raises(ParameterError, match="space='exponent' has taken the place of 'logits'"):
        rs.ResMem(memory, k=2, space="logits")
    with pytest.raises(
        ParameterError, match=r"residual_weight=2\.0, and space='probabilities'; expected space='exponent'"
    ):
        rs.ResMem(memory, k=2, residual_weight=2.0)
    for wrong in (0, -1, np.inf, "much"):
        with pytest.raises(ParameterError, match=r"base_weight=.*expected a finite number > 0"):
            rs.ResMem(memory, k=2, space="exponent", base_weight=wrong)


def test_the_exponent_of_several_labels_is_each_ones():
    rng = np.random.default_rng(0)
    labels, logits, keys = rng.integers(0, 2, (40, 3)), rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    memory, test = rs.Memory(rs.Encoded(keys, logits, labels)), rs.Encoded(keys + 0.1, logits, labels)
    plain = rs.ResMem(memory, k=5, temperature=1.5)
    reader = plain.with_params(space="exponent", residual_weight=2.0)
    residuals = plain.scores(test) - 1 / (1 + np.exp(-logits / 1.5))
    expected = logits / 1.5 + 2 * residuals
    np.testing.assert_allclose(reader.predict_proba(test), 1 / (1 + np.exp(-expected)), atol=1e-5)
    np.testing.assert_array_equal(reader.predict(test), expected > 0)


@pytest.mark.parametrize("power", [1.0, 0.6])
@pytest.mark.parametrize("skip", [None, 0.5])
def test_the_exponent_over_a_vocabulary_touches_few_tokens(power, skip):
    """What is said of tokens one by one, from entries alone, is what the whole row says."""
    memory = rs.Memory(made(60, 0), storage="top-m", m=2)
    test = made(30, 1)
    reader = rs.ResMem(memory, 9, 0.4, space="exponent", base_weight=power, residual_weight=4.0, skip=skip)
    ((_, now),) = reader.predictions(test, exclude=None)
    assert now.is_wide == (power != 1 and skip is not None)  # an exponent for some rows alone has no short form
    made_of = torch.softmax(now.scores, dim=1)
    every = torch.arange(CLASSES).expand(30, -1)
    torch.testing.assert_close(now.at(every), made_of, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(now.log_probabilities().exp(), made_of, rtol=1e-4, atol=1e-6)
    assert torch.equal(now.argmax(), now.scores.argmax(dim=1))
    truth = torch.from_numpy(test.labels)
    torch.testing.assert_close(now.log_prob(truth), made_of.log().gather(1, truth[:, None])[:, 0], rtol=0, atol=1e-4)


# --- what is kept between calls follows the memory ------------------------------------------------------------


def test_a_reader_sees_every_edit_at_once():
    memory, test = rs.Memory(made(60, 0)), made(40, 1)
    reader = rs.ResMem(memory, 8, 0.4, 1.4)

    def check():
        rows = memory.active_rows
        train = rs.Encoded(memory.keys_at(rows).numpy(), memory.stored_logits.dense(rows).numpy(), memory.labels)
        np.testing.assert_allclose(reader.scores(test), resmem(train, test, 8, 0.4, reader.temperature), atol=1e-5)

    check()
    memory.relabel(np.arange(30), np.zeros(30, int))
    check()
    memory.add(made(9, 2))
    check()
    memory.forget(np.arange(9))
    check()
    memory.rebuild()
    check()
    reader.temperature = 0.7
    check()


# --- what a row says ------------------------------------------------------------------------------------------

LABELS = torch.tensor([2, 0, 1, 2, 1])
KEYS = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 2))).float()
HEAD = Head(torch.tensor([[1.0, 0], [0, 1], [1, -1]]), torch.tensor([0.1, 0, -0.1]))
DENSE = DenseLogits(HEAD(KEYS))


def top(m, temperature):
    ids = DENSE.table.scatter(1, LABELS[:, None], torch.inf).topk(m, dim=1).indices
    partition = torch.logsumexp(DENSE.table / temperature, dim=1)
    return TopLogits(ids.int(), DENSE.table.gather(1, ids), partition, 3, temperature)


VALUES = {
    "residuals": ResidualValues(LABELS, DENSE, 1.5),
    "residuals of a head": ResidualValues(LABELS, HeadLogits(HEAD, KEYS), 1.5),
    "residuals of the top 2": ResidualValues(LABELS, top(2, 1.5), 1.5),
    "residuals of the top 3": ResidualValues(LABELS, top(3, 1.5), 1.5),
}


def said(values, rows, outputs=3):
    classes, entries = values.entries(rows)
    return torch.zeros(len(rows), outputs).scatter_add_(1, classes, entries)


@pytest.mark.parametrize("name", VALUES)
def test_entries_and_add_to_are_one_sum(name):
    values, rng = VALUES[name], np.random.default_rng(1)
    rows = torch.from_numpy(rng.integers(0, 5, (6, 4)))
    weights = torch.from_numpy(rng.random((6, 4))).float()
    scores = torch.from_numpy(rng.normal(size=(6, 3))).float()
    expected = scores + torch.stack([w @ said(values, r) for w, r in zip(weights, rows, strict=True)])
    by_entry = scores.clone().scatter_add_(1, *values.weighted(rows, weights))
    values.add_to(scores, rows, weights)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(by_entry, expected, rtol=0, atol=1e-6)
    assert values.signed and values.width == (None if "top" not in name else int(name[-1]) + 1)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["full", "head", "top-m"])
def test_more_residuals_than_are_made_at_once(storage):
    rng = torch.Generator().manual_seed(0)
    outputs, rows, weights = 2000, torch.randint(0, 50, (200, 50), generator=rng), torch.rand(200, 50, generator=rng)
    head, keys = Head(torch.randn(outputs, 3, generator=rng)), torch.randn(50, 3, generator=rng)
    labels, logits = torch.randint(0, outputs, (50,), generator=rng), HeadLogits(head, keys)
    if storage != "head":
        logits = DenseLogits(logits.dense())
    expected = residual_table(labels, logits, 1.0)
    if storage == "top-m":
        values, ids = logits.dense().topk(outputs, dim=1)
        logits = TopLogits(ids.int(), values, logits.logsumexp(), outputs, 1.0)
    expected = torch.zeros(200, 50).scatter_add_(1, rows, weights) @ expected
    scores = torch.ones(200, outputs)
    ResidualValues(labels, logits, 1.0).add_to(scores, rows, weights)
    torch.testing.assert_close(scores, expected + 1, rtol=0, atol=1e-4)


def test_residuals_by_hand():
    logits = DenseLogits(torch.log(torch.tensor([[0.5, 0.25, 0.25], [1.0, 4.0, 4.0]])))
    values = ResidualValues(torch.tensor([0, 1]), logits, 1.0)
    expected = [[0.5, -0.25, -0.25], [-1 / 9, 5 / 9, -4 / 9]]
    np.testing.assert_allclose(said(values, torch.tensor([0, 1])), expected, atol=1e-6)
    values = ResidualValues(torch.tensor([0, 1]), logits, 0.5)  # squares
    expected = [[1 / 3, -1 / 6, -1 / 6], [-1 / 33, 17 / 33, -16 / 33]]
    np.testing.assert_allclose(said(values, torch.tensor([0, 1])), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["residuals", "residuals of a head", "residuals of the top 3"])
def test_every_residual_sums_to_zero(name):
    found = said(VALUES[name], torch.arange(5))
    torch.testing.assert_close(found.sum(dim=1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(found, residual_table(LABELS, DENSE, 1.5), atol=1e-6, rtol=0)


def test_entries_that_were_not_kept_read_as_zero():
    kept, whole = said(VALUES["residuals of the top 2"], torch.arange(5)), residual_table(LABELS, DENSE, 1.5)
    smallest = whole.abs().argmin(dim=1, keepdim=True)
    torch.testing.assert_close(kept, whole.scatter(1, smallest, 0), atol=1e-6, rtol=0)


def test_a_label_that_is_not_among_the_kept_classes():
    """As after relabelling a row of a top-m memory: the new label's own entry is 1."""
    lost = (set(range(3)) - set(top(2, 1.5).ids[0].tolist())).pop()
    values = ResidualValues(torch.full((5,), lost), top(2, 1.5), 1.5)
    assert said(values, torch.tensor([0]))[0, lost] == 1
