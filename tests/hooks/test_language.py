"""Attached language models: generation and scoring equal the reader's own words, step by step."""

import copy
import inspect
import sys
from pathlib import Path

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
GREEDY = {"do_sample": False, "pad_token_id": 1, "eos_token_id": NEVER}
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


def test_every_position_of_a_forward_pass_is_the_interpolation(attached, tiny_tokenizer, by_hand):
    model, memory = attached
    reader = rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)
    ids = ids_of(tiny_tokenizer)
    wanted = by_hand.knn(model, reader, ids)
    with rs.attach(model, reader), torch.no_grad():
        got = model(ids).logits[0].double().log_softmax(dim=-1).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert not model._forward_hooks


@pytest.mark.slow
def test_greedy_generation_follows_the_memory_token_by_token(attached, tiny_tokenizer, by_hand):
    model, memory = attached
    reader = rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)
    ids = ids_of(tiny_tokenizer)
    with rs.attach(model, reader):
        got = model.generate(ids, max_new_tokens=8, **GREEDY)
    wanted = ids
    for _ in range(8):  # without any cache: whole sequences, dense arithmetic
        nxt = by_hand.knn(model, reader, wanted)[-1].argmax()
        wanted = torch.cat([wanted, torch.tensor([[nxt]])], dim=1)
    assert got.tolist() == wanted.tolist()


@pytest.mark.slow
def test_left_padded_batches_generate_what_each_prompt_does_alone(attached, tiny_tokenizer):
    model, memory = attached
    reader = rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)
    prompts = ["def count(self", "class Counter:\n    def"]
    settings = {"max_new_tokens": 6, **GREEDY}
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
    plain = model.generate(ids[:, :8], max_new_tokens=10, **GREEDY)
    with rs.attach(model, reader) as handle:
        recited = model.generate(ids[:, :8], max_new_tokens=10, **GREEDY)
        with handle.disabled():
            paused = model.generate(ids[:, :8], max_new_tokens=10, **GREEDY)
    assert recited.tolist() == ids[:, :18].tolist()
    assert plain.tolist() == paused.tolist() != recited.tolist()


def test_labels_give_the_memory_s_own_loss(gpt2, tiny_tokenizer, by_hand):
    model, memory = gpt2
    reader = rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)
    ids = ids_of(tiny_tokenizer)
    wanted = by_hand.knn(model, reader, ids)
    with rs.attach(model, reader), torch.no_grad():
        got = model(ids, labels=ids)
        as_tuple = model(ids, labels=ids, return_dict=False)
    loss = -np.mean([wanted[i, ids[0, i + 1]] for i in range(ids.shape[1] - 1)])
    assert float(got.loss) == pytest.approx(loss, abs=1e-4)
    assert float(as_tuple[0]) == pytest.approx(loss, abs=1e-4)
    np.testing.assert_allclose(as_tuple[1][0].log_softmax(dim=-1).numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize("kept", [3, torch.tensor([0, 4, 2])])
def test_only_some_positions_are_answered(attached, tiny_tokenizer, kept):
    model, memory = attached
    ids = ids_of(tiny_tokenizer)
    with rs.attach(model, rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)), torch.no_grad():
        every = model(ids).logits
        if "logits_to_keep" not in inspect.signature(model.forward).parameters:
            pytest.skip("this model has no such option")
        some = model(ids, logits_to_keep=kept).logits
    torch.testing.assert_close(some, every[:, -kept:] if isinstance(kept, int) else every[:, kept])


@pytest.mark.parametrize("cache", [False, True])
def test_padded_positions_keep_the_base_s_logits(gpt2, tiny_tokenizer, cache):
    model, memory = gpt2
    ids = ids_of(tiny_tokenizer).repeat(3, 1)
    mask = torch.ones_like(ids)
    mask[0, :4] = mask[1, -2:] = 0
    reader = rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)
    reader = rs.ContinuousCache(reader, window=5, theta=0.05, lmbda=0.5) if cache else reader
    with torch.no_grad():
        plain = model(ids, attention_mask=mask).logits
        with rs.attach(model, reader):
            # By position, as by name.
            changed = model(ids, None, mask).logits
    same = (changed == plain).all(dim=-1)
    assert torch.equal(same, mask == 0)


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
        again = model.generate(ids[:, :6], max_new_tokens=5, **GREEDY)
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
        with pytest.raises(ShapeError, match="gave 310 outputs; its memory has 300"):
            model(ids_of(tiny_tokenizer))


