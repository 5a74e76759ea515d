"""Whose text it is: conversations on one attached model never mix, whatever is done to their caches."""

import asyncio
import copy
import gc
import inspect
import pickle
import threading
import weakref

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import ParameterError
from residua.readers.gate import Shares

TEXTS = ["def add(first, second):\n    return first + second\n", "class Counter:\n    def count(self, name):\n"]
PROMPTS = ["def count(self, name):\n    self", "class Counter:\n    def count", "return first"]
GREEDY = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 1, "eos_token_id": None}
UNUSUAL = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
}


@pytest.fixture(scope="module")
def llama(tiny_model, tiny_tokenizer):
    model = tiny_model("llama")
    memory = rs.lm.remember(model, tiny_tokenizer, TEXTS, window=32, key_dtype="float32", progress=False)
    return model, looking_back(memory)


def looking_back(memory):
    return rs.ContinuousCache(rs.KNNLM(memory, k=4, lmbda=0.3, sigma=5.0), window=40, theta=0.05, lmbda=0.6)


def unusual(kind, tokenizer):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    tokens = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **tokens, **UNUSUAL[kind])).eval()
    key = "head:input" if kind == "rwkv" else "lm_head:input"
    memory = rs.lm.remember(model, tokenizer, TEXTS, key=key, key_dtype="float32", progress=False)
    return model, looking_back(memory)


@pytest.fixture
def cached(llama):
    """``cached(ids, cache)``: what the attached model says of ids that go on from what the cache holds."""
    from transformers import DynamicCache

    model, reader = llama
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

    def call(ids, cache):
        return model(ids, use_cache=True, **{name: cache}).logits

    with rs.attach(model, reader), torch.no_grad():
        call.new = DynamicCache
        call.handle = rs.hooks.Handle.of(model)
        yield call


def ids_of(tokenizer, prompt):
    return torch.tensor([tokenizer(prompt)["input_ids"]])


def alone(model, ids):
    return model(ids, use_cache=False).logits


def test_interleaved_conversations_are_each_as_if_alone(llama, cached):
    """Sixteen of them, in any order and in any pieces, cut back, copied, reordered and started again."""
    model, _ = llama
    rng = np.random.default_rng(0)
    streams = [(torch.empty(1 + i % 3, 0, dtype=torch.int64), cached.new()) for i in range(16)]
    for _ in range(120):
        place = rng.integers(len(streams))
        ids, cache = streams[place]
        deed = rng.choice(["read", "crop", "copy", "reorder", "repeat", "select", "reset"], p=[0.7, *[0.05] * 6])
        if deed == "read" and ids.shape[1] < 40:
            more = torch.from_numpy(rng.integers(2, 300, (len(ids), rng.integers(1, 5))))
            said, ids = cached(more, cache), torch.cat([ids, more], dim=1)
            torch.testing.assert_close(said, alone(model, ids)[:, -more.shape[1] :], atol=1e-4, rtol=1e-4)
        elif deed == "crop" and ids.shape[1] > 3:
            cache.crop(-2)
            ids = ids[:, :-2]
        elif deed == "copy":
            streams[rng.integers(len(streams))] = ids, copy.deepcopy(cache)
        elif deed == "reorder":
            rows = torch.from_numpy(rng.integers(0, len(ids), len(ids)))
            cache.reorder_cache(rows)
            ids = ids[rows] if ids.shape[1] else ids
        elif deed == "repeat" and ids.numel() and len(ids) < 3:
            cache.batch_repeat_interleave(2)
            ids = ids.repeat_interleave(2, dim=0)
        elif deed == "select" and ids.numel():
            cache.batch_select_indices(torch.tensor([0]))
            ids = ids[:1]
        elif deed == "reset":
            cache.reset()
            ids = ids[:, :0]
        streams[place] = ids, cache


