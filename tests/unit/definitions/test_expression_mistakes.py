"""Every kind of mistake in an expression: where it is, what was expected, what there is, and what to write instead."""

import pytest

from participant_sdk.definitions.mistakes import MISTAKES_MAX
from tests.unit.definitions.plain_expressions import mistakes_in

LEG = "travel.v1.Leg"


@pytest.mark.parametrize(
    ("text", "told", "marked"),
    [
        # Names
        ("input.peple > 1", 'travel.v1.Trip has no field "peple"; did you mean "people"? its fields are: any_value, begin,', "peple > 1"),
        ("has(input.peple)", 'travel.v1.Trip has no field "peple"; did you mean "people"?', "peple)"),
        (
            "Leg{form: input.name}",
            'travel.v1.Leg has no field "form"; did you mean "from"? its fields are: cents, from, seats, to',
            "form:",
        ),
        ("Nothing{a: 1}", 'travel.v1.Nothing has no field "a": it has no fields', "a: 1"),
        ("imput.name == ''", 'there is no variable "imput" here; did you mean "input"? there is: hotel, input, ran, strict', "imput."),
        ("output.name", "only on_success has what the saga returned", "output."),
        ("error.code == 5", "only on_failure has what went wrong", "error."),
        ("ran.hotl", '"ran.hotl" asks for a step "hotl" that does not come before this; did you mean "hotel"?', "ran.hotl"),
        ("has(ran.hotl)", '"ran.hotl" asks for a step "hotl"', "ran.hotl"),
        ("ran", "ran is no value of its own: write ran.<id of a step>, like ran.hotel", "ran"),
        ("Lag{to: 'x'}", 'there is no message "Lag" in package travel.v1; did you mean "Leg"? there is: Booked, Leg, Nothing,', "Lag{"),
        ("hotels.v1.Room{}", 'there is no message "hotels.v1.Room"; there is: Booked', "hotels.v1.Room{"),
        ("input.class == FIRST", 'no variable "FIRST"; the value of an enum is written with the name of the enum: Class.FIRST', "FIRST"),
        ("input.class == Class.FRIST", 'enum travel.v1.Class has no value "FRIST"; did you mean "FIRST"? there is: ANY, FIRST', ".FRIST"),
        ("Trip{class: 'FIRST'}", 'field "class" is an enum: expected Class.FIRST or the like, found a string', "'FIRST'"),
        ("input.tags.joined(',')", 'there is no function "joined"; there are: all, bool,', "joined("),
        ("input.tags.join(',')", 'there is no function "join"; there is nothing of the kind in the language', "join("),
        ("input.name.beginsWith('a')", 'there is no function "beginsWith"; did you mean "endsWith"?', "beginsWith"),
        ("input.legs.all(l)", "all is written list.all(element, condition)", "all("),
        ("input.legs.map(l)", "map is written list.map(element, value)", "map("),
        ("has(input)", "has() asks whether a field is set, and takes its name: has(input.note)", "input)"),
        ("input.?name", ".? is not part of the language that is understood here", "input.?"),
        # Types
        ("Leg{cents: input.name}", 'field "cents" takes an int, found a string; write int(…) to convert it', "input.name"),
        ("Trip{rate: 1}", 'field "rate" takes a double, found an int; write double(…), or 1.0 for a literal', "1}"),
        ("Trip{rooms: 1}", 'field "rooms" takes a uint, found an int; write uint(…), or 1u for a literal', "1}"),
        ("Trip{begin: '2026-01-31'}", 'field "begin" takes a google.protobuf.Timestamp, found a string; write timestamp(…)', "'2026"),
        ("Trip{stay: '1h'}", "found a string; write duration(…)", "'1h'"),
        ("Trip{scan: 'x'}", "takes bytes, found a string; write bytes(…)", "'x'"),
        ("Trip{title: 5}", 'field "title" takes a string or null, found an int', "5}"),
        ("Trip{legs: input.first}", 'field "legs" takes a list(travel.v1.Leg), found a travel.v1.Leg', "input.first"),
        ("Trip{prices: {'a': 1.5}}", "takes a map(string, int), found a map(string, double)", "{'a'"),
        ("input.name + 1 == ''", "+ cannot be applied to a string and an int; convert one with string(…), int(…) or double(…)", "+ 1"),
        ("input.cents * 1.2 > 1.0", "* cannot be applied to an int and a double; kinds of numbers do not mix", "* 1.2"),
        ("input.rooms + 1 > 2u", "a literal double is 1.0, a uint 1u", "+ 1"),
        ("input.cents < 1.5", "< cannot be applied to an int and a double", "< 1.5"),
        ("input.name == input.people", "== cannot be applied to a string and an int", "== input"),
        ("-input.rooms", "- cannot be applied to a uint", "-input"),
        ("!input.name", "! takes bools, found a string", "!input"),
        ("input.gift && input.people", "&& takes bools, found a bool and an int", "&& input"),
        ("input.people ? 1 : 2", "the condition before ? must be a bool, found an int", "? 1"),
        ("input.gift ? 1 : 'a'", "both sides of : must have the same type, found an int and a string", "? 1"),
        ("input.legs.filter(l, l.cents)", "the condition of filter must be a bool, found an int", "(l, l.cents"),
        ("size(input)", "size cannot be applied to (travel.v1.Trip); it takes a string, bytes, a list or a map", "(input"),
        ("input.name.startsWith(1)", "startsWith cannot be applied to (string, int); it takes a string, on a string", "(1"),
        ("input.name[0]", "[] takes a list and an int, or a map and a key of its type, found a string and an int", "[0"),
        ("'a' in input.name", "in cannot be applied to a string and a string", "in input"),
        ("input.legs.from", "what stands before the dot is a list(travel.v1.Leg), which has no fields", ".from"),
        ("input.legs.all(l, l.form == '')", 'travel.v1.Leg has no field "form"', "form =="),
        # What cannot be read
        ("1 +", "expected a value, found the end", ""),
        ("Leg{from: 'a' to: 'b'}", 'expected "}" or ",", found "to"', "to: 'b'"),
        ("input.legs[0", 'expected "]" before the end', ""),
        ("input.people = 1", '"=" means nothing here; write == to compare, and : between a field and its value', "= 1"),
        ("'abc", "this text has no end: the closing quotation mark is missing", "'abc"),
        ("input..name", "this cannot be read", ".name"),
        ("input name", 'expected the end, found "name"', "name"),
        ("# all of it", '"#" means nothing here', "# all"),
        ("99999999999999999999", "this number is too large for an int, which has 64 bits", "9999"),
    ],
)
def test_mistake_is_told_with_its_place(text: str, told: str, marked: str) -> None:
    mistake = mistakes_in(text)[0]
    description, line, mark = mistake.rsplit("\n", 2)
    assert told in description
    assert line == f"    {text}"
    place = mark.index("^") - 4
    assert line[4:][place:].startswith(marked)
    assert f"(line 1, column {place + 1})" in description


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("+".join(["1"] * 40), "nested or chained too deep: expected at most 32 levels"),
        ("(" * 40 + "1" + ")" * 40, "nested too deep"),
        ('"\ud800"', "expected text that can be encoded, found a lone surrogate at place 2"),
        ("input.name.matches('(')", "the pattern '(' of matches cannot be used: missing )"),
        ("input.name.matches(input.note)", "the pattern of matches must be written out as a text"),
        ("timestamp('tomorrow') > input.begin", """timestamp expects a moment like "2026-01-31T12:00:00Z", found 'tomorrow'"""),
        ("duration('long')", """duration expects a duration like "1h30m" or "2.5s", in h, m, s and ms, found 'long'"""),
        ("int('two')", "int expects a whole number, found 'two'"),
        ("input.begin.getHours('file:/etc/hosts')", "the time zone of getHours must be written out"),
        ("input.begin.getHours(input.name)", "the time zone of getHours must be written out"),
        ("input.begin.getHours('Mars/Olympus')", 'there is no time zone "Mars/Olympus"'),
        ("Trip{class: 7}", 'field "class": travel.v1.Class has no value with the number 7; there is: Class.ANY, Class.FIRST'),
    ],
)
def test_mistake_of_the_whole_expression_quotes_it(text: str, told: str) -> None:
    (mistake,) = mistakes_in(text)
    assert told in mistake


