"""Values of a wrong type where the library knows none: told when the definition is registered, and not when a saga meets them."""

import pytest

from participant_sdk.definitions.expressions import BOOL
from tests.unit.definitions.plain_expressions import compiled, mistakes_in, values_of
from tests.unit.definitions.travel_messages import made

TRIP = "travel.v1.Trip"
LEGS = 'field "legs" takes a list(travel.v1.Leg), found an entry that is '


@pytest.mark.parametrize(
    ("text", "told", "marked"),
    [
        # In a field
        ("Trip{legs: [Leg{}, 1]}", f"{LEGS}an int (", "1]"),
        ("Trip{legs: [Leg{}, Booked{code: 'x'}]}", f"{LEGS}a travel.v1.Booked (", "Booked{"),
        ("Trip{legs: [Leg{}, null]}", f"{LEGS}null; leave it out instead", "null]"),
        ("Trip{legs: [Leg{}, input.first.cents] + []}", f"{LEGS}an int (", "input.first.cents]"),
        ("Trip{legs: input.legs + (ran.hotel ? [Leg{}, 'x'] : [])}", f"{LEGS}a string (", "'x']"),
        ("Trip{legs: [ran.hotel ? dyn(Leg{}) : 1, Leg{}]}", f"{LEGS}an int (", "1, Leg"),
        ("Trip{legs: input.legs.map(l, dyn(l.to))}", f"{LEGS}a string (", "l.to)"),
        ("Trip{legs: input.legs.map(l, l.cents > 1, dyn(l.to))}", f"{LEGS}a string (", "l.to)"),
        ("Trip{legs: [Leg{}, [Leg{}]]}", f"{LEGS}a list(travel.v1.Leg); take one of them", "[Leg{}]]"),
        ("Trip{inner: Trip{tags: ['a', 1]}}", 'field "tags" takes a list(string), found an entry that is an int; write string(…)', "1]"),
        ("Trip{name: dyn(1)}", 'field "name" takes a string, found an int; write string(…) to convert it', "1)"),
        ("Trip{prices: {'a': 1, 'b': 'x'}}", "takes a map(string, int), found a value that is a string; write int(…)", "'x'}"),
        ("Trip{prices: {'a': 1, 2: 3}}", "found a key that is an int; write string(…)", "2: 3"),
        ("Trip{by_day: {1: Leg{}, 2: Booked{}}}", "found a value that is a travel.v1.Booked", "Booked{"),
        ("Trip{extra: {'a': {1: 'b'}}}", "takes a google.protobuf.Struct, found a key that is an int", "1: 'b'"),
        ("Trip{any_value: [type(1)]}", "takes a google.protobuf.Value, found an entry that is a type", "type(1)"),
        ("Trip{codes: [1, true]}", "takes a list(int), found an entry that is a bool", "true]"),
        # Where nobody wants a type
        (
            "Trip{tags: [1, 'a'].map(x, string(x))}",
            "the entries of a list must have the same type, found an int and a string; conv",
            "'a']",
        ),
        ("Trip{gift: size([Leg{}, 1]) > 1}", "the entries of a list must have the same type, found a travel.v1.Leg and an int (", "1])"),
        ("Trip{gift: 1 in [1, 'a']}", "the entries of a list must have the same type", "'a']"),
        ("Trip{gift: [1, 1.5] == input.codes}", "found an int and a double; kinds of numbers do not mix", "1.5]"),
        ("Trip{gift: input.tags + ['x', 1] == []}", "found a string and an int", "1] =="),
        ("Trip{gift: [[1], ['a']] == []}", "found a list(int) and a list(string)", "['a']]"),
        ("Trip{gift: [1, null].exists(x, x == 1)}", "found an int and null", "null]"),
        ("Trip{name: {'a': 1, 'b': 'x'}['b']}", "the values of a map must have the same type, found an int and a string", "'x'}"),
        ("Trip{gift: {'a': 1, 2: 1}.exists(k, k == 'a')}", "the keys of a map must have the same type, found a string and an int", "2: 1"),
        ("Trip{gift: Leg{} in input.by_day}", "in cannot be applied to a travel.v1.Leg and a map(int, travel.v1.Leg)", "in input"),
        # The whole
        ("ran.hotel ? Trip{} : null", "expected a travel.v1.Trip, because the test takes it, found null; null is no message", "null"),
        # Literals
        ("Trip{name: 'a', name: 'b'}", 'field "name" is given already; each is given once', "'b'}"),
        ("Trip{card: input.card, cash: 5}", '"cash" and "card" are alternatives of one oneof: only one of them can be given', "5}"),
        ("Trip{card: input.card, ride: Leg{}}", '"ride" and "card" are alternatives of one oneof', "Leg{}}"),
        ("Trip{people: 2147483648}", 'field "people" takes -2147483648 to 2147483647, found 2147483648', "2147483648}"),
        ("Trip{rooms: 4294967296u}", 'field "rooms" takes 0 to 4294967295, found 4294967296', "4294967296u}"),
        ("Trip{cents: 5 / 0}", "nothing can be divided by 0", "5 / 0"),
        ("Trip{cents: 5 % 0}", "nothing can be divided by 0", "5 % 0"),
        ("Trip{first: input.legs[-1]}", "a list is counted from 0, and has nothing before that", "input.legs[-1]"),
        ("Trip{prices: {'a': 1, 'a': 2}}", "the key 'a' stands in this map already", "'a': 2"),
        ("Trip{gift: bool('yes')}", """bool expects "true" or "false", found 'yes'""", "bool('yes')"),
    ],
)
def test_value_that_cannot_work_is_told_with_its_place(text: str, told: str, marked: str) -> None:
    (mistake,) = mistakes_in(text, TRIP)
    description, line, mark = mistake.rsplit("\n", 2)
    assert told in description
    assert line[mark.index("^") :].startswith(marked)


