"""Drafts from the memory change how often a model runs, and never what it says."""

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import InputError, ParameterError
from residua.hooks.drafts import Drafts

TEXTS = [
    (
        "add.py",
        "def add(first, second):\n    return first + second\n\n\ndef count(self, name):\n    self.seen[name] = 0\n",
    ),
    ("counter.py", "class Counter:\n    def count(self, name):\n        return self.seen[name]\n"),
]
PROMPTS = ["def add(first", "class Counter:\n    def count", "x"]
GREEDY = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 1, "eos_token_id": None}
KINDS = {
    "gpt2": {},
    "llama": {},
    "qwen2": {"use_sliding_window": True, "sliding_window": 6, "layer_types": ["full_attention", "sliding_attention"]},
}
READERS = {
    "the model alone": lambda memory: rs.KNNLM(memory, k=0),
    "kNN-LM": lambda memory: rs.KNNLM(memory, k=4, lmbda=0.5, sigma=5.0),
    "by heart": lambda memory: rs.KNNLM(memory, k=1, lmbda=0.95, sigma=1.0),
    "cache": lambda memory: rs.ContinuousCache(
        rs.KNNLM(memory, k=4, lmbda=0.5, sigma=5.0), window=40, theta=0.05, lmbda=0.4
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def language(request, tiny_model, tiny_tokenizer):
    model = tiny_model(request.param, **KINDS[request.param])
    return model, rs.lm.remember(model, tiny_tokenizer, TEXTS, window=64, key_dtype="float32", progress=False)


@pytest.fixture
def gpt2(tiny_model, tiny_tokenizer):
    model = tiny_model("gpt2")
    return model, rs.lm.remember(model, tiny_tokenizer, TEXTS, window=64, key_dtype="float32", progress=False)


def ids_of(tokenizer, text):
    return torch.tensor([[0, *tokenizer(text)["input_ids"]]])


def counted(model, ids, **options):
    """The generated tokens, and how often the model ran."""
    runs = []
    hook = model.register_forward_hook(lambda *_: runs.append(1))
    try:
        made = model.generate(ids, **{**GREEDY, **options})
    finally:
        hook.remove()
    return made[0, ids.shape[1] :].tolist(), len(runs)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_greedy_text_is_the_same_in_fewer_steps(language, tiny_tokenizer, reader):
    model, memory = language
    drafts, saved = rs.lm.draft(memory), 0
    with rs.attach(model, READERS[reader](memory)):
        for prompt in PROMPTS:
            ids = ids_of(tiny_tokenizer, prompt)
            plain, steps = counted(model, ids)
            drafted, fewer = counted(model, ids, assistant_model=drafts)
            assert drafted == plain and steps == GREEDY["max_new_tokens"] and fewer <= steps
            saved += steps - fewer
    assert saved > (24 if reader == "by heart" else 0)


@pytest.mark.parametrize("reader", ["kNN-LM", "cache"])
def test_each_drafted_position_is_corrected_as_if_it_were_the_last(language, tiny_tokenizer, reader):
    model, memory = language
    ids = ids_of(tiny_tokenizer, PROMPTS[0])
    told = {**GREEDY, "return_dict_in_generate": True, "output_logits": True}
    with rs.attach(model, READERS[reader](memory)):
        plain = model.generate(ids, **told).logits
        drafted = model.generate(ids, **told, assistant_model=rs.lm.draft(memory)).logits
    torch.testing.assert_close(torch.stack(drafted), torch.stack(plain), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 3},
        {"eos_token_id": 0},
        {"max_new_tokens": 1},
        {"cache_implementation": "static"},
        {"min_new_tokens": 5, "eos_token_id": 88},
    ],
    ids=str,
)
def test_whatever_generation_asks_for(gpt2, tiny_tokenizer, options):
    model, memory = gpt2
    ids = ids_of(tiny_tokenizer, PROMPTS[0])
    with rs.attach(model, READERS["by heart"](memory)):
        plain, _ = counted(model, ids, **options)
        assert counted(model, ids, assistant_model=rs.lm.draft(memory), **options)[0] == plain


def test_a_recited_document_is_drafted_sixteen_tokens_at_a_time(gpt2, tiny_tokenizer):
    _, memory = gpt2
    tokens = memory.labels[memory.ids == memory.ids[0]].tolist()
    drafts = rs.lm.draft(memory)
    assert drafts.draft(tokens[:20], 16) == tokens[20:36] and drafts.draft(tokens[:20], 3) == tokens[20:23]
    assert drafts.draft([299, *tokens[4:7]], 16) == tokens[7:10]  # as many as are known to agree
    assert drafts.draft(tokens[:-3], 16) == tokens[-3:]  # nothing beyond its end
    assert len(rs.lm.draft(memory, tokens=5).generate(torch.tensor([tokens[:20]]), 5).scores) == 5


