import copy

import pytest

from residua.core.renamed import renamed


@renamed({"breadth": "width", "tall": "height"})
class Box:
    def __init__(self):
        self.width = 3


def test_an_attribute_of_before_names_the_new_one():
    for old, new in (("breadth", "width"), ("tall", "height")):
        with pytest.raises(AttributeError, match=f"'Box' object has no attribute '{old}'; it is '{new}' now"):
            getattr(Box(), old)
        assert not hasattr(Box(), old)


def test_any_other_attribute_is_unknown_as_ever():
    assert Box().width == 3
    with pytest.raises(AttributeError, match=r"'Box' object has no attribute 'depth'$"):
        _ = Box().depth
    assert getattr(Box(), "depth", None) is None


def test_objects_can_still_be_copied():
    assert copy.copy(Box()).width == copy.deepcopy(Box()).width == 3