def test_a_gate_looks_back_step_by_step_as_over_a_whole_text(llama, tiny_tokenizer):
    model, memory = llama[0], llama[1].memory
    shares = Shares(np.random.default_rng(0).normal(size=(6, 8)), 0.9)
    gate = rs.Gated(memory, 4, 5.0, cache=40, theta=0.05, shares=shares)
    said = gate.predict_proba(rs.encode((model, tiny_tokenizer), [PROMPTS[0]], like=memory, end_of_text=False))
    ids = torch.cat([torch.tensor([[0]]), ids_of(tiny_tokenizer, PROMPTS[0])], dim=1)
    with rs.attach(model, gate), torch.no_grad():
        np.testing.assert_allclose(alone(model, ids)[0, :-1].softmax(-1), said, atol=1e-5)
        made = model.generate(ids, **GREEDY)
        again = alone(model, made)[0].argmax(dim=-1)
    assert made[0, ids.shape[1] :].tolist() == again[ids.shape[1] - 1 : -1].tolist()


def test_a_prefix_read_once_is_continued_twice(llama, cached, tiny_tokenizer):
    model, _ = llama
    prefix, first, second = (ids_of(tiny_tokenizer, text) for text in PROMPTS)
    primed = cached.new()
    cached(prefix, primed)
    on_disk = pickle.dumps(primed)
    for more in (first, second):
        for own in (copy.deepcopy(primed), pickle.loads(on_disk)):
            whole = alone(model, torch.cat([prefix, more], dim=1))[:, -more.shape[1] :]
            torch.testing.assert_close(cached(more, own), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("unseen", ["disabled", "detached", "another reader", "another batch"])
def test_positions_that_were_not_seen_are_refused(llama, cached, tiny_tokenizer, unseen):
    model, reader = llama
    ids, cache = ids_of(tiny_tokenizer, PROMPTS[0]), cached.new()
    seen = 0 if unseen != "another batch" else ids.shape[1]
    if unseen == "disabled":
        with cached.handle.disabled():
            cached(ids, cache)
    elif unseen == "detached":
        cached.handle.detach()
        cached(ids, cache)
        rs.attach(model, reader)
    elif unseen == "another reader":
        cached.handle.reader = reader.over
        cached(ids, cache)
        cached.handle.reader = reader
    else:
        cached(ids, cache)
        for layer in cache.layers:
            layer.batch_repeat_interleave(2)
        ids = ids.repeat(2, 1)
    with pytest.raises(ParameterError, match=f"has seen {seen} of the {ids.shape[1]} positions before"):
        cached(ids, cache)
    rs.hooks.Handle.of(model).detach()


def test_a_failed_call_is_not_part_of_the_text(llama, cached, tiny_tokenizer):
    ids, cache = ids_of(tiny_tokenizer, PROMPTS[0]), cached.new()
    said = cached(ids, cache)
    broken = llama[0].lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cached(ids, cache)
    broken.remove()
    with pytest.raises(ParameterError, match="others were read"):
        cached(ids, cache)
    torch.testing.assert_close(cached(ids, cached.new()), said)


def test_a_history_goes_with_its_cache(cached, tiny_tokenizer):
    cache = cached.new()
    cached(ids_of(tiny_tokenizer, PROMPTS[0]), cache)
    text = weakref.ref(cache._residua_text)
    gc.disable()  # a cache is large: nothing may keep it until rubbish is next collected
    try:
        del cache
        assert text() is None
    finally:
        gc.enable()


def test_two_threads_generate_and_a_third_asks_the_base(llama, tiny_tokenizer):
    model, reader = llama
    ids = [ids_of(tiny_tokenizer, prompt) for prompt in PROMPTS]
    base = model.generate(ids[2], **GREEDY).tolist()
    with rs.attach(model, reader):
        wanted = [model.generate(prompt, **GREEDY).tolist() for prompt in ids[:2]]
        remembered = model.generate(ids[2], **GREEDY).tolist()
    assert remembered != base
    found, barrier = {}, threading.Barrier(3)

    def work(i, handle):
        barrier.wait(timeout=20)
        for _ in range(3):
            if i < 2:
                found.setdefault(i, []).append(model.generate(ids[i], **GREEDY).tolist())
            else:
                with handle.disabled():
                    found.setdefault(i, []).append(model.generate(ids[i], **GREEDY).tolist())

    with rs.attach(model, reader) as handle:
        threads = [threading.Thread(target=work, args=(i, handle)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {0: [wanted[0]] * 3, 1: [wanted[1]] * 3, 2: [base] * 3}


def test_disabled_is_for_the_task_that_asked(llama, tiny_tokenizer):
    model, reader = llama
    ids = ids_of(tiny_tokenizer, PROMPTS[0])
    with torch.no_grad():
        base = model(ids).logits

    async def both():
        open_block, done = asyncio.Event(), asyncio.Event()

        async def ask_base():
            with handle.disabled():
                open_block.set()
                await done.wait()
                return model(ids).logits

        async def ask():
            await open_block.wait()
            said = model(ids).logits
            done.set()
            return said

        return await asyncio.gather(ask_base(), ask())

    with rs.attach(model, reader) as handle, torch.no_grad():
        plain, said = asyncio.run(both())
        assert torch.equal(plain, base)
        torch.testing.assert_close(said, model(ids).logits)
    assert not torch.equal(said, base)


@pytest.mark.parametrize(
    "options",
    [
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 3},
        {"num_beams": 3, "length_penalty": -1.0},
        {"num_beams": 2, "num_return_sequences": 2},
        {"num_beams": 2, "cache_implementation": "static"},
    ],
)
def test_every_way_to_generate_is_what_whole_texts_give(llama, tiny_tokenizer, options):
    model, reader = llama
    tiny_tokenizer.padding_side = "left"
    batch = tiny_tokenizer(PROMPTS, return_tensors="pt", padding=True)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], **GREEDY}
    beams = {name: value for name, value in options.items() if name in ("num_beams", "num_return_sequences")}
    beams |= {"length_penalty": options.get("length_penalty", 1.0)}
    with rs.attach(model, reader):
        whole = model.generate(**inputs, **beams, use_cache=False)
        assert model.generate(**inputs, **options).tolist() == whole.tolist()


