"""The whole experiment on a tiny model: numbers that must be what others are, tabled and drawn; metrics by hand."""

import keyword

import numpy as np
import pytest

import residua as rs
from experiments import gains
from experiments.gains.metrics import with_rest, with_zero
from experiments.gains.where import change, code, groups
from experiments.runner import run
from residua.errors import ParameterError

WORDS = keyword.kwlist[:20]


@pytest.fixture(scope="module")
def options(tmp_path_factory, tiny_model, tiny_tokenizer):
    root = tmp_path_factory.mktemp("gains")
    tiny_model("gpt2").save_pretrained(root / "model")
    tiny_tokenizer.save_pretrained(root / "model")
    for corpus, words in (("own", WORDS), ("other", WORDS[::-1][:8])):
        (root / corpus).mkdir()
        for number in range(40):
            rng = np.random.default_rng([number, len(words)])
            (root / corpus / f"{number}.py").write_text(" ".join(rng.choice(words, 30)))
    sizes = {"memory_tokens": 1200, "metric_tokens": 600, "eval_tokens": 300, "window": 32, "stride": 24}
    where = {"model": str(root / "model"), "texts": str(root / "own"), "domain": str(root / "other")}
    return sizes | where | {"checkpoints": str(root / "memories"), "device": "cpu", "out": root / "results"}


@pytest.mark.slow
def test_numbers_agree_with_each_other(options):
    results = run("gains", **options)["results"]
    for one in results["corpora"]:
        readers = one["readers"]
        base, knnlm = (readers[who]["perplexity"] for who in ("base", "knnlm"))
        assert readers["knnlm"]["change"][0] == pytest.approx(100 * (knnlm / base - 1), abs=1e-3)
        orders = {who: found for who, found in readers.items() if who.startswith("order")}
        assert f"order {one['order']}" in orders
        for found in one["groups"].values():
            assert sum(group["share"] for group in found) == pytest.approx(100, abs=1e-3)
            mean = sum(group["share"] * np.log(group["perplexity"]["knnlm"]) for group in found) / 100
            assert np.exp(mean) == pytest.approx(knnlm, rel=1e-4)
        assert sum(group["of_gain"] for group in one["groups"]["distance to the nearest"]) == pytest.approx(
            100, abs=0.1
        )
    assert [set(one["metrics"]) for one in results["metrics"]] == 2 * [{"L2", "inner product", "cosine"}]
    assert len(gains.tables(results)) == 2 * 7
    assert len(gains.draw(results).axes) == 4


def test_the_nearest_with_one_number_more_have_the_largest_inner_product():
    rng = np.random.default_rng(0)
    keys, queries = rng.normal(size=(50, 4)).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    grown = with_rest(keys, float(np.linalg.norm(keys, axis=1).max()))
    memory = rs.Memory(rs.Encoded(grown, np.zeros((50, 2)), np.arange(50) % 2), storage="none", key_dtype="float32")
    found = memory.search(with_zero(queries), 5).rows.numpy()
    assert np.array_equal(found, np.argsort(-(queries @ keys.T), axis=1)[:, :5])


def test_every_token_is_in_one_group_of_each_kind():
    rng = np.random.default_rng(0)
    values = {"remembered": rng.integers(0, 30_000, 99), "distance": rng.random(99), "longest": rng.integers(0, 4, 99)}
    values["remembered"][:10] = [0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10_000]
    for parts in groups(values).values():
        assert np.array_equal(np.sum([own for _, own in parts], axis=0), np.ones(99))
    rare = dict(groups(values)["times remembered"])
    assert np.flatnonzero(rare["1 to 9"]).tolist()[:2] == [1, 2] and rare["10,000 or more"][9]


def test_change_is_of_perplexity_and_its_interval_over_documents():
    assert change(np.full(6, np.log(2)), np.arange(6) // 2) == pytest.approx([-50, -50, -50])
    assert code("a\n  b`c") == "`a ⏎ bˋc`"


def test_shares_are_chosen_on_the_tokens_tuned_on_alone():
    base, other = [np.array([0.1, 0.1]), np.array([0.5])], [np.array([0.9, 0.9]), np.array([0.1])]
    said, chosen = gains.mixed(base, other)
    assert chosen == {"lmbda": 0.95} and said == pytest.approx(0.95 * 0.1 + 0.05 * 0.5)
    said, chosen = gains.mixed(base, other, [np.array([0, 1]), np.array([3])])
    assert chosen["lmbda"] == {"0": 0.95, "1": 0.95} and said == pytest.approx(0.12)  # 3 is new: the share of all


def test_no_tokens_are_refused(options):
    with pytest.raises(ParameterError, match="at least 1 token"):
        run("gains", **options | {"metric_tokens": -1})
