"""What expressions return, for values of every kind, and how they fail when they are evaluated."""

import pytest
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from participant_sdk.definitions.expressions import BOOL, RESULT_BYTES_MAX, EvaluationError
from tests.unit.definitions.plain_expressions import compiled, evaluated, values_of
from tests.unit.definitions.travel_messages import made, travel_types

TRIP = "travel.v1.Trip"


def trip() -> Message:
    known = travel_types()
    found = made(
        "Trip",
        name="Rome",
        people=2,
        cents=90_000,
        rooms=1,
        rate=1.5,
        scan=b"\xff\x00",
        gift=True,
        legs=[made("Leg", **{"from": "A", "to": "B", "cents": 10}), made("Leg", **{"from": "B", "to": "C", "cents": 20})],
        prices={"b": 2, "a": 1},
        tags=["x", "y"],
        codes=[3, 4],
        card="visa",
        by_day={1: made("Leg", to="D")},
        begin=known.get("google.protobuf.Timestamp")(seconds=1_700_000_000, nanos=123_456_789),
        stay=known.get("google.protobuf.Duration")(seconds=-1, nanos=-1),
        title=known.get("google.protobuf.StringValue")(value="Dr"),
        big=2**64 - 1,
    )
    found.extra.update({"flag": True, "list": [1, "two"]})  # type: ignore[attr-defined]
    found.any_value.number_value = 4.0  # type: ignore[attr-defined]
    found.packed.Pack(made("Leg", to="E"))  # type: ignore[attr-defined]
    return found


