import copy
import logging
from pathlib import Path

import numpy as np
import pytest

from residua.encoding.text import bos_token, document_id, documents, tokenizer_hash
from residua.errors import InputError, ParameterError


def read(texts, tokenizer, **options):
    return [(d.name, tokenizer.decode(d.tokens)) for d in documents(texts, tokenizer, **options)]


def test_texts_of_every_kind(tiny_tokenizer, tmp_path):
    (tmp_path / "a.txt").write_bytes("é\r\n".encode())
    texts = ["one", ("named", "two"), {"text": "three", "label": 1}, tmp_path / "a.txt"]
    assert read(iter(texts), tiny_tokenizer) == [
        ("0", "one"),
        ("named", "two"),
        ("2", "three"),
        (str(tmp_path / "a.txt"), "é\r\n"),
    ]
    (found,) = documents(["x"], tiny_tokenizer)
    assert found.tokens.dtype == np.int64 and found.tokens.tolist() == tiny_tokenizer("x")["input_ids"]


def test_a_datasets_column(tiny_tokenizer):
    rows = [{"code": "x = 1", "path": "a"}, {"code": "y", "path": "b"}]
    assert read(rows, tiny_tokenizer, text_column="code") == [("0", "x = 1"), ("1", "y")]
    with pytest.raises(InputError, match=r"\['code', 'path'\], and no 'text'; pass text_column="):
        read(rows, tiny_tokenizer)


def test_a_folder_is_its_files_sorted(tiny_tokenizer, tmp_path):
    for name in ("b.py", "a/z.py", "a/b/c.py", "notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [name for name, _ in read(tmp_path, tiny_tokenizer)] == ["a/b/c.py", "a/z.py", "b.py", "notes.md"]
    found = read([tmp_path], tiny_tokenizer, glob="**/*.py")
    assert found == [("a/b/c.py", "a/b/c.py"), ("a/z.py", "a/z.py"), ("b.py", "b.py")]
    assert read(str(tmp_path), tiny_tokenizer, glob="**/*.py") == found
    with pytest.raises(InputError, match=r"glob='\*.rst'"):
        read(tmp_path, tiny_tokenizer, glob="*.rst")


def test_empty_texts_are_left_out_and_counted(tiny_tokenizer):
    with pytest.warns(UserWarning, match="2 of 3 texts are empty"):
        assert read(["", "a", ""], tiny_tokenizer) == [("1", "a")]
    with pytest.raises(InputError, match="2 given, all of them empty"):
        read(["", ""], tiny_tokenizer)
    with pytest.raises(InputError, match="there are no texts"):
        read([], tiny_tokenizer)


def test_bytes_that_are_not_utf8(tiny_tokenizer, tmp_path):
    file = tmp_path / "latin.txt"
    file.write_bytes(b"caf\xe9!")
    with pytest.raises(InputError, match=r"latin\.txt is not UTF-8: byte 0xe9 at position 3"):
        read(file, tiny_tokenizer)
    assert read(file, tiny_tokenizer, errors="replace") == [(str(file), "caf\ufffd!")]
    with pytest.raises(ParameterError, match="errors='ignore'"):
        read(file, tiny_tokenizer, errors="ignore")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("a text", "pass a list"),
        (b"bytes", "pass a list"),
        ({"train": ["a"]}, r"mapping of \['train'\]"),
        (7, "texts is a int"),
        ([7], "text 0 is a int"),
        (["a", {"text": None}], "text 1 is a NoneType"),
        (Path("no such file"), "cannot read no such file"),
    ],
)
def test_what_is_no_text(texts, said, tiny_tokenizer):
    with pytest.raises(InputError, match=said):
        read(texts, tiny_tokenizer)


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