@pytest.mark.parametrize(
    ("text", "wanted", "told"),
    [
        ("input.name", LEG, "expected a travel.v1.Leg, because the test takes it; the expression is a string, in: input.name"),
        ("Booked{}", LEG, "the expression is a travel.v1.Booked"),
        ("null", LEG, "the expression is null"),
        ("Leg", LEG, "the expression is a type"),
        ("[Leg{}]", LEG, "the expression is a list(travel.v1.Leg)"),
        ("input.extra.leg", LEG, "the expression is a dyn"),
        ("input.people", "bool", "expected a bool, because the test takes it; the expression is an int"),
        ("input.extra.flag", "bool", "the expression is a dyn; compare it with a value of a known type"),
        ("input.sure", "bool", "the expression is a bool or null; compare it with true, since it may be null"),
        ("Leg{}", "bool", "the expression is a travel.v1.Leg"),
        ("'x'", "", "expected a message, because the test takes it; the expression is a string"),
        ("input.people", "google.protobuf.StringValue", "expected a google.protobuf.StringValue, because the test takes it"),
        ("input.name", "google.protobuf.Timestamp", "because the test takes it, found a string; write timestamp(…)"),
        ("{1: 'a'}", "google.protobuf.Struct", "because the test takes it, found a key that is an int"),
    ],
)
def test_result_of_another_type_is_told(text: str, wanted: str, told: str) -> None:
    (mistake,) = mistakes_in(text, wanted)
    assert told in mistake


def test_every_mistake_of_an_expression_is_told_in_its_order() -> None:
    told = mistakes_in("Trip{name: 1,\n  peple: 2,\n  cents: input.nam}")
    assert [mistake.split("\n")[0] for mistake in told] == [
        'field "name" takes a string, found an int; write string(…) to convert it (line 1, column 12)',
        'travel.v1.Trip has no field "peple"; did you mean "people"? its fields are: any_value, begin, big, by_day, card, cash, cents, '
        "class, codes, extra, first, gift, inner, legs, limit, list, name, note, packed, people, … (line 2, column 3)",
        'travel.v1.Trip has no field "nam"; did you mean "name"? its fields are: any_value, begin, big, by_day, card, cash, cents, '
        "class, codes, extra, first, gift, inner, legs, limit, list, name, note, packed, people, … (line 3, column 16)",
    ]


def test_very_many_mistakes_are_cut() -> None:
    assert len(mistakes_in(f"[{','.join(f'x{number}' for number in range(300))}]")) == MISTAKES_MAX


def test_long_line_is_cut_around_the_mistake() -> None:
    mistake = mistakes_in(f"'{'a' * 300}' + input.nam + '{'b' * 300}'")[0]
    _, line, mark = mistake.rsplit("\n", 2)
    assert len(line) < 120
    assert line[mark.index("^") :].startswith("nam + ")


def test_signs_outside_of_the_basic_plane_do_not_move_the_mark() -> None:
    _, line, mark = mistakes_in("'😀ä' + input.nam")[0].rsplit("\n", 2)
    assert line[mark.index("^") :] == "nam"
