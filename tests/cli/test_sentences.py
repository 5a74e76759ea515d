"""``residua encode hf:FOLDER file.csv``: tables of text before a transformers classifier."""

import numpy as np
import pytest
import torch

import residua as rs

WORDS = [
    "the",
    "a",
    "film",
    "was",
    "fine",
    "poor",
    "dull",
    "bright",
    "and",
    "not",
    "very",
    "is",
    "good",
    "bad",
    "story",
]
TEXTS = ["a fine film", "poor, dull", "the film was not bad and very good", "dull and bad"]


@pytest.fixture
def bert(here):
    """A tiny classifier of text in ``bert/``, with its tokenizer; its classes are 'neg' and 'pos'."""
    transformers = pytest.importorskip("transformers")
    (here / "bert").mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, ","]
    (here / "bert" / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = transformers.BertTokenizerFast(vocab={word: place for place, word in enumerate(vocabulary)})
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    names = {"id2label": {0: "neg", 1: "pos"}, "label2id": {"neg": 0, "pos": 1}}
    config = transformers.BertConfig(**shape, **names, vocab_size=len(vocabulary), max_position_embeddings=12)
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(here / "bert")
    tokenizer.save_pretrained(here / "bert")
    return model, tokenizer


def written(path, header, rows, separator=","):
    quoted = [[f'"{value}"' if separator in value else value for value in row] for row in rows]
    path.write_text("\n".join(separator.join(row) for row in [header, *quoted]), encoding="utf-8-sig")


def expected(bert, *columns):
    model, tokenizer = bert
    each = [tokenizer(*row, truncation=True, max_length=12, return_tensors="pt") for row in zip(*columns)]
    with torch.no_grad():
        return np.stack([model(**row).logits[0].numpy() for row in each])


def test_texts_are_classified_by_their_own_names(run, here, bert):
    written(here / "reviews.csv", ["id", "text", "label"], zip("abcd", TEXTS, ["pos", "neg", "pos", "neg"]))
    run("encode", "hf:bert", "reviews.csv", "-o", "out.npz")
    enc = rs.Encoded.load("out.npz")
    np.testing.assert_allclose(enc.logits.dense(), expected(bert, TEXTS), atol=1e-5)
    assert enc.labels.tolist() == [1, 0, 1, 0] and enc.classes == ("neg", "pos")
    assert enc.names.tolist() == [f"reviews.csv:{row}" for row in (1, 2, 3, 4)]
    run("build", "out.npz", "-o", "mem")
    said = run("explain", "mem", "out.npz", "--row", 0, "--reader", "resmem", "--k", 2).stdout
    assert "class pos: base " in said and "reviews.csv:1" in said


def test_pairs_of_texts_without_labels(run, here, bert):
    pairs = TEXTS[:2], TEXTS[1::-1]
    written(here / "pairs.tsv", ["premise", "hypothesis"], zip(*pairs), separator="\t")
    run("encode", "hf:bert", "pairs.tsv", "-o", "out.npz")
    enc = rs.Encoded.load("out.npz")
    assert enc.labels is None
    np.testing.assert_allclose(enc.logits.dense(), expected(bert, *pairs), atol=1e-5)


def test_labels_that_are_numbers(run, here, bert):
    written(here / "reviews.csv", ["sentence", "label"], zip(TEXTS, "1010"))
    run("encode", "hf:bert", "reviews.csv", "-o", "out.npz")
    assert rs.Encoded.load("out.npz").labels.tolist() == [1, 0, 1, 0]


def test_a_regressor_of_text(run, here, bert):
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.from_pretrained("bert", num_labels=1)
    transformers.BertForSequenceClassification(config).save_pretrained("bert")
    written(here / "reviews.csv", ["text", "label"], zip(TEXTS, ["4.5", "1", "3.5", "2"]))
    run("encode", "hf:bert", "reviews.csv", "-o", "out.npz")
    enc = rs.Encoded.load("out.npz")
    assert enc.task == "regression" and enc.labels.reshape(-1).tolist() == [4.5, 1, 3.5, 2]


@pytest.mark.filterwarnings("always:a row has")
def test_a_text_longer_than_the_model_reads_is_said(run, here, bert):
    written(here / "reviews.csv", ["text", "label"], [["dull " * 30, "neg"], ["fine", "pos"]])
    stderr = run("encode", "hf:bert", "reviews.csv", "-o", "out.npz").stderr
    assert stderr.count("a row has 32 tokens, and the model reads 12: longer ones are cut") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty; expected a header"),
        ("text,label", "has the header text, label alone"),
        ("text,label\nfine,good", "has the label 'good'; expected one of 'neg', 'pos'"),
        ("text,label\nfine,2", "has labels 2 to 2; expected 0 to 1"),
        ("text,label\nfine,,pos", "row 1: 3 values under 2 names of columns"),
        ("a,b,c\nfine,fine,fine", "has the columns 'a', 'b', 'c'; expected a column 'text'"),
    ],
)
def test_what_is_no_table_of_text(run, here, bert, content, said):
    (here / "reviews.csv").write_text(content)
    assert said in run("encode", "hf:bert", "reviews.csv", "-o", "out.npz", code=1).stderr
    assert not (here / "out.npz").exists()


def test_a_model_that_cannot_read_it(run, here, bert):
    model = bert[0]
    (here / "reviews.csv").write_text("text,label\nfine,pos")
    model.config.problem_type = "multi_label_classification"
    model.config.save_pretrained("bert")
    stderr = run("encode", "hf:bert", "reviews.csv", "-o", "out.npz", code=1).stderr
    assert "gives a text several labels" in stderr
    model.config.problem_type = None
    model.config.pad_token_id = None
    model.config.save_pretrained("bert")
    assert "has no padding token" in run("encode", "hf:bert", "reviews.csv", "-o", "out.npz", code=1).stderr