class TestContinuousCache:
    def cached(self, memory, theta=0.05, lmbda=0.5, over=None, window=6):
        return rs.ContinuousCache(over or rs.KNNLM(memory, k=0), window=window, theta=theta, lmbda=lmbda)

    @pytest.mark.parametrize("kind", ["gpt2", "llama"])
    def test_steps_of_generation_equal_one_whole_pass_by_hand(self, tiny_model, tiny_tokenizer, kind, by_hand):
        model = tiny_model(kind)
        memory = rs.lm.remember(model, tiny_tokenizer, TEXTS, window=32, key_dtype="float32", progress=False)
        reader = self.cached(memory)
        ids = ids_of(tiny_tokenizer)
        with rs.attach(model, reader), torch.no_grad():
            whole = model(ids, use_cache=False).logits[0].double().log_softmax(dim=-1).numpy()
            out = model.generate(ids, max_new_tokens=6, **GREEDY)
            again = model.generate(ids, max_new_tokens=6, **GREEDY)
        np.testing.assert_allclose(whole, by_hand.cache(model, reader, ids), atol=1e-4)
        assert out.tolist() == again.tolist()  # nothing is left over from the last text
        for end in range(ids.shape[1], ids.shape[1] + 6):
            assert by_hand.cache(model, reader, out[:, :end])[-1].argmax() == out[0, end]

    def test_padded_rows_are_sequences_of_their_own(self, gpt2, tiny_tokenizer):
        model, memory = gpt2
        reader = self.cached(memory, over=rs.KNNLM(memory, k=4, lmbda=0.3, sigma=5.0))
        prompts = ["def count(self", "class Counter:\n    def count"]
        tiny_tokenizer.padding_side = "left"
        batch = tiny_tokenizer(prompts, return_tensors="pt", padding=True)
        settings = {"max_new_tokens": 6, **GREEDY}
        with rs.attach(model, reader):
            together = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **settings)[
                :, -6:
            ]
            alone = [model.generate(ids_of(tiny_tokenizer, prompt), **settings)[0, -6:] for prompt in prompts]
        assert together.tolist() == [row.tolist() for row in alone]

    def test_embeddings_in_place_of_tokens_are_refused(self, gpt2):
        model, memory = gpt2
        with rs.attach(model, self.cached(memory)), pytest.raises(ParameterError, match="inputs_embeds"):
            model(inputs_embeds=torch.zeros(1, 3, 32))


def test_assisted_decoding_gives_what_greedy_decoding_gives(gpt2, tiny_model, tiny_tokenizer):
    model, memory = gpt2
    helper = tiny_model("gpt2", n_layer=1)
    ids = ids_of(tiny_tokenizer)
    settings = {"max_new_tokens": 8, **GREEDY}
    with rs.attach(model, rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)):
        plain = model.generate(ids, **settings)
        assisted = model.generate(ids, assistant_model=helper, **settings)
    assert plain.tolist() == assisted.tolist()


def test_a_model_attached_twice_is_refused(gpt2):
    model, memory = gpt2
    with rs.attach(model, rs.KNNLM(memory, k=1)), pytest.raises(InputError, match="attached already"):
        rs.attach(model, rs.KNNLM(memory, k=1))


class Tagger(torch.nn.Module):
    """No language model: a class for each position, from plain vectors."""

    def __init__(self, outputs=4):
        super().__init__()
        self.hidden, self.head = torch.nn.Linear(3, 6), torch.nn.Linear(6, outputs)

    def forward(self, x, attention_mask=None):
        return {"logits": self.head(self.hidden(x).tanh())}


