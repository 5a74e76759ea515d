import pytest

from residua.core import Source
from residua.errors import SourceMismatchError

ONE = Source("Net", "fc", "float32", {"w": ([2, 3], 1.0), "b": ([2], 0.5)})


def changed(**fields):
    return Source(**{**ONE.__dict__, **fields})


def test_the_same_model_and_unknown_ones_pass():
    ONE.require(changed(name="other class name"))
    ONE.require(None)
    assert Source.from_json(ONE.to_json()) == ONE


@pytest.mark.parametrize(
    "other, says",
    [
        (changed(key="layer4"), "layer4"),
        (changed(parameters={"w": ([2, 3], 1.0)}), "'b' exists on one side"),
        (changed(parameters={**ONE.parameters, "w": ([3, 2], 1.0)}), r"shape \[2, 3\]"),
        (changed(parameters={**ONE.parameters, "w": ([2, 3], 1.0001)}), "norm"),
        (changed(extra={"tokenizer": "x"}), "tokenizer"),
    ],
)
def test_another_model_or_layer_is_refused_with_both_named(other, says):
    with pytest.raises(SourceMismatchError, match=says) as caught:
        ONE.require(other)
    assert "Net" in str(caught.value)


def test_a_16_bit_copy_is_the_same_model():
    ONE.require(changed(dtype="bfloat16", parameters={"w": ([2, 3], 1.003), "b": ([2], 0.4995)}))
    with pytest.raises(SourceMismatchError):
        ONE.require(changed(dtype="bfloat16", parameters={"w": ([2, 3], 1.03), "b": ([2], 0.5)}))
