"""Texts that go on over HTTP: as ``generate`` writes them, together or alone."""

import pytest
import torch

pytest.importorskip("prometheus_client", reason="the server: pip install residua[serve]")
pytest.importorskip("transformers")

import residua as rs
from residua.serving.completions import Prompt, Writer
from residua.serving.limits import Limits
from residua.serving.tenants import Tenant
from residua.serving.tokens import OPERATOR

STORY = {
    "keeper": "The lighthouse keeper counts ships, one by one, until the morning comes.",
    "night": "At night the lamp turns, and the sea answers with all of its voices.",
}


@pytest.fixture(scope="module")
def pair(tiny_model, tiny_tokenizer):
    return tiny_model("gpt2"), tiny_tokenizer


@pytest.fixture
def stories(tmp_path, pair):
    """Two tenants' memories, of one story each."""
    for name, text in STORY.items():
        memory = rs.lm.remember(*pair, [(f"{name}.txt", text)], index="exact", progress=False)
        rs.KNNLM(memory, k=1, lmbda=0.99, sigma=1.0).save(tmp_path / name)
    return [tmp_path / name for name in STORY]


def complete(asked, prompt, model, **about):
    sent = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 20, **about}
    headers = {"authorization": f"Bearer {TOKENS[model]}"} if model in TOKENS else about.pop("headers", {})
    sent.pop("headers", None)
    return asked.post("/v1/completions", json=sent, headers=headers)


TOKENS = {"keeper": "the keeper's token".replace(" ", "-"), "night": "the night's token".replace(" ", "-")}
TOKENS[OPERATOR] = "the-operators-own-token"


def alone(pair, text, reader=None, most=20):
    """What ``generate`` makes of a prompt by itself."""
    model, tokenizer = pair
    like = reader
    inputs = rs.lm.prompt(model, tokenizer, text, like)
    made = model.generate(**inputs, max_new_tokens=most, do_sample=False, pad_token_id=1)
    return tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_a_text_goes_on_as_generate_writes_it(client, stories, pair):
    reader = rs.load(stories[0])
    base = alone(pair, "The light", reader)
    with rs.attach(pair[0], reader):
        expected = alone(pair, "The light", reader)
    asked = client(stories[0], model=pair, name="gpt2")
    told = complete(asked, "The light", "keeper", headers={}).json()
    (choice,) = told["choices"]
    assert choice["text"] == expected and STORY["keeper"].startswith("The light" + choice["text"][:10])
    assert choice["finish_reason"] == "length" and told["usage"]["completion_tokens"] == 20
    for about in ({"model": "gpt2"}, {"model": "keeper", "memory": None}):
        sent = {"prompt": "The light", "temperature": 0, "max_tokens": 20, **about}
        assert asked.post("/v1/completions", json=sent).json()["choices"][0]["text"] == base
    sent = {"model": "gpt2", "memory": "keeper", "prompt": "The light", "temperature": 0, "max_tokens": 20}
    assert asked.post("/v1/completions", json=sent).json()["choices"][0]["text"] == expected
    assert [one["id"] for one in asked.get("/v1/models").json()["data"]] == ["keeper", "gpt2"]


def test_prompts_that_come_together_are_written_as_if_alone(client, stories, pair):
    reader = rs.load(stories[0])
    prompts = ["The light", "one by one, until", "T"]
    with rs.attach(pair[0], reader):
        expected = [alone(pair, one, reader) for one in prompts]
    asked = client(stories[0], model=pair)
    told = complete(asked, prompts, "keeper").json()["choices"]
    assert [one["text"] for one in told] == expected and [one["index"] for one in told] == [0, 1, 2]


