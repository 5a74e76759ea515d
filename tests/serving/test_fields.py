"""A field's schema and its check say the same."""

import pytest

pytest.importorskip("starlette", reason="the server: pip install residua[serve]")

from residua.serving import fields

ROW = fields.record({"id": fields.whole(0, 9)}, {"label": fields.either(fields.whole(0, 2), fields.text(3, 1))})


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        (fields.whole(0, 9), [0, 9, 3.0], [-1, 10, 3.5, "3", True, None, float("inf")]),
        (fields.real(0, 1), [0, 1, 0.5], [-0.1, 1.1, "0", False, float("nan")]),
        (fields.flag(), [True, False], [0, 1, None, "true"]),
        (fields.constant(1, None), [1, None], [True, 1.5, 0, "1"]),
        (fields.text(3, 1), ["a", "äöü", "\x00"], ["", "abcd", 3, None, "\ud800"]),
        (
            fields.numbers((2,)),
            [[1, 2.5]],
            [[1], [1, 2, 3], [[1, 2]], [1, "2"], [True, 1], [1, None], "12", [1, 1e300]],
        ),
        (fields.numbers((2, 1)), [[[1], [2]]], [[1, 2], [[1, 2]], [[1], [2, 3]]]),
        (fields.numbers(None), [[1], [[1, 2], [3, 4]]], [[], [[]], 1, [[1], 2], ["a"], [[True, 1]], [10**400]]),
        (fields.list_of(fields.flag(), 1, 2), [[True]], [[], [True] * 3, [1], {}]),
        (fields.nullable(fields.flag()), [None, True], [0, "null"]),
        (ROW, [{"id": 1}, {"id": 1, "label": "fox"}], [{}, {"id": 1, "other": 2}, {"label": 1}, [], {"id": None}]),
    ],
)
def test_what_passes_and_what_does_not(field, good, bad):
    for value in good:
        field.check(value, "it")
    for value in bad:
        with pytest.raises(ValueError, match="it"):
            field.check(value, "it")


def test_schemas_are_those_of_json_schema():
    assert ROW.schema == {
        "type": "object",
        "properties": {
            "id": {"type": "integer", "minimum": 0, "maximum": 9},
            "label": {
                "anyOf": [
                    {"type": "integer", "minimum": 0, "maximum": 2},
                    {"type": "string", "minLength": 1, "maxLength": 3},
                ]
            },
        },
        "additionalProperties": False,
        "required": ["id"],
    }
    inner = {"type": "array", "minItems": 2, "maxItems": 2, "items": fields.real().schema}
    assert fields.numbers((3, 2)).schema == {"type": "array", "minItems": 3, "maxItems": 3, "items": inner}
    assert fields.flag().described("why", default=True).schema == {
        "type": "boolean",
        "description": "why",
        "default": True,
    }


def test_lists_that_are_too_deep_are_refused():
    deep = [1.0]
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ValueError, match="it"):
        fields.numbers(None).check(deep, "it")