@pytest.mark.parametrize(
    "text",
    [
        # What cannot be known
        "Trip{tags: input.list, name: input.any_value, prices: input.extra}",
        "Trip{first: input.packed, legs: [input.first, input.packed]}",
        "Trip{legs: [input.any_value], tags: [input.name, input.extra.name], people: dyn(input.any_value)}",
        "Trip{gift: [input.any_value, 1].exists(x, x == 1)}",
        # What may hold anything
        "Trip{extra: {'a': [1, 'b', null, {'c': 2.5}], 'b': true, 'c': input.begin, 'd': input.scan}}",
        "Trip{extra: ran.hotel ? {'a': 1, 'b': 'x'} : {'c': input.tags}, list: [1, 'a'] + [null]}",
        "Trip{any_value: [1, 'a', Leg{}], packed: [1, 'a']}",
        "Trip{inner: Trip{any_value: {'a': input.by_day, 'b': 1}}, packed: Leg{}}",
        "Trip{gift: input.extra == {'a': 1, 'b': 'x'} || input.any_value in [1, 'a'] || input.list == [1, 'a']}",
        "Trip{gift: size(dyn([1, 'a'])) > 1}",
        # What fits
        "Trip{tags: [input.title, 'x'], codes: [1, input.limit], limit: 5, title: input.name}",
        "Trip{legs: [], tags: [] + ['a'], prices: {}, codes: ran.hotel ? [] : [1]}",
        "Trip{first: null, begin: null, title: null, any_value: null, packed: null}",
        "Trip{card: input.card, ride: has(input.ride) ? input.ride : null}",
        "Trip{first: ran.hotel ? input.first : null, card: 'x'}",
        "Trip{class: Class.FIRST, codes: [input.class, Class.ANY, 1]}",
        "Trip{gift: [[], [1]] == [[1]] && [{}, {'a': 1}] != [] && [null, input.first] != [] && [input.title, null] != []}",
        "Trip{people: 2147483647, codes: [-9223372036854775808], rate: 1.0 / 0.0, prices: {'a': 1, 'b': 1}}",
    ],
)
def test_value_that_may_work_is_accepted(text: str) -> None:
    assert mistakes_in(text, TRIP) == []


@pytest.mark.parametrize(("text", "wanted"), [("[1, 'a']", "ListValue"), ("{'a': 1, 'b': ['x', 2]}", "Struct"), ("[1, 'a']", "Value")])
def test_json_as_the_whole_may_hold_anything(text: str, wanted: str) -> None:
    assert mistakes_in(text, f"google.protobuf.{wanted}") == []


def test_what_is_left_to_the_evaluation_is_not_mistaken_for_what_is_known() -> None:
    trip = made("Trip", name="x")
    trip.list.extend([1, "a"])  # type: ignore[attr-defined]
    assert compiled("'a' in input.list && input.list == [1, 'a'] && input.list != ['a', 1]", BOOL).decide(values_of(trip))
