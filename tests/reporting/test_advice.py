"""What is suggested follows from what was found."""

import numpy as np

import residua as rs


def suggested(*args, **options):
    return rs.report(*args, path=None, **options).answers[-1].lines


def test_at_most_three_and_never_none(reader, rows):
    for test in (rows(2, 90), rows(2, 90)[:1]):
        assert 1 <= len(suggested(reader, test)) <= 3


def test_a_reader_with_its_defaults_is_to_be_tuned(rows):
    memory = rs.Memory(rows(1, 200))
    assert any("it has its defaults" in line for line in suggested(rs.ResMem(memory), rows(2, 200)))
    assert not any("defaults" in line for line in suggested(rs.ResMem(memory, k=7), rows(2, 200)))


def test_a_memory_that_harms_is_not_to_be_used(rows):
    train = rows(1, 90)
    wrong = rs.Encoded(train.keys, train.logits, (train.labels + 1) % 3)
    assert suggested(rs.ResMem(rs.Memory(wrong), k=5, sigma=1.0), rows(2, 90))[0].startswith("Do not use the memory")


def test_a_leak_comes_first(reader, rows):
    assert "their ids" in suggested(reader, rows(1, 90))[0]


def test_labels_alone_that_are_surely_better_are_worth_a_try(rows):
    train, test = rows(1, 300), rows(2, 300)
    sure = [rs.Encoded(one.keys, 20 * np.eye(3)[(one.labels + 1) % 3], one.labels) for one in (train, test)]
    reader = rs.KNNLM(rs.Memory(sure[0]), k=5, lmbda=0.1, sigma=1.0)
    lines = suggested(reader, sure[1])
    assert any("tune rs.KNNLM(memory)" in line for line in lines) or "Keep the model alone" in lines[0]
    reader = rs.KNNLM(rs.Memory(train), k=5, lmbda=1.0, sigma=1.0)
    assert not any("labels alone" in line for line in suggested(reader, test))


def test_too_few_rows_says_how_many_would_tell(rows):
    reader = rs.ResMem(rs.Memory(rows(1, 90)), k=1, sigma=1.0)
    rows_that_tell = [line for line in suggested(reader, rows(2, 9)) if "Test on more rows" in line]
    assert rows_that_tell
