"""lm-evaluation-harness with a memory: a task's scores are those that dense float64 arithmetic gives."""

import json

import numpy as np
import pytest
import torch

import residua as rs
from residua.errors import InputError, MemoryFileError, ParameterError, SourceMismatchError

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'residua[lm-eval]'")

TEXTS = ["def add(first, second):\n    return first", "class Counter:\n    def count(self, name):\n        return name"]
# The tokenizer's bos token comes first, as in the memory's own texts; the second choice of each was remembered.
CHOICES = [
    {"question": "<|endoftext|>def add(first", "choices": ["x", ", second):"], "gold": 1},
    {"question": "<|endoftext|>class Counter:\n    def count(self", "choices": [":", ", name)"], "gold": 1},
    {"question": "<|endoftext|>class Counter:\n    def count", "choices": ["+", "(self, name)"], "gold": 1},
]
STEPS = 5

TASK = """task: tiny_{name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
  cache_dir: {cache}
test_split: test
output_type: {output_type}
target_delimiter: ''
metric_list:
  - metric: {metric}
doc_to_text: {text}
doc_to_target: {target}
{more}
"""


@pytest.fixture(autouse=True)
def no_description_of_the_machine(monkeypatch):
    """The harness adds one to its results, by commands that take longer than the scores here."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("gpt2")


@pytest.fixture(scope="module")
def memory(model, tiny_tokenizer):
    return rs.lm.remember(model, tiny_tokenizer, TEXTS, window=64, key_dtype="float32", progress=False)


@pytest.fixture(scope="module")
def reader(memory):
    return rs.KNNLM(memory, k=6, lmbda=0.8, sigma=5.0)


@pytest.fixture(scope="module")
def log_probabilities(model, memory, by_hand):
    """(t, V), after each of the tokens; without a reader, the base's."""

    def said(reader, tokens):
        ids = torch.tensor([tokens])
        return np.log(by_hand.states(model, memory, ids)[1]) if reader is None else by_hand.knn(model, reader, ids)

    return said


def likelihood(log_probabilities, reader, before, after):
    said = log_probabilities(reader, [*before, *after][:-1])[-len(after) :]
    return sum(row[token] for row, token in zip(said, after, strict=True))


def likelihoods(log_probabilities, tokenizer, reader, question, choices):
    """The log-likelihood of each choice after the question, tokenised as one text."""
    before = tokenizer(question)["input_ids"]
    whole = [tokenizer(question + choice)["input_ids"] for choice in choices]
    assert all(tokens[: len(before)] == before for tokens in whole)
    return [likelihood(log_probabilities, reader, before, tokens[len(before) :]) for tokens in whole]


def continuation(log_probabilities, tokenizer, reader, prompt):
    tokens = tokenizer(prompt)["input_ids"]
    for _ in range(STEPS):
        tokens.append(int(log_probabilities(reader, tokens)[-1].argmax()))
    return tokenizer.decode(tokens[-STEPS:], skip_special_tokens=True)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, log_probabilities, tiny_tokenizer, reader):
    """A folder with the definitions and the data of three tasks, one of each kind of question."""
    folder = tmp_path_factory.mktemp("tasks")
    prompts = ["def add(", "class Counter:\n    def"]
    data = {
        "choice": CHOICES,
        "rolling": [{"text": text + "\n    pass" * i} for i, text in enumerate(TEXTS)],
        "generate": [
            {"prompt": prompt, "answer": continuation(log_probabilities, tiny_tokenizer, reader, prompt)}
            for prompt in prompts
        ],
    }
    kinds = {
        "choice": ("multiple_choice", "acc", "'{{question}}'", "gold", "doc_to_choice: choices"),
        "rolling": ("loglikelihood_rolling", "byte_perplexity", "''", "'{{text}}'", ""),
        "generate": (
            *("generate_until", "exact_match", "'{{prompt}}'", "'{{answer}}'"),
            f"generation_kwargs: {{max_gen_toks: {STEPS}, until: ['<never>'], do_sample: false}}",
        ),
    }
    for name, (output_type, metric, text, target, more) in kinds.items():
        file = folder / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, data[name])))
        parts = {"output_type": output_type, "metric": metric, "text": text, "target": target, "more": more}
        task = TASK.format(name=name, data=file, cache=folder / "cache", **parts)
        (folder / f"{name}.yaml").write_text(task)
    return folder


@pytest.fixture
def lm(model, tiny_tokenizer, reader):
    from residua.hooks.lm_eval import ResiduaLM

    lm = ResiduaLM(model, reader, tokenizer=tiny_tokenizer)
    yield lm
    lm.handle.detach()