def shown(message: Message) -> object:
    return MessageToDict(message, preserving_proto_field_name=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Trip{name: input.name + '!', people: input.people * 2}", {"name": "Rome!", "people": 4}),
        ("travel.v1.Trip{cents: input.cents / 2 - 1}", {"cents": "44999"}),
        ("Trip{rooms: input.rooms + 1u, big: input.big}", {"rooms": 2, "big": str(2**64 - 1)}),
        ("Trip{rate: input.rate * 2.0, share: 0.5}", {"rate": 3.0, "share": 0.5}),
        ("Trip{rate: double(input.people)}", {"rate": 2.0}),
        ("Trip{scan: input.scan + b'\\x01'}", {"scan": "/wAB"}),
        ("Trip{gift: !input.gift || input.people > 1}", {"gift": True}),
        ("Trip{class: Class.FIRST}", {"class": "FIRST"}),
        ("Trip{class: travel.v1.Class.FIRST}", {"class": "FIRST"}),
        ("Trip{class: input.class == Class.ANY ? Class.FIRST : input.class}", {"class": "FIRST"}),
        ("Trip{first: input.legs[1]}", {"first": {"from": "B", "to": "C", "cents": "20"}}),
        ("Trip{tags: input.legs.map(l, l.to)}", {"tags": ["B", "C"]}),
        ("Trip{legs: input.legs.filter(l, l.cents > 10)}", {"legs": [{"from": "B", "to": "C", "cents": "20"}]}),
        ("Trip{legs: input.legs.map(l, Leg{to: l.from}) + [Leg{}]}", {"legs": [{"to": "A"}, {"to": "B"}, {}]}),
        ("Trip{codes: input.codes.map(c, c > 3, c * 2)}", {"codes": ["8"]}),
        ("Trip{gift: input.tags.exists(t, t == 'y') && 'x' in input.tags && size(input.tags) == 2}", {"gift": True}),
        ("Trip{prices: input.prices}", {"prices": {"a": "1", "b": "2"}}),
        ("Trip{prices: {input.name: input.prices['a'], 'c': input.prices.b}}", {"prices": {"Rome": "1", "c": "2"}}),
        ("Trip{codes: input.by_day.map(day, day)}", {"codes": ["1"]}),
        ("Trip{by_day: {7: input.by_day[1]}}", {"by_day": {"7": {"to": "D"}}}),
        ("Trip{note: 'x', card: 'y'}", {"note": "x", "card": "y"}),
        ("Trip{card: input.card, title: null}", {"card": "visa"}),
        ("Trip{tags: ['a'].filter(hotel, hotel == 'a')}", {"tags": ["a"]}),
        ("Trip{gift: has(input.card) && !has(input.cash) && !has(input.note) && !has(input.first)}", {"gift": True}),
        ("Trip{begin: input.begin, stay: input.stay}", {"begin": "2023-11-14T22:13:20.123456789Z", "stay": "-1.000000001s"}),
        ("Trip{begin: input.begin + duration('1h')}", {"begin": "2023-11-14T23:13:20.123456789Z"}),
        ("Trip{people: input.begin.getFullYear(), cents: input.begin.getHours('Europe/Berlin')}", {"people": 2023, "cents": "23"}),
        ("Trip{name: string(input.begin)}", {"name": "2023-11-14T22:13:20.123456789Z"}),
        ("Trip{title: input.title, limit: 5}", {"title": "Dr", "limit": "5"}),
        ("Trip{title: null, limit: input.limit}", {}),
        ("Trip{people: has(input.limit) ? 1 : 2, name: has(input.title) ? input.title : ''}", {"people": 2, "name": "Dr"}),
        ("Trip{gift: input.limit == null}", {"gift": True}),
        ("Trip{gift: input.extra.flag == true, rate: double(input.extra.list[0])}", {"gift": True, "rate": 1.0}),
        ("Trip{extra: {'a': [1, 'b', null, {'c': 2.5}]}}", {"extra": {"a": [1.0, "b", None, {"c": 2.5}]}}),
        ("Trip{any_value: input.any_value, list: input.tags}", {"any_value": 4.0, "list": ["x", "y"]}),
        ("Trip{name: input.packed.to}", {"name": "E"}),
        ("Trip{packed: Leg{to: 'F'}}.packed == Leg{to: 'F'} ? Trip{name: 'same'} : Trip{}", {"name": "same"}),
        ("Trip{inner: input}.inner.first.to == '' ? Trip{} : input", {}),
        ("Trip{name: hotel.code, gift: ran.hotel}", {"name": "H1", "gift": True}),
        ("Trip{people: strict.count}", {"people": 7}),
        ("input.people > 1 ? Trip{name: 'many'} : Trip{name: 'one'} // a remark", {"name": "many"}),
        ("Trip{\n  name: 'on',\n  people: 2\n}", {"name": "on", "people": 2}),
    ],
)
def test_message_is_built_from_values_of_every_kind(text: str, expected: object) -> None:
    strict = made("old.v1.Strict", code="x").SerializeToString()
    found = evaluated(text, TRIP, trip(), hotel=made("Booked", code="H1"), ran=True, strict=strict)
    assert shown(found) == expected


@pytest.mark.parametrize(
    ("text", "type_name", "expected"),
    [
        ("input.begin", "Timestamp", "2023-11-14T22:13:20.123456789Z"),  # to the nanosecond
        ("input.stay", "Duration", "-1.000000001s"),
        ("duration('1.5s')", "Duration", "1.500s"),
        ("input.name", "StringValue", "Rome"),
        ("input.title", "StringValue", "Dr"),
        ("input.people", "Int32Value", 2),
        ("input.cents", "Int64Value", "90000"),
        ("input.rooms", "UInt32Value", 1),
        ("input.big", "UInt64Value", str(2**64 - 1)),
        ("input.rate", "DoubleValue", 1.5),
        ("input.rate", "FloatValue", 1.5),
        ("input.scan", "BytesValue", "/wA="),
        ("input.gift", "BoolValue", True),
        ("input.extra", "Struct", {"flag": True, "list": [1.0, "two"]}),
        ("{'a': input.people}", "Struct", {"a": 2.0}),
        ("input.tags", "ListValue", ["x", "y"]),
        ("input.any_value", "Value", 4.0),
        ("input.name", "Value", "Rome"),
        ("google.protobuf.Empty{}", "Empty", {}),
        ("Leg{to: 'x'}", "Any", {"@type": "type.googleapis.com/travel.v1.Leg", "to": "x"}),
    ],
)
def test_well_known_message_can_be_the_result(text: str, type_name: str, expected: object) -> None:
    found = evaluated(text, f"google.protobuf.{type_name}", trip())
    assert MessageToDict(found, descriptor_pool=travel_types().pool) == expected


