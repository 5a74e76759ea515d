"""Attached language models: generation and scoring equal the reader's own words, step by step."""

import copy

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import InputError, ParameterError, ShapeError

TEXTS = [
    "def add(first, second):\n    return first + second\n",
    "class Counter:\n    def count(self, name):\n        return self.seen[name]\n",
    "def count(self, name):\n    self.seen[name] = self.seen.get(name, 0) + 1\n",
]
NEVER = 10**6  # an end of text that no model says, so that all texts have one length
KINDS = ("gpt2", "llama", "qwen2", "opt", "gpt_neox")


@pytest.fixture(scope="module", params=KINDS)
def attached(request, tiny_model, tiny_tokenizer):
    model = tiny_model(request.param)
    memory = rs.lm.remember(model, tiny_tokenizer, TEXTS, window=32, key_dtype="float32", progress=False)
    return model, memory


@pytest.fixture(scope="module")
def gpt2(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2")
    return model, rs.lm.remember(model, tiny_tokenizer, TEXTS, window=32, key_dtype="float32", progress=False)


def ids_of(tokenizer, text="def count(self, name):\n    self"):
    return torch.tensor([tokenizer(text)["input_ids"]])


def by_hand(model, reader, ids):
    """log-probabilities (t, V) of one unpadded sequence, by an independent capture and dense arithmetic."""
    caught = {}
    name = reader.memory.source.key.removesuffix(":input")
    hook = model.get_submodule(name).register_forward_pre_hook(lambda m, args: caught.update(key=args[0].detach()))
    with torch.no_grad():
        logits = model(ids).logits[0]
    hook.remove()
    memory = reader.memory
    keys, rows = caught["key"].reshape(len(logits), -1).double().numpy(), memory.table["key"].double().numpy()
    labels = memory.labels
    p = torch.softmax(logits.double() / reader.temperature, dim=1).numpy()
    out = []
    for key, base in zip(keys, p, strict=True):
        squared = ((rows - key) ** 2).sum(axis=1)
        near = np.argsort(squared, kind="stable")[: reader.k]
        weights = np.exp(-(squared[near] - squared[near].min()) / reader.sigma)
        knn = np.bincount(labels[near], weights / weights.sum(), len(base))
        out.append(np.log(reader.lmbda * knn + (1 - reader.lmbda) * base))
    return np.stack(out)


def test_every_position_of_a_forward_pass_is_the_interpolation(attached, tiny_tokenizer):
    model, memory = attached
    reader = rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)
    ids = ids_of(tiny_tokenizer)
    wanted = by_hand(model, reader, ids)
    with rs.attach(model, reader), torch.no_grad():
        got = model(ids).logits[0].double().numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert not model._forward_hooks


def test_greedy_generation_follows_the_memory_token_by_token(attached, tiny_tokenizer):
    model, memory = attached
    reader = rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)
    ids = ids_of(tiny_tokenizer)
    with rs.attach(model, reader):
        got = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=1, eos_token_id=NEVER)
    wanted = ids
    for _ in range(8):  # without any cache: whole sequences, dense arithmetic
        nxt = by_hand(model, reader, wanted)[-1].argmax()
        wanted = torch.cat([wanted, torch.tensor([[nxt]])], dim=1)
    assert got.tolist() == wanted.tolist()


def test_left_padded_batches_generate_what_each_prompt_does_alone(attached, tiny_tokenizer):
    model, memory = attached
    reader = rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)
    prompts = ["def count(self", "class Counter:\n    def"]
    settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 1, "eos_token_id": NEVER}
    tiny_tokenizer.padding_side = "left"
    batch = tiny_tokenizer(prompts, return_tensors="pt", padding=True)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with rs.attach(model, reader):
        together = model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]
        alone = [model.generate(ids_of(tiny_tokenizer, prompt), **settings)[0, -6:] for prompt in prompts]
    assert together.tolist() == [row.tolist() for row in alone]


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "top_k": 5, "num_return_sequences": 3},
        {"do_sample": True, "num_beams": 2},
    ],
)
def test_other_decoding_strategies_run_and_use_the_memory(gpt2, tiny_tokenizer, options):
    model, memory = gpt2
    # All weight on one neighbour: what is generated can only be remembered text.
    reader = rs.KNNLM(memory, k=1, lmbda=1.0, sigma=1.0)
    torch.manual_seed(0)
    with rs.attach(model, reader):
        out = model.generate(
            ids_of(tiny_tokenizer, TEXTS[0][:18]), max_new_tokens=5, pad_token_id=1, eos_token_id=NEVER, **options
        )
    # Greedy with k=1 and the whole text remembered continues the text itself.
    if not options.get("do_sample"):
        assert tiny_tokenizer.decode(out[0]).startswith(TEXTS[0][:18])
    assert len(out) == options.get("num_return_sequences", 1)


