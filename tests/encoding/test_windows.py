import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.encoding.windows import TokenBatch, Windowing, batched, windows
from residua.errors import ParameterError


def cut(n, windowing, document=0):
    return list(windows(document, np.arange(100, 100 + n), windowing))


def test_a_document_by_hand():
    first, second, third = cut(7, Windowing(3, 2, prefix=9))
    assert first.tokens.tolist() == [9, 100, 101] and first.targets.tolist() == [100, 101, 102]
    assert (first.first, first.offset) == (0, 0)
    assert second.tokens.tolist() == [101, 102, 103] and second.targets.tolist() == [103, 104]
    assert (second.first, second.offset) == (1, 3)
    assert third.tokens.tolist() == [103, 104, 105] and third.targets.tolist() == [105, 106]
    assert (third.first, third.offset) == (1, 5)


def test_without_a_prefix_the_first_token_is_no_target():
    (only,) = cut(3, Windowing(8, 6))
    assert only.tokens.tolist() == [100, 101] and only.targets.tolist() == [101, 102] and only.offset == 1
    assert cut(1, Windowing(8, 6)) == [] and cut(0, Windowing(8, 6)) == []
    assert [window.targets.tolist() for window in cut(1, Windowing(8, 6, prefix=0))] == [[100]]
    assert cut(0, Windowing(8, 6, prefix=0)) == []


def test_a_document_ends_with_the_suffix_once():
    targets = [window.targets.tolist() for window in cut(3, Windowing(3, 2, prefix=9, suffix=8))]
    assert targets == [[100, 101, 102], [8]]
    assert [w.targets.tolist() for w in cut(3, Windowing(9, 6, prefix=100, suffix=102))] == [[101, 102]]
    assert [w.targets.tolist() for w in cut(1, Windowing(9, 6, suffix=100))] == [[100]]
    (only,) = cut(2, Windowing(9, 6, prefix=100, suffix=8))
    assert only.tokens.tolist() == [100, 101] and only.targets.tolist() == [101, 8] and only.offset == 1


def test_the_papers_numbers():
    """ResMem: 256 and 192, so that all but the first window have 64 tokens before their first target's own."""
    found = cut(600, Windowing.of(window=256, stride=192, prefix=0))
    assert [(w.tokens[0], len(w.tokens), w.first, len(w.targets)) for w in found] == [
        (0, 256, 0, 256),
        (291, 256, 64, 192),
        (483, 216, 64, 152),
    ]


@given(
    n=st.integers(0, 60),
    window=st.integers(2, 20),
    data=st.data(),
    prefix=st.sampled_from([None, 7]),
)
def test_every_target_once_in_order_with_its_context(n, window, data, prefix):
    stride = data.draw(st.integers(1, window))
    found = cut(n, Windowing.of(window, stride, prefix=prefix))
    text = [*([] if prefix is None else [prefix]), *range(100, 100 + n)]
    targets = [token for one in found for token in one.targets]
    assert targets == text[1:]
    for number, one in enumerate(found):
        assert len(one.tokens) <= window and len(one.tokens) == one.first + len(one.targets)
        assert one.first == 0 if number == 0 else one.first >= window - stride
        assert one.targets[0] == 100 + one.offset
        start = one.tokens[0] - 100 + (prefix is not None) if one.tokens[0] != 7 else 0
        assert one.tokens.tolist() == text[start : start + len(one.tokens)]
        assert text[start + one.first + 1] == one.targets[0]  # the next token of position `first`


def test_batches_know_their_rows():
    all_windows = cut(7, Windowing(3, 2, prefix=9)) + cut(2, Windowing(3, 2, prefix=9), document=4)
    two, last = batched(all_windows, 3)
    assert len(two) == 7 and two.labels.tolist() == list(range(100, 107)) and two.offsets.tolist() == list(range(7))
    assert two.ids.tolist() == [0] * 7
    assert last.labels.tolist() == [100, 101] and last.ids.tolist() == [4, 4] and last.offsets.tolist() == [0, 1]
    assert {array.dtype for array in (last.labels, last.ids, last.offsets)} == {np.dtype(np.int64)}
    assert len(TokenBatch([])) == 0 and TokenBatch([]).labels.shape == (0,)


def test_defaults():
    assert Windowing.of() == Windowing(1024, 768, None)
    assert Windowing.of(limit=512, prefix=3) == Windowing(512, 384, 3)
    assert Windowing.of(window=3072, min_context=1536, limit=4096).stride == 1536
    assert Windowing.of(window=256, stride=192, min_context=64) == Windowing(256, 192)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 8, "stride": 9}, "leave tokens out"),
        ({"window": 8, "stride": 0}, "stride=0"),
        ({"window": 1}, "at least 2"),
        ({"window": 513, "limit": 512}, "512 positions"),
        ({"window": 8, "stride": 6, "min_context": 3}, "min_context=2"),
        ({"window": 8, "min_context": 8}, "less than the window"),
        ({"window": 8.0}, "whole number"),
        ({"stride": True}, "whole number"),
    ],
)
def test_what_cannot_be(options, said):
    with pytest.raises(ParameterError, match=said):
        Windowing.of(**options)
    with pytest.raises(ParameterError, match="batch_size"):
        next(batched([], 0))