def test_scores_of_a_local_task_are_those_by_hand(lm, tasks, log_probabilities, tiny_tokenizer, reader):
    from residua.hooks.lm_eval import compare

    got = compare(lm, ["tiny_choice", "tiny_rolling", "tiny_generate"], include_path=tasks)
    lm.handle.detach()
    for side, how in (("base", None), ("memory", reader)):
        said = [likelihoods(log_probabilities, tiny_tokenizer, how, doc["question"], doc["choices"]) for doc in CHOICES]
        right = np.mean([np.argmax(row) == doc["gold"] for row, doc in zip(said, CHOICES, strict=True)])
        assert got["tiny_choice"]["acc"][side] == pytest.approx(right)
        texts = [TEXTS[0], TEXTS[1] + "\n    pass"]
        total = sum(likelihood(log_probabilities, how, [0], tiny_tokenizer(text)["input_ids"]) for text in texts)
        perplexity = np.exp(-total / sum(len(text.encode()) for text in texts))
        assert got["tiny_rolling"]["byte_perplexity"][side] == pytest.approx(perplexity, rel=1e-5)
    assert got["tiny_choice"]["acc"]["base"] < got["tiny_choice"]["acc"]["memory"]
    assert got["tiny_choice"]["acc"]["higher_is_better"] and got["tiny_choice"]["acc"]["memory_stderr"] > 0
    assert got["tiny_rolling"]["byte_perplexity"]["memory_stderr"] is None
    assert got["tiny_generate"]["exact_match"]["memory"] == 1.0  # the answers are what the memory would say
    assert got["tiny_generate"]["exact_match"]["base"] < 1.0


def test_rolling_likelihood_is_the_reader_s(lm, tasks, model, tiny_tokenizer, reader):
    from residua.hooks.lm_eval import compare

    got = compare(lm, ["tiny_rolling"], include_path=tasks, limit=1)["tiny_rolling"]["byte_perplexity"]
    lm.handle.detach()
    base = memory = 0.0
    text = rs.lm.encode(model, tiny_tokenizer, TEXTS[:1], window=64)
    for part, prediction in reader.predictions(text, exclude=None):
        tokens = torch.from_numpy(part.labels)
        memory += float(prediction.log_prob(tokens).sum())
        base += float(prediction.base.log_prob(tokens).sum())
    for side, total in (("base", base), ("memory", memory)):
        assert np.log(got[side]) * len(TEXTS[0].encode()) == pytest.approx(-total, rel=1e-5)


def test_batches_give_what_single_examples_do(model, tiny_tokenizer, memory, tasks):
    from residua.hooks.lm_eval import ResiduaLM, compare

    cache = rs.ContinuousCache(rs.KNNLM(memory, k=4, lmbda=0.5, sigma=5.0), window=5, theta=0.05, lmbda=0.3)
    found = []
    for size in (1, 4):
        lm = ResiduaLM(model, cache, tokenizer=tiny_tokenizer, batch_size=size)
        scores = compare(lm, ["tiny_choice", "tiny_rolling", "tiny_generate"], include_path=tasks)
        lm.handle.detach()
        found.append([scores[task][metric]["memory"] for task in scores for metric in scores[task]])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_encoder_decoders_score_targets(tiny_model, tiny_tokenizer):
    from lm_eval.api.instance import Instance

    from residua.hooks.lm_eval import ResiduaLM

    model = tiny_model("t5")
    pairs = [("def add(a, b):", "adds two numbers"), ("x = first", "the first name")]
    memory = rs.lm.remember(model, tiny_tokenizer, pairs, key_dtype="float32", progress=False)
    lm = ResiduaLM(model, rs.KNNLM(memory, k=4, lmbda=0.6, sigma=5.0), tokenizer=tiny_tokenizer, batch_size=2)
    asked = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    got = [score for score, _ in lm.loglikelihood(asked)]
    with lm.handle.disabled():
        base = [score for score, _ in lm.loglikelihood(asked)]
    for (source, target), score in zip(pairs, got, strict=True):
        labels = torch.tensor([tiny_tokenizer(target)["input_ids"]])
        with torch.no_grad():  # attached still; that this is the memory's loss is test_seq2seq's
            loss = model(input_ids=torch.tensor([tiny_tokenizer(source)["input_ids"]]), labels=labels).loss
        assert score == pytest.approx(-float(loss) * labels.shape[1], rel=1e-4)
    assert all(mine > without for mine, without in zip(got, base, strict=True))
    lm.handle.detach()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model, tiny_tokenizer, memory, reader):
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    memory.save(folder / "bare")
    reader.save(folder / "tuned")
    return folder