@pytest.mark.parametrize(
    ("type_name", "text"),
    [
        ("Timestamp", "Trip{begin: input}"),
        ("Duration", "Trip{stay: input}"),
        ("StringValue", "Trip{name: input}"),
        ("Int64Value", "Trip{cents: input}"),
        ("BoolValue", "Trip{gift: input}"),
        ("Struct", "Trip{extra: input}"),
        ("Value", "Trip{any_value: input}"),
        ("ListValue", "Trip{list: input}"),
        ("Empty", "Trip{gift: input == google.protobuf.Empty{}}"),
    ],
)
def test_well_known_message_can_be_the_input(type_name: str, text: str) -> None:
    program = compiled(text, TRIP, {"input": f"google.protobuf.{type_name}"})
    assert travel_types().get(TRIP).FromString(program.evaluate({"input": b""})) is not None


def test_result_is_the_same_bytes_each_time() -> None:
    names = [f"k{number}" for number in (7, 3, 9, 1, 8, 2, 6, 4, 5, 0)]
    entries = ", ".join(f"'{name}': 1" for name in names)
    program = compiled(f"Trip{{prices: {{{entries}}}}}", TRIP)
    sorted_ = made("Trip", prices=dict.fromkeys(names, 1)).SerializeToString(deterministic=True)
    assert program.evaluate({}) == sorted_


def test_only_what_is_referred_to_is_read() -> None:
    program = compiled("Trip{name: hotel.code}", TRIP)
    assert program.variables == ("hotel",)
    assert program.evaluate(values_of(b"\xff\xff", hotel=made("Booked", code="x"))) == b"\x0a\x01x"


def test_name_of_a_loop_hides_a_variable() -> None:
    assert compiled("['a'].exists(hotel, hotel == input.name)", BOOL).variables == ("input",)
    assert compiled("[hotel.code].exists(hotel, hotel == '')", BOOL).variables == ("hotel",)
    assert shown(evaluated("Trip{tags: ['a'].map(hotel, hotel)}", TRIP)) == {"tags": ["a"]}


def test_types_are_not_those_of_the_process() -> None:
    compiled("Trip{}", TRIP)
    with pytest.raises(KeyError):
        Default().FindMessageTypeByName(TRIP)


def test_condition_decides() -> None:
    condition = compiled("input.people > 1 && !ran.hotel", BOOL)
    assert condition.decide(values_of(trip())) is True
    assert condition.decide(values_of(trip(), ran=True)) is False


