"""Law: whatever a dataclass or a model holds comes out as it went in, and equal values are equal bytes, whatever the class looks like."""

from dataclasses import make_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import create_model

from participant_sdk.payloads import payload, payload_type
from participant_sdk.payloads.codecs import DURATION_MAX, INT64_MAX, INT64_MIN


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


INNER = payload("laws.v1.Inner")(make_dataclass("Inner", [("text", str), ("number", int)], frozen=True))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(INT64_MIN, INT64_MAX)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: numbers,
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=8),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    UUID: st.uuids(),
    date: st.dates(),
    time: st.times(),
    datetime: st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds
    timedelta: st.timedeltas(-DURATION_MAX, DURATION_MAX),
    Colour: st.sampled_from(Colour),
    Size: st.sampled_from(Size),
    INNER: st.builds(INNER, texts, numbers),
}
KEYS: dict[Any, st.SearchStrategy[Any]] = {str: texts, int: numbers, bool: st.booleans(), Colour: st.sampled_from(Colour)}


def of(generic: Any, argument: Any) -> Any:
    """An annotation that is put together."""
    return generic[argument]


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[Any, Any]:
    """An annotation, and a value of it."""
    kind = draw(st.sampled_from(list(SCALARS)))
    one = SCALARS[kind]
    match draw(st.integers(0, 5)):
        case 0:
            return kind | None, draw(st.none() | one)
        case 1:
            return of(list, kind), draw(st.lists(one, max_size=3))
        case 2:
            return of(tuple, (kind, ...)), tuple(draw(st.lists(one, max_size=3)))
        case 3:
            return of(frozenset, kind), draw(st.frozensets(one, max_size=3))
        case 4:
            key = draw(st.sampled_from(list(KEYS)))
            return of(dict, (key, kind)), draw(st.dictionaries(KEYS[key], one, max_size=3))
        case _:
            return kind, draw(one)


fields = st.dictionaries(st.from_regex(r"[a-z]{1,2}[0-9]", fullmatch=True), typed_values(), max_size=6)


@pytest.mark.property
@given(fields, st.booleans())
def test_value_comes_out_as_it_went_in_and_equal_values_are_equal_bytes(fields: dict[str, tuple[Any, Any]], is_model: bool) -> None:
    values = {name: value for name, (_, value) in fields.items()}
    if is_model:
        made: Any = create_model("Made", __module__=__name__, **{name: (annotation, ...) for name, (annotation, _) in fields.items()})  # type: ignore[call-overload]
    else:
        made = make_dataclass("Made", [(name, annotation) for name, (annotation, _) in fields.items()])
    kind = payload_type(payload("laws.v1.Made")(made))
    packed = kind.pack(made(**values))
    assert kind.unpack(packed) == made(**values)
    again = {name: type(value)(reversed(list(value))) if isinstance(value, frozenset) else value for name, value in values.items()}
    assert kind.pack(made(**again)) == packed


@pytest.mark.property
@given(fields, st.data())
def test_fields_that_are_added_removed_and_moved_disturb_no_other(fields: dict[str, tuple[Any, Any]], data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.sampled_from(sorted(fields)), unique=True)) if fields else []
    writer = payload("laws.v1.Made")(make_dataclass("Made", [(name, annotation) for name, (annotation, _) in fields.items()]))
    reader = payload("laws.v1.Made")(make_dataclass("Made", [*((name, fields[name][0]) for name in kept), ("added", int, 7)]))
    packed = payload_type(writer).pack(writer(**{name: value for name, (_, value) in fields.items()}))
    found: Any = payload_type(reader).unpack(packed)
    assert found == reader(**{name: fields[name][1] for name in kept})