def test_the_harness_makes_it_by_name(saved, tasks, lm):
    import lm_eval

    from residua.hooks.lm_eval import compare

    wanted = compare(lm, ["tiny_rolling"], include_path=tasks)["tiny_rolling"]["byte_perplexity"]["memory"]
    manager = lm_eval.tasks.TaskManager(include_path=str(tasks), include_defaults=False)
    for named in ("tuned", "bare,reader=knnlm,k=6,lmbda=0.8,sigma=5.0", "tuned,k=6"):
        result = lm_eval.simple_evaluate(
            "residua",
            f"pretrained={saved / 'model'},memory={saved}/{named}",
            tasks=["tiny_rolling"],
            task_manager=manager,
            device="cpu",
        )
        assert result["results"]["tiny_rolling"]["byte_perplexity,none"] == pytest.approx(wanted, rel=1e-6)
        about = result["config"]["memory"]
        assert (about["rows"], about["reader"], about["params"]["k"]) == (len(lm.handle.reader.memory), "KNNLM", 6)


def test_parameters_change_the_saved_reader(saved, model, tiny_tokenizer):
    from residua.hooks.lm_eval import ResiduaLM

    lm = ResiduaLM(model, saved / "tuned", k=2, skip=0.9, tokenizer=tiny_tokenizer, batch_size=3)
    lm.handle.detach()
    assert (lm.handle.reader.k, lm.handle.reader.skip, lm.handle.reader.lmbda, lm.batch_size) == (2, 0.9, 0.8, 3)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"memory": "bare"}, MemoryFileError, "holds no tuned reader; save one there, or name one: reader='knnlm'"),
        ({"memory": "nowhere"}, MemoryFileError, "nowhere"),
        ({"memory": "bare", "reader": "nonesuch"}, ParameterError, "expected one of"),
        ({"memory": "bare", "reader": "knnlm", "k": 1000}, ParameterError, "choose k <="),
    ],
)
def test_what_cannot_be_opened(saved, model, tiny_tokenizer, options, error, said):
    from residua.hooks.lm_eval import ResiduaLM

    with pytest.raises(error, match=said):
        ResiduaLM(model, **{**options, "memory": saved / options["memory"]}, tokenizer=tiny_tokenizer)
    assert not model._forward_hooks


def test_a_reader_is_not_named_twice(model, reader, tiny_tokenizer):
    from residua.hooks.lm_eval import ResiduaLM

    with pytest.raises(ParameterError, match="give one of them"):
        ResiduaLM(model, reader, "knnlm", tokenizer=tiny_tokenizer)


def test_another_model_or_tokenizer_is_refused(saved, model, tiny_model, tiny_tokenizer):
    from transformers import AutoTokenizer

    from residua.hooks.lm_eval import ResiduaLM

    with pytest.raises(SourceMismatchError):
        ResiduaLM(tiny_model("llama"), saved / "tuned", tokenizer=tiny_tokenizer)
    other = AutoTokenizer.from_pretrained(saved / "model")
    other.add_tokens(["residua"])
    with pytest.raises(SourceMismatchError, match="tokenizer"):
        ResiduaLM(model, saved / "tuned", tokenizer=other)
    assert not model._forward_hooks


def test_a_memory_that_is_not_of_tokens_is_refused(model, tiny_tokenizer):
    from residua.hooks.lm_eval import ResiduaLM

    memory = rs.Memory(rs.Encoded(np.eye(3), np.zeros((3, 2)), [0, 1, 1]))
    with pytest.raises(InputError, match="not of tokens"):
        ResiduaLM(model, rs.KNNLM(memory, k=1), tokenizer=tiny_tokenizer)


def test_unknown_tasks_and_folders_are_refused(lm, tasks, monkeypatch):
    from residua.hooks import lm_eval as adapter

    # The harness's own index is large and slow to read; the folder alone stands for it.
    def local(include_path, include_defaults=True):
        return real(include_path=include_path or str(tasks), include_defaults=False)

    real = adapter.TaskManager
    monkeypatch.setattr(adapter, "TaskManager", local)
    with pytest.raises(InputError, match="no task 'tiny_choise'; the nearest names are tiny_choice"):
        adapter.compare(lm, ["tiny_choise"], include_path=tasks)
    with pytest.raises(InputError, match="pass include_path="):
        adapter.compare(lm, ["zzz"])
    with pytest.raises(InputError, match="is no folder"):
        adapter.compare(lm, ["tiny_choice"], include_path=tasks / "choice.yaml")
    (tasks / "lost.yaml").write_text(
        (tasks / "choice.yaml").read_text().replace("choice.jsonl", "lost.jsonl").replace("tiny_choice", "lost")
    )
    with pytest.raises(InputError, match=r"data cannot be read.*lost\.jsonl"):
        adapter.compare(lm, ["lost"], include_path=tasks)