def test_the_text_itself_is_looked_up_too(gpt2, tiny_tokenizer):
    _, memory = gpt2
    new = [290, 291, 292, 293, 294]
    assert rs.lm.draft(memory).draft([*new, 7, 8, *new[:3]], 16) == [293, 294, 7]


def test_a_forgotten_document_is_not_proposed_and_an_added_one_is(gpt2, tiny_tokenizer):
    model, memory = gpt2
    drafts, first = rs.lm.draft(memory), int(memory.ids[0])
    tokens = memory.labels[memory.ids == first].tolist()
    assert drafts.draft(tokens[:12], 16) == tokens[12:24]
    memory.forget([first])
    assert drafts.draft(tokens[:12], 16) != tokens[12:24]
    text = drafts.suffixes.text.tolist()
    assert tokens[12:18] not in [text[place : place + 6] for place in range(len(text))]
    rs.lm.update(model, tiny_tokenizer, TEXTS[:1], memory, missing="keep")
    assert drafts.draft(tokens[:12], 16) == tokens[12:24]
    memory.undo()
    memory.forget(np.unique(memory.ids))
    assert drafts.draft([5, 6], 16) == [6]  # of the text itself: something must be drafted
    assert drafts.draft([5], 16) == [5]


def test_two_tokens_that_no_text_has_are_drafted_by_what_is_frequent(gpt2):
    _, memory = gpt2
    assert len(rs.lm.draft(memory).draft([298, 299], 16)) == 1


def test_a_draft_is_certain_of_itself(gpt2):
    _, memory = gpt2
    ids = torch.tensor([memory.labels[:9].tolist()])
    made = rs.lm.draft(memory).generate(ids, 4)
    assert made.sequences[0].tolist() == memory.labels[:13].tolist() and len(made.scores) == 4
    for token, scores in zip(made.sequences[0, 9:], made.scores, strict=True):
        assert scores.softmax(-1).nonzero().tolist() == [[0, int(token)]] and scores.shape == (1, 300)


@pytest.mark.slow
def test_sampled_text_has_the_same_distribution(gpt2, tiny_tokenizer):
    model, memory = gpt2
    ids, drafts = ids_of(tiny_tokenizer, PROMPTS[0]), rs.lm.draft(memory)
    options = {"max_new_tokens": 2, "do_sample": True, "top_k": 3, "temperature": 2.0, "eos_token_id": None}
    tries = 100

    def drawn(**more):
        torch.manual_seed(0)
        made = [model.generate(ids, pad_token_id=1, **options, **more)[0, -2:].tolist() for _ in range(tries)]
        return {pair: made.count(list(pair)) / tries for pair in {tuple(one) for one in made}}

    with rs.attach(model, rs.KNNLM(memory, k=8, lmbda=0.6, sigma=50.0)):
        plain, drafted = drawn(), drawn(assistant_model=drafts)
    assert len(plain) > 4
    apart = sum(abs(plain.get(pair, 0) - drafted.get(pair, 0)) for pair in {*plain, *drafted}) / 2
    assert apart < 0.3  # two samples of one distribution over nine pairs are 0.13 apart, and rarely 0.3


def test_an_encoder_decoder_is_drafted_from_its_targets(tiny_model, tiny_tokenizer):
    model = tiny_model("t5")
    pairs = [("def add(a, b):", "adds two numbers, and gives the sum of the numbers"), ("x = first", "the first name")]
    memory = rs.lm.remember(model, tiny_tokenizer, pairs, key_dtype="float32", progress=False)
    ids = torch.tensor([tiny_tokenizer(pairs[0][0])["input_ids"]])
    with rs.attach(model, rs.KNNLM(memory, k=1, lmbda=0.95, sigma=1.0)):
        plain, steps = counted(model, ids)
        drafted, fewer = counted(model, ids, assistant_model=rs.lm.draft(memory))
    assert drafted == plain and fewer < steps


def test_what_cannot_be_drafted_from_is_refused(gpt2, tiny_tokenizer):
    model, memory = gpt2
    rows = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    with pytest.raises(InputError, match="not of tokens"):
        rs.lm.draft(rows)
    for tokens in (0, 1.5):
        with pytest.raises(ParameterError, match=f"tokens={tokens}"):
            rs.lm.draft(memory, tokens=tokens)
    two = ids_of(tiny_tokenizer, PROMPTS[0]).repeat(2, 1)
    with pytest.raises(ValueError, match="batch_size = 1"):
        model.generate(two, assistant_model=rs.lm.draft(rs.KNNLM(memory)), **GREEDY)
    assert isinstance(rs.lm.draft(rs.KNNLM(memory)), Drafts)