# ── Failures at run time ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Trip{people: 1 / (input.people - 2)}", "divide by zero"),
        ("Trip{people: 1 % (input.people - 2)}", "modulus by zero"),
        ("Trip{cents: input.cents + 9223372036854775807}", "integer overflow"),
        ("Trip{people: input.cents * 1000000}", "int64 to int32 overflow"),
        ("Trip{rooms: input.rooms - 2u}", "unsigned integer overflow"),
        ("Trip{cents: int(input.rate * 1e300)}", "double out of int64 range"),
        ("Trip{cents: int(input.name)}", "cannot convert string to int"),
        ("Trip{begin: timestamp(input.name)}", "String to Timestamp conversion failed"),
        ("Trip{stay: duration(input.name)}", "String to Duration conversion failed"),
        ("Trip{begin: input.begin + duration('87000000h')}", "timestamp overflow"),
        ("Trip{name: string(input.scan)}", "malformed UTF-8"),
        ("Trip{cents: input.prices['z']}", 'the map has no key "z"; ask first, with: "z" in the map'),
        ("Trip{cents: input.prices.z}", 'the map has no key "z"'),
        ("Trip{first: input.by_day[9]}", "the map has no key 9"),
        ("Trip{first: input.legs[5]}", "the list has no element 5, its size is 2; ask for size(…) first"),
        ("Trip{first: input.legs[input.people - 3]}", "the list has no element -1, its size is 2"),
        ("Trip{cents: input.limit}", "expected a value of type int, found null; ask first with has(…)"),
        ("Trip{cents: input.limit + 1}", "a value is null; a field of google.protobuf.StringValue and its like is null until it is set"),
        ("Trip{name: input.extra.nothing}", 'the map has no key "nothing"'),
        ("Trip{name: input.extra.flag}", "conversion error from 'bool' to 'string'"),
        ("Trip{people: input.extra.flag + 1}", "No matching overloads"),
        ("Trip{name: input.extra.flag.deeper}", "Applying SELECT to non-message type"),
        ("Trip{class: input.cents * 1000000}", "conversion error from 'int' to 'travel.v1.Class'"),
        ("Trip{tags: [input.name, input.any_value]}", "conversion error from 'double' to 'string'"),
        ("Trip{prices: {input.name: 1, 'Rome': 2}}", "duplicate key in map"),
        ("Trip{name: input.inner.packed.to}", "the google.protobuf.Any holds a type that did not come with the definition: no type"),
    ],
)
def test_failure_names_the_expression_and_the_reason(text: str, told: str) -> None:
    program = compiled(text, TRIP)
    with pytest.raises(EvaluationError) as caught:
        program.evaluate(values_of(trip()))
    assert str(caught.value).startswith(f"expression {text!r} failed: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("input.cents / (input.people - 2) > 1", "divide by zero"),
        ("input.extra.flag + 1 == 2", "No matching overloads"),
        ("input.legs.exists(l, l.cents / (l.cents - l.cents) > 1)", "divide by zero"),
    ],
)
def test_condition_that_fails_is_neither_true_nor_false(text: str, told: str) -> None:
    with pytest.raises(EvaluationError, match=told):
        compiled(text, BOOL).decide(values_of(trip()))


@pytest.mark.parametrize(("text", "type_name"), [("input.limit", "Int64Value"), ("input.title", "StringValue")])
def test_null_is_no_wrapper_message(text: str, type_name: str) -> None:
    with pytest.raises(EvaluationError, match=f"expected a google.protobuf.{type_name}, found null"):
        compiled(text, f"google.protobuf.{type_name}").evaluate(values_of())


def test_required_field_that_is_missing_is_told() -> None:
    with pytest.raises(EvaluationError, match=r"the result is no complete old\.v1\.Strict: .*code"):
        compiled("old.v1.Strict{count: 1}", "old.v1.Strict").evaluate({})


def test_input_that_cannot_be_decoded_is_told() -> None:
    with pytest.raises(EvaluationError, match="failed: Error parsing message"):
        compiled("Trip{name: input.name}", TRIP).evaluate(values_of(b"\xff\xff"))


def test_result_that_is_too_large_is_told() -> None:
    large = made("Trip", name="x" * (RESULT_BYTES_MAX // 2))
    with pytest.raises(EvaluationError, match=f"expected a result of at most {RESULT_BYTES_MAX} bytes, found {RESULT_BYTES_MAX + 4}"):
        compiled("Trip{name: input.name + input.name}", TRIP).evaluate(values_of(large))


def test_long_expression_is_cut_in_its_failure() -> None:
    with pytest.raises(EvaluationError) as caught:
        compiled(f"Trip{{people: 1 / input.people, name: '{'x' * 3_000}'}}", TRIP).evaluate(values_of())
    assert len(str(caught.value)) < 300
