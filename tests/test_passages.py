"""Passages: the formulas of RAG by hand, against the model itself, and what is remembered, found and forgotten."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import residua as rs
from residua.errors import EncodeError, InputError, ParameterError, ShapeError, SourceMismatchError, StorageError
from residua.passages import Passages, sequence, token

TEXTS = [
    ("add.py", "def add(first, second):\n    return first + second\n"),
    ("count.py", "class Counter:\n    def count(self, name):\n        return self.seen[name] + 1\n"),
    ("loop.py", "for number in range(10):\n    print(number, number * number)\n"),
]
CONTEXT, TARGET = "def add(zero, second):\n", "    return zero + second\n"


@pytest.fixture(scope="module")
def pair(tiny_model, tiny_tokenizer):
    return tiny_model("gpt2"), tiny_tokenizer


@pytest.fixture
def passages(pair):
    return Passages.remember(*pair, TEXTS, length=16, k=3, lmbda=0.6)


def tokens_of(pair, text):
    return pair[1](text, add_special_tokens=False)["input_ids"]


def test_two_passages_and_three_tokens_by_hand():
    eta, said = np.array([0.25, 0.75]), np.array([[0.5, 0.1, 0.2], [0.4, 0.8, 0.6]])
    by_token = np.prod([0.25 * 0.5 + 0.75 * 0.4, 0.25 * 0.1 + 0.75 * 0.8, 0.25 * 0.2 + 0.75 * 0.6])
    by_sequence = 0.25 * 0.5 * 0.1 * 0.2 + 0.75 * 0.4 * 0.8 * 0.6
    assert np.exp(token(eta, np.log(said)).sum()) == pytest.approx(by_token)
    assert np.exp(sequence(eta, np.log(said)).sum()) == pytest.approx(by_sequence)
    # The second token is judged by shares that the first has changed: 0.125 and 0.3 of 0.425.
    assert np.exp(sequence(eta, np.log(said))[1]) == pytest.approx((0.125 * 0.1 + 0.3 * 0.8) / 0.425)


probabilities = st.floats(0.01, 1.0)


@given(arrays(float, (1, 5), elements=probabilities), arrays(float, (4, 1), elements=probabilities))
def test_both_are_the_same_of_one_passage_or_one_token(one_passage, one_token):
    eta = np.array([0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(sequence(np.ones(1), np.log(one_passage)), np.log(one_passage[0]), atol=1e-12)
    np.testing.assert_allclose(token(np.ones(1), np.log(one_passage)), np.log(one_passage[0]), atol=1e-12)
    np.testing.assert_allclose(sequence(eta, np.log(one_token)), token(eta, np.log(one_token)), atol=1e-12)


@given(arrays(float, (3, 4), elements=probabilities), arrays(float, 3, elements=probabilities))
def test_a_passage_without_a_share_says_nothing(said, shares):
    eta = np.append(shares / shares.sum(), 0.0)
    more = np.vstack([np.log(said), np.full(4, -3.0)])
    for rule in (token, sequence):
        np.testing.assert_allclose(rule(eta, more), rule(eta[:3], np.log(said)), atol=1e-12)


@pytest.mark.parametrize("lmbda", [0.6, 1.0])
def test_a_score_is_what_the_model_says_after_each_passage(pair, lmbda):
    model, tokenizer = pair
    passages = Passages.remember(*pair, TEXTS, length=16, k=3, lmbda=lmbda, sigma=40.0)
    scored = passages.score(CONTEXT, TARGET)
    context, target = tokens_of(pair, CONTEXT), tokens_of(pair, TARGET)
    products, each = [], []
    for passage in [*scored.found.texts, ""]:
        before = [tokenizer.bos_token_id, *tokens_of(pair, passage), *context]
        with torch.no_grad():
            logits = model(torch.tensor([before + target])).logits[0, len(before) - 1 : -1]
        each.append(logits.double().softmax(1)[torch.arange(len(target)), target].numpy())
        products.append(each[-1].prod())
    squared = scored.found.distances.astype(float) ** 2
    eta = np.exp(-squared / 40) / np.exp(-squared / 40).sum()
    shares = np.append(lmbda * eta, 1 - lmbda)
    np.testing.assert_allclose(scored.token, np.log(shares @ np.stack(each)), atol=1e-4)
    assert scored.sequence.sum() == pytest.approx(np.log(shares @ np.array(products)), abs=1e-3)
    np.testing.assert_allclose(np.exp(scored.alone), each[-1], rtol=1e-3)
    np.testing.assert_allclose(np.exp(scored.each), each[:-1], rtol=1e-3)
    assert scored.found.shares.sum() == pytest.approx(1)


def test_a_passage_is_found_by_what_it_says_and_a_key_is_the_mean_of_its_states(pair, passages):
    memory = passages.memory
    row = memory.column("tokens")[4].numpy()
    with torch.no_grad():
        states = pair[0].transformer(torch.tensor([[0, *row[row >= 0]]])).last_hidden_state[0]
    np.testing.assert_allclose(memory.keys[4], states.mean(0).numpy(), atol=1e-4)
    found = passages.find(row[row >= 0])
    assert found.rows[0] == 4 and found.distances[0] < 1e-3 and len(found) == 3
    assert found.texts[0] == pair[1].decode(row[row >= 0])


def test_a_long_context_is_known_by_its_end(pair, passages):
    row = passages.memory.column("tokens")[4].numpy()
    before = np.array(tokens_of(pair, TEXTS[2][1]) * 2)
    found = passages.find(np.append(before, row))
    assert found.rows[0] == 4 and found.distances[0] < 1e-3


def test_every_token_is_in_a_passage_and_half_of_them_in_two(pair, passages):
    rows, begin, ids = (passages.memory.column(name)[:] for name in ("tokens", "begin", "id"))
    names = passages.memory.names
    for name, text in TEXTS:
        whole, covered = np.array(tokens_of(pair, text)), set()
        for row, start, id in zip(rows.numpy(), begin.tolist(), ids.tolist()):
            if names[id] == name:
                held = row[row >= 0]
                np.testing.assert_array_equal(held, whole[start : start + len(held)])
                assert start % 8 == 0
                covered |= set(range(start, start + len(held)))
        assert covered == set(range(len(whole)))


def test_what_is_forgotten_is_in_no_score(pair, passages):
    id = next(id for id, name in passages.memory.names.items() if name == "add.py")
    before = passages.score(CONTEXT, TARGET)
    assert "add.py" in before.found.names
    left_out = passages.score(CONTEXT, TARGET, exclude=[id])
    row = int(before.found.rows[before.found.names.index("add.py")])
    passages.memory.forget(id)
    with pytest.raises(InputError, match="not all remembered"):
        passages.read([row], [0.0])
    after, never = passages.score(CONTEXT, TARGET), Passages.remember(*pair, TEXTS[1:], length=16, k=3, lmbda=0.6)
    assert "add.py" not in after.found.names
    np.testing.assert_array_equal(left_out.found.rows, after.found.rows)
    never.sigma = passages.sigma = 1e9  # the typical distance is the memory's own
    fresh = never.score(CONTEXT, TARGET)
    assert fresh.found.texts == after.found.texts
    np.testing.assert_allclose(passages.score(CONTEXT, TARGET).token, fresh.token, atol=1e-6)


@pytest.mark.parametrize("change", ["lmbda", "k", "forgotten"])
def test_without_passages_it_is_the_model(passages, change):
    if change == "forgotten":
        passages.memory.forget(np.unique(passages.memory.ids))
    else:
        setattr(passages, change, 0)
    scored = passages.score(CONTEXT, TARGET)
    np.testing.assert_allclose(scored.token, scored.alone, atol=1e-12)
    np.testing.assert_allclose(scored.sequence, scored.alone, atol=1e-9)


def test_questions_find_answers(pair):
    rows = [("limit", "The limit is 42.\n"), ("start", "It starts in spring.\n"), ("name", "He is called Ada.\n")]
    by = ["What is the limit of it?", "When does it start?", "How is he called?"]
    memory = Passages.remember(*pair, rows, by=by, k=1, lmbda=0.9)
    assert memory.find("What is the limit of that?").names == ["limit"]
    assert memory.find(by[2]).distances[0] < 1e-3
    ids = memory.add([("end", "In May.\n")], by=["When does it end, and where?"])
    assert memory.find("When does it end, and where").names == ["end"] and len(memory.memory) == 4
    assert sorted(memory.memory.names.values()) == ["end", "limit", "name", "start"]
    memory.memory.forget(ids)
    assert "end" not in memory.memory.names.values()
    assert "end" not in memory.find("When does it end, and where?").names
    with pytest.raises(InputError, match="found by texts of their own"):
        memory.add([("x", "x")])
    with pytest.raises(InputError, match="1 texts for 2 passages"):
        memory.add(["x", "y"], by=["z"])
    with pytest.raises(InputError, match="tokens, and this memory's passages have"):
        memory.add(["x " * 60], by=["z"])
    for by in ([""], [3]):
        with pytest.raises(InputError, match="empty, or no str"):
            memory.add(["x"], by=by)
    memory.add([("colour", "Red.\n")], by="Which colour is it?")
    assert memory.find("Which colour is it?").names == ["colour"]


@pytest.mark.slow
def test_a_question_in_other_words_makes_its_answer_likelier():
    transformers = pytest.importorskip("transformers")
    folder = Path(__file__).resolve().parents[1] / "examples" / "models" / "code-gpt2"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    known = {
        "# Split arrays into random train and test subsets.\n": "def split_rows(*arrays, test_share=0.25, seed=0):\n",
        "# Scale each feature to a given range.\n": "class RangeScaler(Transformer):\n",
        "# Fetch a data set by name or number.\n": "def fetch_table(name, version='active'):\n",
    }
    asked = [
        "# Splits data randomly into subsets for train and test.\n",
        "# Scales features to a range that is given.\n",
        "# Fetch data by its name.\n",
    ]
    rows = [(answer, question + answer) for question, answer in known.items()]
    passages = Passages.remember(model, tokenizer, rows, by=list(known), k=1, lmbda=0.8, window=256)
    for at, (words, answer) in enumerate(zip(asked, known.values())):
        scored = passages.score(words, answer)
        assert scored.found.names == [answer]
        other = passages.score(words, answer, found=passages.read([(at + 1) % 3], [0.0]))
        assert scored.token.sum() > max(scored.alone.sum(), other.token.sum()) + 10


def test_the_same_answer_to_two_questions_is_two_rows(pair):
    memory = Passages.remember(*pair, [("a", "Yes."), ("b", "Yes.")], by=["Is it red?", "Was he there?"], k=1)
    assert len(np.unique(memory.memory.ids)) == 2
    assert memory.find("Was he there?").names == ["b"]


def test_another_memory_of_tokens_answers_where_no_passage_is_read(pair, passages):
    knn = rs.KNNLM(rs.lm.remember(*pair, TEXTS, window=64, progress=False), k=8, lmbda=0.5)
    base = passages.score(CONTEXT, TARGET)
    both = Passages(*pair, passages.memory, k=3, lmbda=0.6, reader=knn)
    scored = both.score(CONTEXT, TARGET)
    np.testing.assert_allclose(scored.each, base.each, atol=1e-5)
    before, target = [0, *tokens_of(pair, CONTEXT)], tokens_of(pair, TARGET)
    with rs.attach(pair[0], knn), torch.no_grad():
        logits = pair[0](torch.tensor([before + target])).logits[0, len(before) - 1 :]
    wanted = logits.double().log_softmax(1)
    np.testing.assert_allclose(scored.alone, wanted[torch.arange(len(target)), target].numpy(), atol=1e-3)
    assert scored.alone.sum() > base.alone.sum() + 1
    np.testing.assert_allclose(
        np.exp(scored.token), 0.6 * (scored.found.shares @ np.exp(scored.each)) + 0.4 * np.exp(scored.alone)
    )
    alone = Passages(*pair, passages.memory, lmbda=0, reader=knn.with_params(k=1, lmbda=1))
    assert alone.generate(TEXTS[0][1][:40], 60) == TEXTS[0][1][40:]  # to the end of the text, and not on


def test_greedy_tokens_are_the_likeliest_of_the_mixture(pair):
    passages = Passages.remember(*pair, TEXTS, length=16, k=3, lmbda=0.6)
    context, made = tokens_of(pair, CONTEXT), []
    found = passages.find(CONTEXT)
    shares = np.append(0.6 * found.shares, 0.4)
    for _ in range(4):
        said = 0
        for share, passage in zip(shares, [*found.tokens, []]):
            with torch.no_grad():
                logits = pair[0](torch.tensor([[0, *passage, *context, *made]])).logits[0, -1]
            said = said + share * logits.double().softmax(0).numpy()
        made.append(int(said.argmax()))
    expected = made[: made.index(0)] if 0 in made else made
    assert passages.generate(CONTEXT, 4) == pair[1].decode(expected)
    assert passages.generate(CONTEXT, 0) == ""


def test_a_saved_memory_answers_the_same(pair, passages, tmp_path):
    passages.memory.save(tmp_path / "mem")
    again = Passages(*pair, rs.Memory.load(tmp_path / "mem"), k=3, lmbda=0.6)
    np.testing.assert_array_equal(again.score(CONTEXT, TARGET).token, passages.score(CONTEXT, TARGET).token)


def test_the_end_of_a_long_context_is_read(pair, passages):
    long = CONTEXT * 30
    scored, tokens = passages.score(long, TARGET), tokens_of(pair, long)
    target = tokens_of(pair, TARGET)
    with torch.no_grad():
        room = 128 - 1 - len(target) + 1
        logits = pair[0](torch.tensor([[0, *tokens[-room:], *target[:-1]]])).logits[0, -len(target) :]
    wanted = logits.double().log_softmax(1)[torch.arange(len(target)), target].numpy()
    np.testing.assert_allclose(scored.alone, wanted, atol=1e-3)


def test_keys_of_a_callers_encoder(pair):
    def letters(texts):
        return np.array([[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], float)

    passages = Passages.remember(*pair, TEXTS, length=16, encoder=letters, k=1)
    assert passages.find("print(number, number").names == ["loop.py"]
    with pytest.raises(ParameterError, match="encoder= of one's own"):
        Passages(*pair, passages.memory)
    with pytest.raises(EncodeError, match=r"gave shape \(2,\)"):
        passages.encoder = lambda texts: np.zeros(2)
        passages.find("x")


def test_no_context_and_no_passage(pair, passages):
    scored = passages.score("", TARGET)
    assert len(scored.found) == 0
    target = tokens_of(pair, TARGET)
    with torch.no_grad():
        logits = pair[0](torch.tensor([[0, *target[:-1]]])).logits[0]
    wanted = logits.double().log_softmax(1)[torch.arange(len(target)), target].numpy()
    np.testing.assert_allclose(scored.token, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"k": -1}, ParameterError, "k=-1"),
        ({"k": True}, ParameterError, "k=True"),
        ({"lmbda": 1.5}, ParameterError, "lmbda=1.5"),
        ({"lmbda": float("nan")}, ParameterError, "lmbda=nan"),
        ({"sigma": 0}, ParameterError, "sigma=0"),
        ({"window": 1}, ParameterError, "window=1"),
        ({"window": 500}, ParameterError, "window=500"),
        ({"encoder": len}, ParameterError, "by the model's own states"),
        ({"k": 2.0}, ParameterError, "k=2.0"),
        ({"lmbda": "half"}, ParameterError, "lmbda='half'"),
        ({"sigma": float("nan")}, ParameterError, "sigma=nan"),
        ({"window": "64"}, ParameterError, "window='64'"),
        ({"reader": "knnlm"}, ParameterError, "reader='knnlm'"),
    ],
)
def test_settings_that_make_no_sense(pair, passages, options, error, words):
    with pytest.raises(error, match=words):
        Passages(*pair, passages.memory, **options)


def test_what_is_no_memory_of_passages(pair, passages, tiny_model):
    tokens = rs.lm.remember(*pair, TEXTS, window=64, progress=False)
    with pytest.raises(StorageError, match="no remembered passages"):
        Passages(*pair, tokens)
    with pytest.raises(StorageError, match="no remembered passages"):
        Passages(*pair, "mem/")
    with pytest.raises(ParameterError, match="each token by itself"):
        Passages(*pair, passages.memory, reader=rs.ContinuousCache(rs.KNNLM(tokens)))
    with pytest.raises(SourceMismatchError):
        Passages(tiny_model("gpt2", n_layer=1), pair[1], passages.memory)
    with pytest.raises(EncodeError, match="causal language model"):
        Passages.remember(tiny_model("t5"), pair[1], TEXTS)


@pytest.mark.parametrize(
    "cut", [{"length": 0}, {"length": 4, "stride": 5}, {"length": 4, "stride": 0}, {"length": "8"}, {"length": 8.5}]
)
def test_cuts_that_make_no_sense(pair, cut):
    with pytest.raises(ParameterError, match=r"stride=|length="):
        Passages.remember(*pair, TEXTS, **cut)


def test_texts_that_do_not_fit(passages):
    with pytest.raises(InputError, match="no token"):
        passages.score(CONTEXT, "")
    with pytest.raises(InputError, match="leave no room"):
        passages.score(CONTEXT, "word " * 120)
    with pytest.raises(InputError, match="float64"):
        passages.score(np.ones(3), TARGET)
    with pytest.raises((InputError, ShapeError), match="shape"):
        passages.score(np.ones((2, 2), int), TARGET)


def test_what_it_shows(passages):
    assert repr(passages) == f"Passages({len(passages.memory)} passages, k=3, lmbda=0.6, window=128)"
