import click
import pytest

from residua.cli.options import NUMBERS, named_values


def test_numbers():
    assert NUMBERS.convert("1,2.5, 3", None, None) == [1, 2.5, 3]
    assert isinstance(NUMBERS.convert("1", None, None)[0], int)
    for text in ("", "1,,2", "a"):
        with pytest.raises(click.BadParameter, match="not a list of numbers"):
            NUMBERS.convert(text, None, None)


def test_named_values():
    assert named_values(None, None, ("beta=0.5,2", "kind=wide")) == {"beta": [0.5, 2], "kind": ["wide"]}
    for text in ("beta", "beta=", "=1"):
        with pytest.raises(click.BadParameter, match="not NAME=VALUE"):
            named_values(None, None, (text,))


def test_a_device_that_is_not_there_is_wrong_usage(run, mem):
    for device in ("nonesuch", "cuda:99"):
        done = run("tune", "mem", "val.npz", "--device", device, code=2)
        assert f"'{device}' cannot be used" in done.stderr.replace("\n", " ")
