from dataclasses import dataclass

import pytest

from residua.core import Registry
from residua.errors import ParameterError


def made():
    shapes = Registry("shape", "@register_shape")
    shapes.register("round", type("Round", (), {}))
    shapes.register("flat", type("Flat", (), {}))
    return shapes


def test_what_is_registered_is_found_by_its_name():
    shapes = made()
    assert list(shapes) == ["round", "flat"] and "flat" in shapes and "square" not in shapes
    assert shapes.get("flat").__name__ == "Flat"


def test_an_unknown_name_lists_the_known_ones_and_says_how_to_register():
    with pytest.raises(ParameterError, match=r"no shape 'square'.*'round', 'flat'.*@register_shape"):
        made().get("square")


def test_a_name_is_given_once():
    shapes, there = made(), made().get("round")
    with pytest.raises(ParameterError, match=r"shape 'flat' is registered already, by .*Flat; choose another name"):
        shapes.register("flat", type("Other", (), {}))
    assert shapes.get("flat").__name__ == "Flat" and there.__name__ == "Round"


def test_a_reloaded_module_may_register_again():
    """The class is another object then, of the same module and name; the newer one counts."""
    shapes, again = made(), type("Flat", (), {"again": True})
    shapes.register("flat", again)
    assert shapes.get("flat") is again and list(shapes) == ["round", "flat"]


@dataclass(frozen=True)
class Rule:
    """An object that is known by the function it holds."""

    apply: object


def double(number):
    return 2 * number


def half(number):
    return number / 2


def test_objects_are_told_apart_by_the_functions_they_hold():
    rules = Registry("rule", "register_rule")
    rules.register("usual", Rule(double))
    rules.register("usual", Rule(double))
    with pytest.raises(ParameterError, match=r"registered already, by .*double"):
        rules.register("usual", Rule(half))
    assert rules.get("usual").apply(3) == 6
