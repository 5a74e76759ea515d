"""Documents are dealt out: none is in two sets, and their order has nothing to do with their names."""

import json
import platform

import pytest

from experiments.knnlm.texts import Text, cut, domain_texts, files, own_texts, pairs
from residua.errors import InputError, ParameterError

SIZES = {"glob": "**/*.py", "memory_tokens": 400, "eval_tokens": 200}


@pytest.fixture
def folder(tmp_path):
    for number in range(40):
        path = tmp_path / "texts" / f"{'ab'[number % 2]}" / f"{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"value_{number} = {number}\n" * 10)
    (tmp_path / "texts" / "notes.txt").write_text("not a program")
    return tmp_path / "texts"


def test_three_sets_have_no_document_in_common(folder, tiny_tokenizer):
    texts = domain_texts(tiny_tokenizer, str(folder), **SIZES)
    names = [{text.name for text in found} for found in (texts.memory, texts.tune, texts.score)]
    assert all(len(found) >= 2 for found in names)
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])
    for found, tokens in ((texts.memory, 400), (texts.tune, 100), (texts.score, 200)):
        assert sum(text.tokens for text in found) == tokens
        counted = sum(len(tiny_tokenizer(text.text)["input_ids"]) for text in found)
        assert counted == pytest.approx(tokens, rel=0.1)


def test_a_tenth_of_the_scored_tokens_at_most_are_of_one_document(folder, tiny_tokenizer):
    (folder / "long.py").write_text("x = 1\n" * 5000)
    texts = domain_texts(tiny_tokenizer, str(folder), **SIZES)
    assert max(text.tokens for text in texts.score) <= 20
    assert len(texts.score) >= 10


def test_a_text_that_occurs_twice_is_taken_once(folder, tiny_tokenizer):
    for number in range(40):
        (folder / f"copy{number}.py").write_text(f"value_{number} = {number}\n" * 10)
    every = {"glob": "**/*.py", "memory_tokens": 10**9, "eval_tokens": 200}
    texts = domain_texts(tiny_tokenizer, str(folder), **every)
    assert len(texts.memory) + len(texts.tune) + len(texts.score) == 40


def test_three_folders(folder, tmp_path, tiny_tokenizer):
    for name in ("validation", "test"):
        (tmp_path / name).mkdir()
        for number in range(12):
            (tmp_path / name / f"{number}.py").write_text(f"{name} = {number}\n" * 9)
    given = [str(path) for path in (folder, tmp_path / "validation", tmp_path / "test")]
    texts = own_texts(tiny_tokenizer, "nowhere", *given, **SIZES)
    assert all("validation" in text.text for text in texts.tune)
    assert all("test" in text.text for text in texts.score)
    assert all("value" in text.text for text in texts.memory)


def test_an_installed_package_can_be_read():
    assert "core/prediction.py" in dict(files("package:residua", "**/*.py"))


def test_the_split_beside_a_model_needs_its_python(tmp_path, tiny_tokenizer):
    with pytest.raises(ParameterError, match="--texts"):
        own_texts(tiny_tokenizer, str(tmp_path), "", "", "", **SIZES)
    (tmp_path / "split.json").write_text(json.dumps({"python": "2.7.1", "train": [], "validation": []}))
    with pytest.raises(ParameterError, match=r"Python 2\.7\.1"):
        own_texts(tiny_tokenizer, str(tmp_path), "", "", "", **SIZES)


def test_the_split_halves_its_validation_files(tmp_path, tiny_tokenizer):
    names = ["abc.py", "ast.py", "bdb.py", "cmd.py", "code.py", "copy.py", "csv.py", "dis.py"]
    split = {"python": platform.python_version(), "train": names[:3], "validation": names[3:]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    texts = own_texts(tiny_tokenizer, str(tmp_path), "", "", "", glob="*", memory_tokens=10**6, eval_tokens=10**6)
    assert {text.name for text in texts.memory} == set(names[:3])
    assert {text.name for text in [*texts.tune, *texts.score]} == set(names[3:])
    assert abs(len(texts.tune) - len(texts.score)) == 1


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (("texts", "", "test"), ParameterError, "all three"),
        (("", "validation", "test"), ParameterError, "all three"),
        (("nowhere", "", ""), InputError, "no file"),
        (("package:no_such_package_at_all", "", ""), ParameterError, "installed"),
    ],
)
def test_what_does_not_fit_is_refused(given, error, words, tiny_tokenizer):
    with pytest.raises(error, match=words):
        own_texts(tiny_tokenizer, "nowhere", *given, **SIZES)


def test_too_little_text_is_refused(folder, tiny_tokenizer):
    with pytest.raises(InputError, match="expected at least two"):
        domain_texts(tiny_tokenizer, str(folder), glob="**/*.py", memory_tokens=10, eval_tokens=10**6)


def test_cutting():
    text = Text("a", "0123456789", 5)
    assert cut(text, 2) == Text("a", "0123", 2)
    assert cut(text, 5) is cut(text, 50) is text
    assert pairs([text, text], 7) == [("a", "0123456789"), ("a", "0123")]
