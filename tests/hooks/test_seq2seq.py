"""Attached encoder-decoder models (kNN-MT): scoring and generation equal dense float64 arithmetic by hand."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import KeyModuleError, ParameterError, StorageError

PAIRS = [
    ("def add(a, b):", "adds two numbers"),
    ("x = first", "the first name"),
    ("class Counter:\n    pass", "counts what it is given"),
]
NEW = ["def add(first):", "class Name:\n    def count(self): return", "x"]
GREEDY = {"do_sample": False, "max_new_tokens": 7}


@pytest.fixture(scope="module", params=["t5", "bart"])
def attached(request, tiny_model, tiny_tokenizer):
    model = tiny_model(request.param)
    # Decoding rules of its own (forced tokens, minimal lengths) are not what is tested.
    model.generation_config.forced_eos_token_id = model.generation_config.forced_bos_token_id = None
    model.generation_config.eos_token_id = 299
    return model, rs.lm.remember(model, tiny_tokenizer, PAIRS, key_dtype="float32", progress=False)


def ids_of(tokenizer, text):
    return torch.tensor([tokenizer(text)["input_ids"]])


def sources(tokenizer, texts):
    """Right-padded input ids and their mask."""
    tokenizer.padding_side = "right"
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def greedily(model, reader, source, how, steps=7):
    start = model.config.decoder_start_token_id
    target = torch.tensor([[start]])
    for _ in range(steps):
        best = how(model, reader, source, decoder_input_ids=target)[-1].argmax()
        target = torch.cat([target, torch.tensor([[best]])], dim=1)
    return target[0].tolist()


def test_the_rows_are_the_target_s_tokens(attached, tiny_tokenizer):
    model, memory = attached
    wanted = [token for _, target in PAIRS for token in [*tiny_tokenizer(target)["input_ids"], 0]]
    assert memory.labels.tolist() == wanted and memory.schema.is_text
    assert len(set(memory.ids.tolist())) == len(memory.names) == 3
    assert memory.source.key.split(".")[0 if model.config.model_type == "t5" else 1] == "decoder"
    assert memory.context(4, 3).tolist() == wanted[1:4]


def test_a_gate_is_fitted_on_pairs_that_are_given(attached, tiny_tokenizer):
    model, memory = attached
    reader = rs.lm.fit(model, tiny_tokenizer, rs.Gated(memory, 5), PAIRS, progress=False)
    assert reader.evidence_.rows == len(memory)
    with pytest.raises(StorageError, match="no sources: give texts"):
        rs.lm.fit(model, tiny_tokenizer, rs.Gated(memory, 5))


def log_likelihoods(model, tokenizer, reader, pairs, **options):
    """What the reader, and the base alone, gives each token of the targets."""
    read = reader.predictions(rs.lm.encode(model, tokenizer, pairs, like=reader.memory), **options)
    labels = [(torch.from_numpy(part.labels), prediction) for part, prediction in read]
    return tuple(
        torch.cat([said.log_prob(tokens) for tokens, said in sides])
        for sides in (labels, [(tokens, prediction.base) for tokens, prediction in labels])
    )


def test_likelihoods_of_targets_are_those_by_hand(attached, tiny_tokenizer, by_hand):
    model, memory = attached
    reader = rs.KNNLM(memory, k=6, lmbda=0.6, sigma=5.0)
    pairs = [(NEW[0], "adds a name"), (NEW[1], "counts two"), PAIRS[1]]
    wanted, wanted_base = [], []
    for source, target in pairs:
        ids = ids_of(tiny_tokenizer, source)
        labels = [*tiny_tokenizer(target)["input_ids"], 0]
        read = torch.tensor([[model.config.decoder_start_token_id, *labels[:-1]]])
        said = by_hand.knn(model, reader, ids, decoder_input_ids=read)
        base = np.log(by_hand.states(model, memory, ids, decoder_input_ids=read)[1])
        wanted += [row[token] for row, token in zip(said, labels, strict=True)]
        wanted_base += [row[token] for row, token in zip(base, labels, strict=True)]
    found, base = log_likelihoods(model, tiny_tokenizer, reader, pairs, exclude=None)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_allclose(base, wanted_base, atol=1e-4)
    own, _ = log_likelihoods(model, tiny_tokenizer, reader, PAIRS[:1])
    seen, _ = log_likelihoods(model, tiny_tokenizer, reader, PAIRS[:1], exclude=None)
    assert own.mean() < seen.mean()  # a remembered pair does not see its own rows


def test_labels_of_a_padded_batch_give_the_memory_s_loss(attached, tiny_tokenizer, by_hand):
    model, memory = attached
    reader = rs.KNNLM(memory, k=6, lmbda=0.6, sigma=5.0)
    targets = [[*tiny_tokenizer(text)["input_ids"], 0] for text in ("adds", "counts what", "the name of it")]
    longest = max(map(len, targets))
    labels = torch.tensor([[*row, *[-100] * (longest - len(row))] for row in targets])
    inputs = sources(tiny_tokenizer, NEW)
    with rs.attach(model, reader), torch.no_grad():
        got = model(**inputs, labels=labels)
        as_tuple = model(**inputs, labels=labels, return_dict=False)
    losses = []
    for row, (text, target) in enumerate(zip(NEW, targets, strict=True)):
        ids = ids_of(tiny_tokenizer, text)
        read = torch.tensor([[model.config.decoder_start_token_id, *target[:-1]]])
        wanted = by_hand.knn(model, reader, ids, decoder_input_ids=read)
        np.testing.assert_allclose(got.logits[row, : len(target)].log_softmax(dim=-1).numpy(), wanted, atol=1e-4)
        losses += [-said[token] for said, token in zip(wanted, target, strict=True)]
    assert float(got.loss) == pytest.approx(np.mean(losses), abs=1e-4)
    assert float(as_tuple[0]) == pytest.approx(np.mean(losses), abs=1e-4)
    assert torch.equal(as_tuple[1], got.logits)


@pytest.mark.slow
def test_greedy_generation_of_a_padded_batch_follows_the_memory(attached, tiny_tokenizer, by_hand):
    model, memory = attached
    reader = rs.KNNLM(memory, k=6, lmbda=0.6, sigma=5.0)
    with rs.attach(model, reader):
        got = model.generate(**sources(tiny_tokenizer, NEW), **GREEDY)
    plain = model.generate(**sources(tiny_tokenizer, NEW), **GREEDY)
    for row, text in zip(got, NEW, strict=True):
        ids = ids_of(tiny_tokenizer, text)
        assert row.tolist() == greedily(model, reader, ids, by_hand.knn)
    assert got.tolist() != plain.tolist()


def test_beam_search_scores_are_the_memory_s(attached, tiny_tokenizer, by_hand):
    model, memory = attached
    reader = rs.KNNLM(memory, k=6, lmbda=0.6, sigma=5.0)
    settings = {**GREEDY, "num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.0}
    with rs.attach(model, reader):
        out = model.generate(
            **sources(tiny_tokenizer, NEW), **settings, output_scores=True, return_dict_in_generate=True
        )
    assert len(out.sequences) == 2 * len(NEW)
    for row, (tokens, score) in enumerate(zip(out.sequences, out.sequences_scores, strict=True)):
        ids = ids_of(tiny_tokenizer, NEW[row // 2])
        said = by_hand.knn(model, reader, ids, decoder_input_ids=tokens[None, :-1])
        assert float(score) == pytest.approx(sum(said[i, t] for i, t in enumerate(tokens[1:].tolist())), abs=1e-3)


def test_a_forced_language_and_the_labels_of_a_model_without_a_shift_of_its_own(tiny_model, tiny_tokenizer, by_hand):
    """M2M-100 and NLLB: generation begins with the language's code, which is forced and costs nothing."""
    model, code = tiny_model("m2m_100"), 299
    memory = rs.lm.remember(model, tiny_tokenizer, PAIRS, key_dtype="float32", progress=False)
    reader = rs.KNNLM(memory, k=6, lmbda=0.6, sigma=5.0)
    settings = {"num_beams": 3, "max_new_tokens": 5, "length_penalty": 0.0, "forced_bos_token_id": code}
    inputs, labels = sources(tiny_tokenizer, NEW), torch.tensor([[code, 5, 6, 0]] * 3)
    with rs.attach(model, reader), torch.no_grad():
        out = model.generate(**inputs, **settings, output_scores=True, return_dict_in_generate=True)
        loss = float(model(**inputs, labels=labels).loss)
    losses = []
    for tokens, score, text in zip(out.sequences, out.sequences_scores, NEW, strict=True):
        assert tokens[1] == code
        ids = ids_of(tiny_tokenizer, text)
        said = by_hand.knn(model, reader, ids, decoder_input_ids=tokens[None, :-1])
        kept = [said[i, t] for i, t in enumerate(tokens[1:].tolist()) if t != 1]
        assert float(score) == pytest.approx(sum(kept[1:]), abs=1e-3)
        said = by_hand.knn(model, reader, ids, decoder_input_ids=torch.tensor([[0, code, 5, 6]]))
        losses += [-said[i, t] for i, t in enumerate(labels[0].tolist())]
    assert loss == pytest.approx(np.mean(losses), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
def test_remembered_pairs_are_translated_by_heart(attached, tiny_tokenizer, beams):
    model, memory = attached
    reader = rs.KNNLM(memory, k=1, lmbda=1.0, sigma=1.0)
    inputs = sources(tiny_tokenizer, [source for source, _ in PAIRS])
    with rs.attach(model, reader) as handle:
        out = model.generate(**inputs, do_sample=False, num_beams=beams, max_new_tokens=20, eos_token_id=0)
        with handle.disabled():
            plain = model.generate(**inputs, do_sample=False, num_beams=beams, max_new_tokens=20, eos_token_id=0)
    assert tiny_tokenizer.batch_decode(out, skip_special_tokens=True) == [target for _, target in PAIRS]
    assert tiny_tokenizer.batch_decode(plain, skip_special_tokens=True) != [target for _, target in PAIRS]


@pytest.mark.parametrize("settings", [{"k": 0}, {"k": 4, "lmbda": 0.0}])
def test_no_memory_leaves_the_very_output(attached, tiny_tokenizer, settings):
    model, memory = attached
    inputs, labels = sources(tiny_tokenizer, NEW), torch.tensor([[5, 6, 7]] * 3)
    with torch.no_grad():
        plain = model(**inputs, labels=labels)
        with rs.attach(model, rs.KNNLM(memory, **settings)):
            same = model(**inputs, labels=labels)
    assert torch.equal(same.logits, plain.logits) and torch.equal(same.loss, plain.loss)


@pytest.mark.parametrize("m", [300, 128])
def test_resmem_adds_the_largest_residuals(attached, tiny_tokenizer, m, by_hand):
    model, _ = attached
    memory = rs.lm.remember(model, tiny_tokenizer, PAIRS, storage="top-m", m=m, key_dtype="float32", progress=False)
    ids = ids_of(tiny_tokenizer, NEW[0])
    read = torch.tensor([[model.config.decoder_start_token_id, 5, 6, 7]])
    with rs.attach(model, rs.ResMem(memory, k=3, sigma=2.0)), torch.no_grad():
        got = model(input_ids=ids, decoder_input_ids=read).logits[0].double().log_softmax(dim=-1).numpy()
    # By hand: what the model said of the remembered rows, then the residuals of the three nearest.
    said = []
    for source, target in PAIRS:
        labels = [*tiny_tokenizer(target)["input_ids"], 0]
        before = torch.tensor([[model.config.decoder_start_token_id, *labels[:-1]]])
        said.append(by_hand.states(model, memory, ids_of(tiny_tokenizer, source), decoder_input_ids=before)[1])
    residuals = np.eye(300)[memory.labels] - np.concatenate(said)
    np.put_along_axis(residuals, np.abs(residuals).argsort(axis=1)[:, : 300 - m], 0.0, axis=1)
    keys, base = by_hand.states(model, memory, ids, decoder_input_ids=read)
    rows = np.asarray(memory.keys, np.float64)
    for t, (key, p) in enumerate(zip(keys, base, strict=True)):
        distances = np.sqrt(((rows - key) ** 2).sum(axis=1))
        near = np.argsort(distances, kind="stable")[:3]
        weights = np.exp(-(distances[near] - distances[near].min()) / 2.0)
        score = np.maximum(p + weights / weights.sum() @ residuals[near], p / 300)
        np.testing.assert_allclose(np.exp(got[t]), score / score.sum(), atol=1e-5)


class TestContinuousCache:
    def reader(self, memory):
        return rs.ContinuousCache(rs.KNNLM(memory, k=0), window=5, theta=0.05, lmbda=0.5)

    def test_labels_alone_say_what_the_decoder_read(self, attached, tiny_tokenizer, by_hand):
        model, memory = attached
        labels = torch.tensor([[5, 6, 5, 6, 7, 5, 0]])
        ids = ids_of(tiny_tokenizer, NEW[0])
        read = torch.tensor([[model.config.decoder_start_token_id, *labels[0, :-1].tolist()]])
        with rs.attach(model, self.reader(memory)), torch.no_grad():
            got = model(input_ids=ids, labels=labels).logits[0].double().log_softmax(dim=-1).numpy()
        np.testing.assert_allclose(
            got, by_hand.cache(model, self.reader(memory), ids, decoder_input_ids=read), atol=1e-4
        )

    def test_generation_looks_back_at_the_target(self, attached, tiny_tokenizer, by_hand):
        model, memory = attached
        with rs.attach(model, self.reader(memory)):
            got = model.generate(**sources(tiny_tokenizer, NEW), **GREEDY)
        for row, text in zip(got, NEW, strict=True):
            ids = ids_of(tiny_tokenizer, text)
            assert row.tolist() == greedily(model, self.reader(memory), ids, by_hand.cache)

    def test_beams_look_back_at_their_own_targets(self, attached, tiny_tokenizer):
        model, memory = attached
        settings = {**sources(tiny_tokenizer, NEW), **GREEDY, "num_beams": 3}
        with rs.attach(model, self.reader(memory)):
            assert model.generate(**settings).tolist() == model.generate(**settings, use_cache=False).tolist()

    def test_embeddings_in_place_of_tokens_are_refused(self, attached, tiny_tokenizer):
        model, memory = attached
        ids = ids_of(tiny_tokenizer, NEW[0])
        with (
            rs.attach(model, self.reader(memory)),
            pytest.raises(ParameterError, match="decoder_inputs_embeds"),
        ):
            model(input_ids=ids, decoder_inputs_embeds=torch.zeros(1, 3, 32))


def test_a_source_alone_is_what_bart_reads(tiny_model, tiny_tokenizer, by_hand):
    model = tiny_model("bart")
    memory = rs.lm.remember(model, tiny_tokenizer, PAIRS, key_dtype="float32", progress=False)
    reader = rs.ContinuousCache(rs.KNNLM(memory, k=0), window=5, theta=0.05, lmbda=0.5)
    ids = ids_of(tiny_tokenizer, NEW[1])
    read = torch.tensor([[model.config.decoder_start_token_id, *ids[0, :-1].tolist()]])
    with rs.attach(model, reader), torch.no_grad():
        got = model(input_ids=ids).logits[0].double().log_softmax(dim=-1).numpy()
    np.testing.assert_allclose(got, by_hand.cache(model, reader, ids, decoder_input_ids=read), atol=1e-4)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_key_in_the_encoder_is_refused_at_once(kind, tiny_model, tiny_tokenizer):
    model = tiny_model(kind)
    key = next(name for name, _ in model.named_modules() if "encoder" in name and name.endswith(("wi", "fc1")))
    with pytest.raises(KeyModuleError, match="one vector per token"):
        rs.lm.remember(model, tiny_tokenizer, PAIRS, key=f"{key}:input", progress=False)


def test_sixteen_bit_models_answer_in_float32(tiny_model, tiny_tokenizer):
    model = tiny_model("t5").to(torch.bfloat16)
    memory = rs.lm.remember(model, tiny_tokenizer, PAIRS, progress=False)
    inputs = sources(tiny_tokenizer, [PAIRS[0][0]])
    labels = torch.tensor([[*tiny_tokenizer(PAIRS[0][1])["input_ids"], 0]])
    with rs.attach(model, rs.KNNLM(memory, k=1, lmbda=1.0, sigma=1.0)), torch.no_grad():
        out = model(**inputs, labels=labels)
    assert out.logits.dtype == torch.float32
    assert (out.logits.argmax(dim=-1) == labels).float().mean() > 0.9


def test_tuning_and_explaining_pairs(attached, tiny_tokenizer):
    model, memory = attached
    new = [(NEW[0], "adds a name"), (NEW[2], "the name")]
    val = rs.lm.encode(model, tiny_tokenizer, new, like=memory)
    best = rs.tune(rs.KNNLM(memory, k=2), val, grid={"k": [0, 2, 8], "lmbda": [0.3, 0.7], "sigma": [5.0]})
    found, _ = log_likelihoods(model, tiny_tokenizer, best, new)
    assert best.best_score_ == pytest.approx(float(found.mean()), abs=1e-4)
    why = rs.lm.explain(model, tiny_tokenizer, PAIRS[0], rs.KNNLM(memory, k=2, sigma=1.0), context=4)
    assert "mbers -> '<|endoftext|>'" in str(why)
