"""What a model sees of a text: one token before it, one after it, nothing special in it, and conversations."""

import copy

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import InputError, ParameterError

END = 0  # <|endoftext|>, bos and eos of the tiny tokenizer
TEXTS = [("a", "def add(first, second):\n    return first + second\n"), ("b", "class Counter:\n    pass\n")]
CHAT = [{"role": "user", "content": "add"}, {"role": "assistant", "content": "def add(a, b):"}]
TEMPLATE = (
    "<|endoftext|>{% for m in messages %}<pad>{{ m.role }}\n{{ m.content }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<pad>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def gpt2(tiny_model):
    return tiny_model("gpt2")


@pytest.fixture(scope="module")
def chatty(tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def rows(model, tokenizer, texts, **options):
    (batch,) = rs.encode((model, tokenizer), texts, **options).batches()
    return batch


def test_a_text_ends_with_a_row_of_its_own(gpt2, tiny_tokenizer):
    text = TEXTS[1][1]
    tokens = tiny_tokenizer(text)["input_ids"]
    whole, piece = (rows(gpt2, tiny_tokenizer, [text], end_of_text=end) for end in (None, False))
    assert whole.labels.tolist() == [*tokens, END] and piece.labels.tolist() == tokens
    assert whole.offsets.tolist() == list(range(len(tokens) + 1)) and set(whole.ids) == set(piece.ids)


def test_generation_with_the_memory_stops_where_its_texts_do(gpt2, tiny_tokenizer):
    memory = rs.lm.remember(gpt2, tiny_tokenizer, TEXTS, key_dtype="float32", index="exact")
    reader = rs.KNNLM(memory, k=1, lmbda=0.99, sigma=1.0)
    prompt = rs.lm.prompt(gpt2, tiny_tokenizer, "class Counter:", reader)
    with rs.attach(gpt2, reader):
        made = gpt2.generate(**prompt, max_new_tokens=60, do_sample=False, pad_token_id=1)[0]
    assert tiny_tokenizer.decode(made) == f"<|endoftext|>{TEXTS[1][1]}<|endoftext|>"


@pytest.mark.parametrize("text", ["def add(", "x<|endoftext|>y", CHAT[:1], CHAT])
def test_memory_explain_and_generate_see_the_same_prompt(text, gpt2, chatty):
    memory = rs.lm.remember(gpt2, chatty, TEXTS, key_dtype="float32", index="exact")
    reader = rs.KNNLM(memory, k=4, lmbda=0.5)
    why = rs.lm.explain(gpt2, chatty, text, reader)
    prompt = rs.lm.prompt(gpt2, chatty, text, reader)
    assert prompt["input_ids"][0, 0] == END and (prompt["input_ids"][0, 1] != END)
    with rs.attach(gpt2, reader), torch.no_grad():
        said = gpt2(**prompt).logits[0, -1].softmax(dim=0)
    assert why.prediction == int(said.argmax())
    np.testing.assert_allclose(why.scores, said[torch.as_tensor(why.outputs)], atol=1e-4)


def test_what_looks_like_a_special_token_in_a_text_is_text(gpt2, tiny_tokenizer):
    text = "a<|endoftext|>b"
    split = rows(gpt2, tiny_tokenizer, [text]).labels
    assert END not in split[:-1] and tiny_tokenizer.decode(split[:-1]) == text
    whole = rows(gpt2, tiny_tokenizer, [text], split_special_tokens=False).labels
    assert whole.tolist() == [*tiny_tokenizer(text)["input_ids"], END] and END in whole[:-1]


def test_a_text_that_a_template_made_is_doubtful_and_begins_once(gpt2, chatty):
    made = chatty.apply_chat_template(CHAT, tokenize=False)
    with pytest.warns(UserWarning, match="1 of 2 texts begin with what looks like a special token; split_special_to"):
        rows(gpt2, chatty, [made, "a <pad>"])
    read = rows(gpt2, chatty, [made], split_special_tokens=False)
    assert read.windows[0].tokens[:2].tolist() == chatty(made)["input_ids"][:2]


def test_conversations_are_read_by_the_template(gpt2, chatty, tiny_tokenizer):
    tokens = chatty(chatty.apply_chat_template(CHAT, tokenize=False).removesuffix("\n"))["input_ids"]
    for texts in ([CHAT], [("chat", CHAT)], [{"text": CHAT}], {"text": [CHAT]}):
        (window,) = rows(gpt2, chatty, texts).windows
        assert [*window.tokens[:1], *window.targets] == tokens  # it begins and ends with END already
    with pytest.raises(InputError, match="text 0 is one message; a conversation is a list of messages"):
        rows(gpt2, chatty, CHAT)
    with pytest.raises(InputError, match="has no chat_template"):
        rows(gpt2, tiny_tokenizer, [CHAT])
    answered = rs.lm.prompt(gpt2, chatty, CHAT[:1], rs.KNNLM(rs.lm.remember(gpt2, chatty, [CHAT], index="exact"), k=2))
    assert chatty.decode(answered["input_ids"][0]).endswith("assistant\n")


def test_like_keeps_how_texts_are_read(gpt2, tiny_tokenizer):
    pieces = rs.encode((gpt2, tiny_tokenizer), TEXTS, end_of_text=False, split_special_tokens=False)
    assert rs.encode((gpt2, tiny_tokenizer), TEXTS, like=pieces).windowing == pieces.windowing
    memory = rs.Memory(pieces, storage="none", about={"windowing": {"window": 16, "stride": 12, "prefix": 0}})
    old = rs.encode((gpt2, tiny_tokenizer), TEXTS, like=memory).windowing  # as versions before this one wrote it
    assert (old["suffix"], old["split_special_tokens"]) == (None, False)


def test_pairs_always_end(tiny_model, tiny_tokenizer):
    with pytest.raises(ParameterError, match="not for an encoder-decoder's pairs"):
        rs.encode((tiny_model("t5"), tiny_tokenizer), [("a", "b")], end_of_text=False)