def test_a_remembered_text_is_continued_by_heart(gpt2, tiny_tokenizer):
    model, memory = gpt2
    ids = torch.tensor([[0, *tiny_tokenizer(TEXTS[0])["input_ids"]]])
    reader = rs.KNNLM(memory, k=1, lmbda=1.0, sigma=1.0)
    plain = model.generate(ids[:, :8], max_new_tokens=10, do_sample=False, pad_token_id=1, eos_token_id=NEVER)
    with rs.attach(model, reader) as handle:
        recited = model.generate(ids[:, :8], max_new_tokens=10, do_sample=False, pad_token_id=1, eos_token_id=NEVER)
        with handle.disabled():
            paused = model.generate(ids[:, :8], max_new_tokens=10, do_sample=False, pad_token_id=1, eos_token_id=NEVER)
    assert recited.tolist() == ids[:, :18].tolist()
    assert plain.tolist() == paused.tolist() != recited.tolist()


def test_labels_give_the_memory_s_own_loss(gpt2, tiny_tokenizer):
    model, memory = gpt2
    reader = rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)
    ids = ids_of(tiny_tokenizer)
    wanted = by_hand(model, reader, ids)
    with rs.attach(model, reader), torch.no_grad():
        got = model(ids, labels=ids)
        as_tuple = model(ids, labels=ids, return_dict=False)
    loss = -np.mean([wanted[i, ids[0, i + 1]] for i in range(ids.shape[1] - 1)])
    assert float(got.loss) == pytest.approx(loss, abs=1e-4)
    assert float(as_tuple[0]) == pytest.approx(loss, abs=1e-4)
    np.testing.assert_allclose(as_tuple[1][0].numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("settings", [{"k": 0}, {"k": 4, "lmbda": 0.0}])
def test_no_memory_leaves_the_very_output(gpt2, tiny_tokenizer, settings):
    model, memory = gpt2
    ids = ids_of(tiny_tokenizer)
    with torch.no_grad():
        plain = model(ids).logits
        with rs.attach(model, rs.KNNLM(memory, **settings)):
            assert torch.equal(model(ids).logits, plain)


def test_sixteen_bit_models_answer_in_float32(tiny_model, tiny_tokenizer):
    model = tiny_model("llama").to(torch.bfloat16)
    memory = rs.lm.remember(model, tiny_tokenizer, TEXTS, window=32, progress=False)
    reader = rs.KNNLM(memory, k=1, lmbda=1.0, sigma=1.0)
    ids = torch.tensor([[0, *tiny_tokenizer(TEXTS[0])["input_ids"]]])
    with rs.attach(model, reader), torch.no_grad():
        out = model(ids[:, :-1])
        again = model.generate(ids[:, :6], max_new_tokens=5, do_sample=False, pad_token_id=1, eos_token_id=NEVER)
    assert out.logits.dtype == torch.float32
    assert (out.logits.argmax(dim=-1) == ids[:, 1:]).float().mean() > 0.9
    assert again.shape == (1, 11)


def test_resmem_adds_its_residuals(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2")
    memory = rs.lm.remember(model, tiny_tokenizer, TEXTS, window=32, storage="top-m", m=300, progress=False)
    ids = torch.tensor([[0, *tiny_tokenizer(TEXTS[1])["input_ids"]]])
    with rs.attach(model, rs.ResMem(memory, k=1, sigma=1.0)), torch.no_grad():
        got = model(ids[:, :-1]).logits[0].argmax(dim=1)
    assert (got == ids[0, 1:]).float().mean() > 0.9  # one neighbour, itself: the score is its label's


def test_another_memory_takes_over_at_once(gpt2, tiny_model, tiny_tokenizer):
    model, memory = gpt2
    other = rs.lm.remember(model, tiny_tokenizer, TEXTS[1:2], window=32, key_dtype="float32", progress=False)
    ids = ids_of(tiny_tokenizer)
    with rs.attach(model, rs.KNNLM(memory, k=4, sigma=1.0)) as handle, torch.no_grad():
        first = model(ids).logits
        handle.reader = rs.KNNLM(other, k=4, sigma=1.0)
        second = model(ids).logits
    with rs.attach(model, rs.KNNLM(other, k=4, sigma=1.0)), torch.no_grad():
        assert torch.equal(model(ids).logits, second)
    assert not torch.equal(first, second)


def test_another_model_s_memory_is_refused(gpt2, tiny_model):
    with pytest.raises(rs.errors.SourceMismatchError, match=r"keys come from|parameter"):
        rs.attach(tiny_model("llama"), rs.KNNLM(gpt2[1], k=4))


def test_a_vocabulary_of_another_size_is_refused(gpt2, tiny_tokenizer):
    model = copy.deepcopy(gpt2[0])
    memory = gpt2[1]
    with rs.attach(model, rs.KNNLM(memory, k=4)):
        model.lm_head = torch.nn.Linear(32, 310, bias=False)
        with pytest.raises(ShapeError, match="310 tokens; its memory's has 300"):
            model(ids_of(tiny_tokenizer))


class TestContinuousCache:
    def cached(self, memory, theta=0.05, lmbda=0.5, over=None, window=6):
        return rs.ContinuousCache(over or rs.KNNLM(memory, k=0), window=window, theta=theta, lmbda=lmbda)

    def by_hand(self, model, reader, ids, key):
        """Grave et al. over one sequence, float64."""
        caught = {}
        hook = model.get_submodule(key).register_forward_pre_hook(lambda m, args: caught.update(key=args[0].detach()))
        with torch.no_grad():
            base = torch.softmax(model(ids).logits[0].double(), dim=1).numpy()
        hook.remove()
        keys, tokens = caught["key"][0].double().numpy(), ids[0].numpy()
        out = []
        for t in range(len(tokens)):
            past = np.arange(max(0, t - reader.window), t)
            p = base[t]
            if len(past):
                similar = reader.theta * keys[past] @ keys[t]
                weights = np.exp(similar - similar.max())
                cache = np.bincount(tokens[past + 1], weights / weights.sum(), len(p))
                p = reader.lmbda * cache + (1 - reader.lmbda) * p
            out.append(np.log(p))
        return np.stack(out)

    @pytest.mark.parametrize("kind", ["gpt2", "llama"])
    def test_steps_of_generation_equal_one_whole_pass_by_hand(self, tiny_model, tiny_tokenizer, kind):
        model = tiny_model(kind)
        memory = rs.lm.remember(model, tiny_tokenizer, TEXTS, window=32, key_dtype="float32", progress=False)
        reader = self.cached(memory)
        key = memory.source.key.removesuffix(":input")
        ids = ids_of(tiny_tokenizer)
        with rs.attach(model, reader), torch.no_grad():
            whole = model(ids, use_cache=False).logits[0].double().numpy()
            out = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=1, eos_token_id=NEVER)
            again = model.generate(ids, max_new_tokens=6, do_sample=False, pad_token_id=1, eos_token_id=NEVER)
        np.testing.assert_allclose(whole, self.by_hand(model, reader, ids, key), atol=1e-4)
        assert out.tolist() == again.tolist()  # nothing is left over from the last text
        for end in range(ids.shape[1], ids.shape[1] + 6):
            assert self.by_hand(model, reader, out[:, :end], key)[-1].argmax() == out[0, end]

    def test_padded_rows_are_sequences_of_their_own(self, gpt2, tiny_tokenizer):
        model, memory = gpt2
        reader = self.cached(memory, over=rs.KNNLM(memory, k=4, lmbda=0.3, sigma=5.0))
        prompts = ["def count(self", "class Counter:\n    def count"]
        tiny_tokenizer.padding_side = "left"
        batch = tiny_tokenizer(prompts, return_tensors="pt", padding=True)
        settings = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 1, "eos_token_id": NEVER}
        with rs.attach(model, reader):
            together = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **settings)[
                :, -6:
            ]
            alone = [model.generate(ids_of(tiny_tokenizer, prompt), **settings)[0, -6:] for prompt in prompts]
        assert together.tolist() == [row.tolist() for row in alone]

    def test_what_rewrites_the_text_is_refused(self, gpt2, tiny_model, tiny_tokenizer):
        model, memory = gpt2
        ids = ids_of(tiny_tokenizer)
        with rs.attach(model, self.cached(memory)):
            with pytest.raises(ParameterError, match="beam search"):
                model.generate(ids, max_new_tokens=4, num_beams=2, pad_token_id=1, eos_token_id=NEVER)
            sampled = model.generate(ids, max_new_tokens=4, do_sample=True, pad_token_id=1, eos_token_id=NEVER)
        assert sampled.shape[1] == ids.shape[1] + 4

    def test_embeddings_in_place_of_tokens_are_refused(self, gpt2):
        model, memory = gpt2
        with rs.attach(model, self.cached(memory)), pytest.raises(ParameterError, match="inputs_embeds"):
            model(inputs_embeds=torch.zeros(1, 3, 32))


def test_assisted_decoding_gives_what_greedy_decoding_gives(gpt2, tiny_model, tiny_tokenizer):
    model, memory = gpt2
    helper = tiny_model("gpt2", n_layer=1)
    ids = ids_of(tiny_tokenizer)
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 1, "eos_token_id": NEVER}
    with rs.attach(model, rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)):
        plain = model.generate(ids, **settings)
        assisted = model.generate(ids, assistant_model=helper, **settings)
    assert plain.tolist() == assisted.tolist()


def test_a_model_attached_twice_is_refused(gpt2):
    model, memory = gpt2
    with rs.attach(model, rs.KNNLM(memory, k=1)), pytest.raises(InputError, match="attached already"):
        rs.attach(model, rs.KNNLM(memory, k=1))