@pytest.mark.parametrize("task", ["classification", "a lone logit", "regression"])
def test_positions_of_any_model_are_rows(task):
    torch.manual_seed(0)
    model, x = Tagger(1 if task == "a lone logit" else 4).eval(), torch.randn(5, 7, 3)
    with torch.no_grad():
        keys, logits = model.hidden(x).tanh().flatten(0, 1), model(x)["logits"]
    flat = logits.flatten(0, 1)
    if task == "a lone logit":
        flat = torch.cat([torch.zeros_like(flat), flat], dim=1)
    labels = torch.randn(35, 4) if task == "regression" else torch.arange(35) % flat.shape[1]
    rows = rs.Encoded(keys, flat, labels)
    reader = rs.ResMem(rs.Memory(rows), k=3, sigma=1.0)
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[1, 4:] = False
    with rs.attach(model, reader, key="head:input"):
        changed, padded = model(x)["logits"], model(x, attention_mask=mask)["logits"]
    if task == "regression":
        wanted = torch.from_numpy(reader.predict(rows))
    else:
        wanted = torch.from_numpy(reader.predict_proba(rows)).log()
        wanted = wanted[:, 1:] - wanted[:, :1] if task == "a lone logit" else wanted + flat.logsumexp(1, keepdim=True)
    torch.testing.assert_close(changed.flatten(0, 1), wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(padded[mask], changed[mask]) and torch.equal(padded[~mask], logits[~mask])


def test_tags_of_tokens_and_their_loss():
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = BertForTokenClassification(BertConfig(vocab_size=20, num_labels=3, **sizes)).eval()
    ids, labels = torch.randint(20, (4, 6)), torch.randint(3, (4, 6))
    base = model(ids, output_hidden_states=True)
    rows = rs.Encoded(base.hidden_states[-1].flatten(0, 1), base.logits.flatten(0, 1), labels.flatten())
    reader = rs.ResMem(rs.Memory(rows), k=1, sigma=1.0)
    with rs.attach(model, reader, key="classifier:input"), torch.no_grad():
        out = model(ids, labels=labels)
    assert torch.equal(out.logits.argmax(dim=-1), labels)
    loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), labels.flatten())
    assert float(out.loss) == pytest.approx(float(loss))


def test_keys_that_are_not_of_positions_are_refused():
    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.head = torch.nn.Linear(3, 3), torch.nn.Linear(3, 4)

        def forward(self, x):
            return self.head(x + self.mean(x.mean(dim=1))[:, None])

    model = Pooled().eval()
    reader = rs.KNNLM(rs.Memory(rs.Encoded(torch.randn(9, 3), torch.randn(9, 4), torch.arange(9) % 4)), k=1)
    with rs.attach(model, reader, key="mean"), pytest.raises(ShapeError, match="2 vectors for logits of 2 sequences"):
        model(torch.randn(2, 7, 3))


@pytest.mark.parametrize("index", ["exact", "IVF2,Flat"])
def test_few_files_lie_between_the_model_and_its_memory(gpt2, tiny_tokenizer, index):
    if index != "exact":
        pytest.importorskip("faiss")
    model, _ = gpt2
    memory = rs.lm.remember(model, tiny_tokenizer, TEXTS, window=32, index=index, progress=False)
    ids, files = ids_of(tiny_tokenizer), set()

    def note(frame, event, _):
        if event == "call":
            files.add(frame.f_code.co_filename)

    with rs.attach(model, rs.KNNLM(memory, k=8, lmbda=0.6, sigma=5.0)), torch.no_grad():
        model(ids)
        sys.setprofile(note)
        try:
            model(ids)
        finally:
            sys.setprofile(None)
    home = Path(rs.__file__).parent
    ours = {Path(file).relative_to(home).as_posix() for file in files if Path(file).is_relative_to(home)}
    assert len([file for file in ours if file.split("/")[0] in ("hooks", "encoding")]) <= 4, sorted(ours)
    assert len(ours) <= 17, "\n".join(sorted(ours))