def test_a_long_prompt_takes_no_room_from_one_that_comes_with_it(stories, pair):
    writer = Writer(*pair, [Tenant("keeper", rs.load(stories[0], live=True), stories[0])], 60.0)
    try:
        limit = writer.limit
        assert limit is not None and limit < 1000
        long = Prompt("The sea " * (limit // 16), None, max_tokens=3, temperature=0.0)
        short = Prompt("T", None, max_tokens=limit - 8, temperature=0.0)
        assert len(writer.tokens(long)) > 10
        together = writer.write([long, short, long])
        apart = [writer.write([one])[0] for one in (long, short, long)]
    finally:
        writer.close()
    assert together == apart and together[1].completion_tokens == limit - 8


def test_sampling_goes_by_its_seed(client, stories, pair):
    asked = client(stories[0], model=pair)
    how = {"temperature": 1.5, "max_tokens": 12, "seed": 3, "memory": None}
    first, again = (complete(asked, "The", "keeper", **how).json()["choices"][0]["text"] for _ in range(2))
    other = complete(asked, "The", "keeper", **{**how, "seed": 4}).json()["choices"][0]["text"]
    assert first == again != other


def test_a_text_ends_where_it_is_told_to(client, stories, pair):
    asked = client(stories[0], model=pair)
    told = complete(asked, "The light", "keeper", stop=[" keeper", "zzz"], max_tokens=60).json()
    assert told["choices"][0] == {"index": 0, "text": "house", "finish_reason": "stop", "logprobs": None}
    assert told["usage"]["completion_tokens"] < 60
    whole = complete(asked, STORY["keeper"][:-8], "keeper", max_tokens=50).json()["choices"][0]
    assert whole["text"] == "g comes."[-8:] and whole["finish_reason"] == "stop"  # as the document ends


def test_time_ends_a_text(client, stories, pair):
    asked = client(stories[0], model=pair, limits=Limits(tokens=100))
    asked.service.writer.seconds = 0.0
    told = complete(asked, "The light", "keeper", max_tokens=100).json()
    assert 1 <= told["usage"]["completion_tokens"] < 100


def test_each_tenant_writes_with_its_own_memory(client, stories, pair):
    asked = client(*stories, model=pair, tokens=TOKENS)
    for name, text in STORY.items():
        written = complete(asked, text[:9], name).json()["choices"][0]["text"]
        assert text.startswith(text[:9] + written[:10])
    headers = {"authorization": f"Bearer {TOKENS['night']}"}
    for about in ({"model": "keeper"}, {"model": "night", "memory": "keeper"}):
        refused = asked.post("/v1/completions", json={"prompt": "The", **about}, headers=headers)
        nobody = {key: "nobody" if value == "keeper" else value for key, value in about.items()}
        unknown = asked.post("/v1/completions", json={"prompt": "The", **nobody}, headers=headers)
        assert refused.status_code == unknown.status_code == 404
        assert refused.text.replace("keeper", "nobody") == unknown.text


@pytest.mark.parametrize(
    ("about", "status"),
    [
        ({"prompt": ""}, 400),
        ({"prompt": []}, 400),
        ({"max_tokens": 0}, 400),
        ({"max_tokens": 5000}, 400),
        ({"stream": True}, 400),
        ({"n": 2}, 400),
        ({"stop": ["a"] * 5}, 400),
        ({"temperature": -1}, 400),
        ({"prompt": "a" * 500}, 422),
        ({"max_tokens": 128}, 422),
    ],
)
def test_what_cannot_be_written_is_refused(client, stories, pair, about, status):
    asked = client(stories[0], model=pair)
    refused = complete(asked, **{"prompt": "The", "model": "keeper", **about})
    assert refused.status_code == status, refused.text


def test_documents_are_added_followed_and_forgotten(client, stories, pair):
    asked = client(stories[0], model=pair)
    document = {"name": "bird.txt", "text": "A gull knows the wind."}
    added = asked.post("/add", json={"documents": [document]}).json()
    assert added["added"] > 5 and added["forgotten"] == 0
    assert asked.post("/add", json={"documents": [document]}).json()["unchanged"] == 1
    changed = {"documents": [{**document, "text": "A gull knows no wind."}]}
    assert asked.post("/add", json=changed).status_code == 422
    assert asked.post("/update", json=changed).json()["forgotten"] == added["added"]
    assert complete(asked, "A gull kn", "keeper").json()["choices"][0]["text"].startswith("ows no wind.")
    there = rs.Memory.load(stories[0])
    assert sorted(there.names.by_name()) == ["bird.txt", "keeper.txt"]
    assert asked.post("/forget", json={"documents": ["bird.txt", "nothing.txt"]}).status_code == 404
    forgotten = asked.post("/forget", json={"documents": ["bird.txt"]}).json()
    assert forgotten["rows"] == len(rs.Memory.load(stories[0])) == len(there) - forgotten["forgotten"]


def test_the_next_token_is_predicted_and_explained(client, stories, pair):
    reader, texts = rs.load(stories[0]), ["The light", "until the morning"]
    expected = [rs.lm.explain(*pair, text, reader) for text in texts]
    asked = client(stories[0], model=pair)
    told = asked.post("/predict", json={"rows": [{"text": text} for text in texts]}).json()["predictions"]
    for why, one in zip(expected, told, strict=True):
        assert one["prediction"] == why.prediction and one["base_prediction"] == why.base_prediction
        assert one["top"][0]["name"] == pair[1].decode([why.prediction])
    near = asked.post("/explain", json={"row": {"text": "The light"}}).json()["neighbours"][0]
    assert near["name"] == "keeper.txt" and near["text"].startswith("The light")


def test_the_model_is_given_back(client, stories, pair):
    torch.manual_seed(0)
    asked = client(stories[0], model=pair)
    assert pair[0]._forward_hooks
    asked.__exit__(None, None, None)
    assert not pair[0]._forward_hooks