@pytest.mark.parametrize("how", ["prompt lookup", "a smaller model"])
def test_assisted_decoding_looks_back_at_what_was_kept(llama, tiny_model, tiny_tokenizer, how):
    model, reader = llama
    helper = {"prompt_lookup_num_tokens": 3} if how == "prompt lookup" else {"assistant_model": tiny_model("llama")}
    ids = ids_of(tiny_tokenizer, PROMPTS[0] * 2)
    with rs.attach(model, reader):
        assert model.generate(ids, **GREEDY, **helper).tolist() == model.generate(ids, **GREEDY).tolist()


def test_a_recurrent_model_s_cache_is_followed(tiny_tokenizer):
    model, reader = unusual("mamba", tiny_tokenizer)
    ids = torch.cat([ids_of(tiny_tokenizer, prompt)[:, :3] for prompt in PROMPTS])
    with rs.attach(model, reader) as handle:
        whole = model.generate(ids, **GREEDY, use_cache=False)
        assert model.generate(ids, **GREEDY).tolist() == whole.tolist()
        kept = model.generate(ids, **GREEDY, return_dict_in_generate=True)
        assert kept.sequences.tolist() == whole.tolist()
        with handle.disabled():
            assert model.generate(ids, **GREEDY).tolist() != whole.tolist()
            other = model(ids).cache
            model(ids[:, :1], cache=kept.cache)
        for cache in (other, kept.cache):
            with pytest.raises(ParameterError, match="has seen 0 of the unknown positions"):
                model(ids[:, :1], cache=cache)


def test_a_past_that_cannot_be_followed_is_refused_before_the_first_token(tiny_tokenizer):
    from transformers import TextStreamer

    class Heard(TextStreamer):
        heard = 0

        def put(self, value):
            self.heard += value.dim() == 1

    model, reader = unusual("rwkv", tiny_tokenizer)
    ids, streamer = ids_of(tiny_tokenizer, PROMPTS[0]), Heard(tiny_tokenizer)
    with rs.attach(model, reader):
        with pytest.raises(ParameterError, match="keeps the text before elsewhere"):
            model.generate(ids, streamer=streamer, **GREEDY)
        assert model(ids).logits.shape == (*ids.shape, 300)  # a whole text is no question
    assert streamer.heard == 0


def test_a_model_that_leaves_its_cache_empty_reads_whole_texts(tiny_tokenizer):
    model, reader = unusual("openai-gpt", tiny_tokenizer)
    ids = ids_of(tiny_tokenizer, PROMPTS[0])
    base = model.generate(ids, **GREEDY)
    with rs.attach(model, reader):
        whole = model.generate(ids, **GREEDY, use_cache=False).tolist()
        assert model.generate(ids, **GREEDY).tolist() == whole != base.tolist()
