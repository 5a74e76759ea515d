"""On a GPU as on a CPU: every verb gives the same answers, whatever precision the caller lives under."""

import numpy as np
import pytest
import torch

import residua as rs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def classified(n: int, seed: int, dim: int = 24, classes: int = 10) -> rs.Encoded:
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, dim)).astype(np.float32)
    logits = keys[:, :classes] + rng.normal(size=(n, classes)).astype(np.float32)
    return rs.Encoded(keys, logits, (keys[:, :classes] + np.sin(3 * keys[:, 1:2])).argmax(axis=1))


def several_labels(n: int, seed: int) -> rs.Encoded:
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 24)).astype(np.float32)
    return rs.Encoded(keys, keys[:, :5], (keys[:, :5] > 0.3).astype(int), task="multi-label")


def numbers(n: int, seed: int) -> rs.Encoded:
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(n, 24)).astype(np.float32)
    return rs.Encoded(keys, keys[:, :1], keys[:, 0] + np.sin(keys[:, 1]), task="regression")


def memories(data: rs.Encoded, **options) -> list[rs.Memory]:
    return [rs.Memory(data, device=device, **options) for device in ("cpu", "cuda")]


@pytest.mark.parametrize("options", [{}, {"key_dtype": "float16"}, {"normalise": True}])
@pytest.mark.parametrize("k", [1, 30, 700])
def test_search(options, k):
    data, queries = classified(30_000, 0), classified(300, 1).keys
    (here, there), gone = memories(data, **options), np.arange(0, 30_000, 7)
    for memory in (here, there):
        memory.forget(gone)
    for exclude in (None, np.arange(300)):
        one, other = here.search(queries, k, exclude), there.search(queries, k, exclude)
        torch.testing.assert_close(one.distances, other.distances.cpu(), rtol=1e-5, atol=1e-5)
        assert (one.rows == other.rows.cpu()).float().mean() > 0.999  # but for ties by rounding


def test_precision_settings_of_the_caller_do_not_reach_a_search():
    data, queries = classified(50_000, 0, dim=256), torch.randn(200, 256, device="cuda")
    memory = rs.Memory(data, device="cuda")
    plain = memory.search(queries, 20)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")  # TF32, or bfloat16
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            found = memory.search(queries, 20)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(plain.rows, found.rows) and torch.equal(plain.distances, found.distances)
    exact = torch.cdist(queries.double(), torch.from_numpy(data.keys).cuda().double()).topk(20, largest=False)
    torch.testing.assert_close(found.distances.double(), exact.values, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "reader",
    [
        lambda memory: rs.ResMem(memory, k=40, sigma=1.0),
        lambda memory: rs.ResMem(memory, k=40, sigma=1.0, temperature=1.7, kernel="gaussian", skip=0.9),
        lambda memory: rs.ResMem(memory, k=40, sigma=1.0, class_weight="balanced"),
        lambda memory: rs.KNNLM(memory, k=40, sigma=2.0, lmbda=0.4),
        lambda memory: rs.KNNLM(memory, k=40, sigma=2.0, lmbda=rs.AdaptiveLambda([3.0], [0.8, 0.2])),
    ],
)
def test_readers_of_classes(reader):
    test = classified(500, 1)
    here, there = (reader(memory) for memory in memories(classified(4000, 0)))
    np.testing.assert_allclose(here.scores(test), there.scores(test), **CLOSE)
    np.testing.assert_allclose(here.predict_proba(test), there.predict_proba(test), **CLOSE)
    one, other = (rs.evaluate(each, test, progress=False) for each in (here, there))
    assert one.accuracy == pytest.approx(other.accuracy, abs=0.005)
    assert one.log_loss == pytest.approx(other.log_loss, rel=1e-4)
    why = [rs.explain(each, test[:1]) for each in (here, there)]
    np.testing.assert_allclose(why[0].contributions, why[1].contributions, **CLOSE)


@pytest.mark.parametrize("made", [several_labels, numbers])
def test_readers_of_other_tasks(made):
    here, there = (rs.ResMem(memory, k=20, sigma=1.0) for memory in memories(made(3000, 0)))
    np.testing.assert_allclose(here.scores(made(200, 1)), there.scores(made(200, 1)), **CLOSE)


def test_tuning():
    validation, grid = classified(1000, 1), {"k": [5, 40], "sigma": [0.5, 2.0], "temperature": [0.7, 1.5]}
    here, there = (
        rs.tune(rs.ResMem(memory), validation, grid, evidence=None, progress=False)
        for memory in memories(classified(4000, 0))
    )
    assert here.params == there.params and here.best_score_ == pytest.approx(there.best_score_, rel=1e-4)


def test_a_memory_is_saved_and_loaded(tmp_path):
    reader, test = rs.ResMem(rs.Memory(classified(2000, 0), device="cuda"), k=9, sigma=1.0), classified(50, 1)
    reader.save(tmp_path)
    for device in ("cpu", "cuda"):
        np.testing.assert_allclose(rs.load(tmp_path, device).scores(test), reader.scores(test), **CLOSE)


def test_encode_and_attach():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5)).eval()
    inputs, labels = torch.randn(2000, 8), torch.randint(0, 5, (2000,))
    on_cpu = rs.encode(model, inputs, labels, progress=False)
    said = []
    for where, data in (("cpu", inputs), ("cuda", inputs.cuda())):
        model.to(where)
        encoded = rs.encode(model, data, labels, progress=False)
        np.testing.assert_allclose(encoded.keys, on_cpu.keys, rtol=1e-4, atol=1e-4)
        reader = rs.ResMem(rs.Memory(encoded, device=where), k=20, sigma=0.5)
        with rs.attach(model, reader), torch.no_grad():
            said.append(model(data[:64]).softmax(dim=1).cpu())
    torch.testing.assert_close(*said, rtol=1e-3, atol=1e-4)


def test_language_models(tiny_model, tiny_tokenizer, tmp_path):
    texts = [(f"{n}", f"def f{n}(x, y):\n    return {n} * x + y\n" * 4) for n in range(30)]
    prompt = texts[3][1][:20]
    scored, made = [], []
    for where in ("cpu", "cuda"):
        model = tiny_model("gpt2").to(where)
        memory = rs.lm.remember(model, tiny_tokenizer, texts[:25], index="exact", device=where, progress=False)
        reader = rs.KNNLM(memory, k=20, lmbda=0.6)
        for each in (reader, rs.ContinuousCache(reader, lmbda=0.2)):
            found = rs.lm.evaluate(model, tiny_tokenizer, texts[25:], each, label_knn=False, progress=False)
            scored.append((found.base_perplexity, found.perplexity))
        with rs.attach(model, reader):
            given = {n: t.to(where) for n, t in rs.lm.prompt(model, tiny_tokenizer, prompt, reader).items()}
            made.append(model.generate(**given, max_new_tokens=20, do_sample=False).cpu())
    np.testing.assert_allclose(scored[:2], scored[2:], rtol=1e-3)
    assert torch.equal(*made)
