import copy
import logging

import numpy as np
import pytest

from residua.encoding.text import bos_token, document_id, documents, tokenizer_hash
from residua.errors import InputError


def read(texts, tokenizer):
    return [(d.name, tokenizer.decode(d.tokens)) for d in documents(texts, tokenizer)]


def test_a_document_has_a_name_and_tokens(tiny_tokenizer):
    (found,) = documents([("a", "x")], tiny_tokenizer)
    assert found.name == "a"
    assert found.tokens.dtype == np.int64 and found.tokens.tolist() == tiny_tokenizer("x")["input_ids"]


def test_empty_texts_are_left_out_and_counted(tiny_tokenizer):
    with pytest.warns(UserWarning, match="2 of 3 texts are empty"):
        assert read(["", "a", ""], tiny_tokenizer) == [("1", "a")]
    with pytest.raises(InputError, match="2 given, all of them empty"):
        read(["", ""], tiny_tokenizer)
    with pytest.raises(InputError, match="there are no texts"):
        read([], tiny_tokenizer)


def test_files_that_are_no_text_are_counted_once(tiny_tokenizer, tmp_path):
    for name, data in {"a.pyc": b"\0\1", "b/c.so": b"\x7fELF\0", "d.txt": b"text"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.warns(UserWarning, match=r"2 of 3 files were left out: .*\(a\.pyc, b/c\.so\)") as said:
        assert read(tmp_path, tiny_tokenizer) == [("d.txt", "text")]
    assert len(said) == 1


def test_many_texts_come_in_order_and_lazily(tiny_tokenizer):
    seen = []

    def endless():
        while True:
            seen.append(len(seen))
            yield f"text {seen[-1]}"

    found = documents(endless(), tiny_tokenizer)
    assert [next(found).name for _ in range(1500)] == [str(number) for number in range(1500)]
    assert len(seen) < 3000


def test_a_long_text_is_no_news(tiny_tokenizer, caplog):
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        assert len(next(documents(["x y " * 500], tiny_tokenizer)).tokens) > tiny_tokenizer.model_max_length
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.text == ""


def test_a_tokenizer_is_known_by_what_it_does(tiny_tokenizer, tmp_path):
    known = tokenizer_hash(tiny_tokenizer)
    assert len(known) == 16 and int(known, 16) >= 0
    used = copy.deepcopy(tiny_tokenizer)
    used(["a", "b c d"], padding=True, truncation=True, max_length=3)
    assert tokenizer_hash(used) == known
    from transformers import AutoTokenizer

    used.save_pretrained(tmp_path)
    assert tokenizer_hash(AutoTokenizer.from_pretrained(tmp_path)) == known
    used.add_tokens(["residual"])
    assert tokenizer_hash(used) != known


def test_a_slow_tokenizer_is_known_by_its_vocabulary():
    class Slow:
        def __init__(self, vocabulary):
            self.get_vocab = lambda: vocabulary

    assert tokenizer_hash(Slow({"a": 0, "b": 1})) == tokenizer_hash(Slow({"b": 1, "a": 0}))
    assert tokenizer_hash(Slow({"a": 0, "b": 1})) != tokenizer_hash(Slow({"a": 1, "b": 0}))
    with pytest.raises(InputError, match="expected a transformers tokenizer"):
        tokenizer_hash(object())
    with pytest.raises(InputError, match="the tokenizer is a NoneType"):
        next(documents(["a"], None))


def test_the_prefix_is_bos_else_eos(tiny_tokenizer):
    class Tokens:
        bos_token_id = None
        eos_token_id = 5

    assert bos_token(tiny_tokenizer) == 0 and bos_token(Tokens()) == 5 and bos_token(object()) is None


def test_a_document_is_known_by_its_tokens(tiny_tokenizer):
    first = list(documents([("a", "x = 1"), ("b", "y = 2"), ("c", "x = 1")], tiny_tokenizer))
    again = list(documents(["y = 2"], tiny_tokenizer))
    assert first[0].id == first[2].id != first[1].id == again[0].id
    assert all(0 <= d.id < 2**63 for d in first)
    assert document_id(np.array([1, 2]), np.array([3])) != document_id(np.array([1]), np.array([2, 3]))
