"""What ids are called, several names for one id included."""

from hypothesis import given
from hypothesis import strategies as st

from residua.core import Names

GIVEN = st.lists(st.tuples(st.integers(-3, 3), st.sampled_from("abcd")))


@given(GIVEN, GIVEN)
def test_an_id_bears_what_it_was_given_and_not_taken(gifts, losses):
    names, expected = Names(), {}
    for id, name in gifts:
        names.give(id, name)
        expected.setdefault(id, dict.fromkeys([]))[name] = None
    for id, name in losses:
        expected.get(id, {}).pop(name, None)
        names.set(id, *(one for one in names.all(id) if one != name))
        assert names.all(id) == tuple(expected.get(id, ()))
    kept = {id: tuple(named) for id, named in expected.items() if named}
    assert {id: names.all(id) for id in names} == kept
    assert names == {id: named[0] for id, named in kept.items()}
    assert names.by_name() == {
        name: names.bearers(name) for name in "abcd" if any(name in named for named in kept.values())
    }
    again = Names.from_json(names.to_json())
    assert (again, again.also) == (names, names.also)


def test_given_names_replace_and_names_of_a_text_join():
    names = Names({1: "a.py", 2: "b.py"})
    names |= {1: "mine"}
    more = Names()
    more.give(2, "copy of b.py")
    names |= more
    assert names == {1: "mine", 2: "b.py"} and names.all(2) == ("b.py", "copy of b.py")
    assert names.pop(2) == "b.py" and names.all(2) == () and names.also == {}
