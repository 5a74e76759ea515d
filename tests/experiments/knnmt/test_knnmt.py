"""The whole experiment on catalogues of invented words, which a translator of a few seconds cannot know."""

import itertools
import struct
from difflib import SequenceMatcher

import numpy as np
import pytest

from experiments import knnmt
from experiments.knnmt.catalogues import MAGIC, catalogues, messages, pairs, split
from experiments.runner import run
from residua.errors import InputError, ParameterError


def mo(entries, order="<"):
    """A gettext catalogue's bytes."""
    texts = [[part.encode() for part in entry] for entry in entries]
    count, start = len(texts), 28 + 16 * len(texts)
    tables, body = [], b""
    for side in (0, 1):
        for entry in texts:
            tables.append(struct.pack(f"{order}2I", len(entry[side]), start + len(body)))
            body += entry[side] + b"\0"
    return struct.pack(f"{order}7I", MAGIC, 0, count, 28, 28 + 8 * count, 0, start) + b"".join(tables) + body


@pytest.mark.parametrize("order", ["<", ">"])
def test_messages_are_those_of_the_file(order):
    entries = [("", "Language: de"), ("Open", "Öffnen"), ("menu\x04Close", "Schließen"), ("%d file\0%d files", "x\0y")]
    assert messages(mo(entries, order)) == [("Open", "Öffnen"), ("Close", "Schließen")]


def test_pairs_come_from_the_catalogues_of_one_language(tmp_path):
    for region, entries in {
        "de": [("Open", "Öffnen"), ("OK", "OK"), ("New", ""), ("Long", "l" * 21)],
        "de_AT": [("Open", "Aufmachen"), ("Save", "Speichern")],
        "fr": [("Open", "Ouvrir")],
    }.items():
        folder = tmp_path / "locale" / region / "LC_MESSAGES"
        folder.mkdir(parents=True)
        (folder / "app.mo").write_bytes(mo(entries))
    assert len(catalogues(str(tmp_path), "de")) == 2
    assert pairs(str(tmp_path), "de", 20) == [("Open", "Öffnen"), ("Save", "Speichern")]
    with pytest.raises(InputError, match="no message in 'sv'"):
        pairs(str(tmp_path), "sv", 20)
    with pytest.raises(InputError, match="neither a folder nor an installed package"):
        pairs("no-such-package-anywhere", "de", 20)


def test_a_split_parts_every_pair():
    domain = [(str(number), "x") for number in range(100)]
    parts = split(domain)
    assert [len(part) for part in parts] == [70, 12, 18]
    assert sorted(itertools.chain(*parts)) == sorted(domain) and split(domain) == parts


@pytest.mark.slow
def test_a_memory_translates_what_the_translator_never_saw(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    words = {
        name: [tuple("".join(rng.choice(list("abcdefghij"), 5)) for _ in range(2)) for _ in range(12)]
        for name in ("known", "new")
    }
    for name, known in words.items():
        texts = [[known[i], known[j]] for i in range(12) for j in range(12)]
        entries = [tuple(" ".join(word[side] for word in one) for side in (0, 1)) for one in texts]
        folder = tmp_path / name / "de" / "LC_MESSAGES"
        folder.mkdir(parents=True)
        (folder / "app.mo").write_bytes(mo(entries))

    def alike(said, references):  # sacrebleu need not be installed
        ratios = {
            name: 100 * float(np.mean([SequenceMatcher(None, *both).ratio() for both in zip(texts, references)]))
            for name, texts in said.items()
        }
        return {name: {**ratios, "p_value": None} for name in knnmt.MEASURES}

    monkeypatch.setattr(knnmt, "scores", alike)
    options = {
        "base": (str(tmp_path / "known"),),
        "domain": str(tmp_path / "new"),
        "checkpoints": str(tmp_path / "made"),
    }
    small = {"steps": 60, "width": 32, "layers": 1, "vocabulary": 300, "beams": 2}
    results = run("knnmt", tmp_path / "results", **options, **small)["results"]
    assert results["pairs"] == {"memory": 101, "tune": 17, "score": 26} and results["trained"] == 144
    base, now = results["perplexity"]
    assert now < 0.5 * base
    greedy = results["decoded"]["1"]["chrF"]
    assert greedy["memory"] > greedy["base"] + 10
    tables = knnmt.tables(results)
    assert [row[0] for row in tables["scores"].rows][2:] == [
        f"{name}, {how}" for how in ("greedy", "2 beams") for name in knnmt.MEASURES
    ]
    assert len(tables["shown"].rows) == knnmt.SHOWN and len(knnmt.draw(results).axes) == 2
    made = list((tmp_path / "made").iterdir())
    run("knnmt", tmp_path / "again", **options, **small)
    assert list((tmp_path / "made").iterdir()) == made  # the translator is trained once
    with pytest.raises(ParameterError, match="at least 1"):
        run("knnmt", tmp_path / "results", **options, steps=0)


def test_translations_are_scored_as_sacrebleu_does():
    sacrebleu = pytest.importorskip("sacrebleu")
    references = ["the cat sat on the mat today", "a dog barks at the moon", "birds sing in the morning"]
    said = {"base": ["the cat sat", "a dog", "birds sang"], "memory": references}
    found = knnmt.scores(said, references)
    assert found["BLEU"]["memory"] == pytest.approx(100) and found["chrF"]["memory"] == pytest.approx(100)
    assert found["chrF"]["base"] == pytest.approx(sacrebleu.corpus_chrf(said["base"], [references]).score)
    assert 0 < found["chrF"]["p_value"] < 0.2
