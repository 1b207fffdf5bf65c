"""What goes in comes out again, for every type that a field may have."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import StringValue
from pydantic import AnyUrl

from participant_sdk.payloads import PayloadDecodeError, PayloadEncodeError, payload, payload_type
from tests.unit.payloads.orders import (
    Everything,
    EverythingModel,
    Label,
    Line,
    LineModel,
    Mixed,
    Priority,
    Sku,
    Status,
    Tree,
)

NOW = datetime(2026, 11, 30, 8, 15, 49, 123456, tzinfo=UTC)
STRUCT = Struct()
STRUCT.update({"a": [1, "b", None]})

EVERYTHING = Everything(
    text="grüß dich", number=-(2**63), amount=0.1, flag=False, raw=b"\0\xff", price=Decimal("10.10"), id=UUID(int=7), day=date(2026, 1, 3),
    at_time=time(8, 1), instant=NOW, lasting=timedelta(days=-3, microseconds=1), status=Status.PAID, priority=Priority.HIGH,
    mixed=Mixed.NUMBER, how="card", level=2, sku=Sku("bicycle"), label=Label("red"), line=Line(Sku("bell"), 0),
    message=StringValue(value="x"), struct=STRUCT, maybe_text="", maybe_line=Line(Sku("bell")), maybe_at=NOW, texts=["", "a"],
    lines=[Line(Sku("a")), Line(Sku("b"), 2)], numbers=(0, 1), names=frozenset({"b", "a"}), line_set=frozenset({Line(Sku("a"))}),
    priorities=(Priority.LOW,), instants=(NOW,), counts={"a": 0, "": 1}, by_id={-1: Line(Sku("a"))}, read_only={"x": Decimal(1)},
    described=0, renamed=1, numbered=2,
)  # fmt: skip

MODEL = EverythingModel(
    text="x", number=2**62, amount=float("inf"), flag=True, raw=b"", price=Decimal("1E+3"), id=UUID(int=7), day=date(2026, 1, 3),
    at_time=time(8), instant=NOW, lasting=timedelta(1), status=Status.OPEN, priority=Priority.LOW, mixed=Mixed.TEXT, how="invoice", level=1,
    sku=Sku("bell"), line=LineModel(sku=Sku("a")), plain_line=Line(Sku("b")), maybe_text=None, maybe_line=LineModel(sku=Sku("c")),
    texts=["a"], lines=[LineModel(sku=Sku("d"))], numbers=(1, 2), names={"x"}, counts={"a": 1}, by_id={1: LineModel(sku=Sku("e"))},
    url=AnyUrl("https://example.com/a?b=c"), address=IPv4Address("127.0.0.1"), somethingElse=4, limited="abc", renamed=9,
)  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        EVERYTHING,
        replace(EVERYTHING, maybe_text=None, maybe_line=None, maybe_at=None, texts=[], lines=[], numbers=(), counts={}, by_id={}),
        MODEL,
        Tree("root", children=[Tree("leaf", parent=Tree("above"))]),
        StringValue(value="as it is"),
    ],
    ids=["dataclass", "dataclass without", "model", "a tree", "message"],
)
def test_value_comes_out_as_it_went_in(value: Any) -> None:
    kind = payload_type(type(value))
    packed = kind.pack(value)
    assert kind.is_in(packed)
    assert kind.unpack(packed) == value
    assert kind.pack(value) == packed


def test_instant_of_another_zone_is_the_same_instant_in_utc() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    kind = payload_type(Everything)
    found = kind.unpack(kind.pack(replace(EVERYTHING, instant=elsewhere)))
    assert found.instant == NOW
    assert found.instant.tzinfo is UTC


def test_equal_sets_are_equal_bytes() -> None:
    names = [f"name-{number}" for number in range(100)]
    kind = payload_type(Everything)
    one, other = (kind.pack(replace(EVERYTHING, names=frozenset(order))) for order in (names, reversed(names)))
    assert one == other


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("text", 1, "orders.v1.Everything.text: expected str, found int"),
        ("text", "\ud800", "orders.v1.Everything.text"),
        ("number", True, "expected int, found bool"),
        ("number", 2**63, "expected a number of 64 bits"),
        ("amount", "1", "expected float, found str"),
        ("flag", 0, "expected bool, found int"),
        ("raw", "x", "expected bytes, found str"),
        ("price", 1.5, "expected Decimal, found float"),
        ("day", NOW, "expected date, found datetime"),
        ("instant", NOW.replace(tzinfo=None), "give it tzinfo=UTC"),
        ("lasting", timedelta.max, "orders.v1.Everything.lasting"),
        ("status", "paid!", "expected Status, found str"),
        ("mixed", "TEXT", "expected Mixed, found str"),
        ("how", "cash", "expected one of 'card', 'invoice', found 'cash'"),
        ("level", True, "expected one of 1, 2, found True"),
        ("line", None, "expected Line, found NoneType"),
        ("line", Line(Sku("a"), quantity="2"), "line: orders.v1.Line.quantity: expected int, found str"),  # type: ignore[arg-type]
        ("message", Struct(), "expected StringValue, found Struct"),
        ("texts", "abc", "expected several values, found str"),
        ("texts", None, "expected several values, found NoneType"),
        ("counts", ["a"], "expected a mapping, found list"),
        ("counts", {1: 1}, "expected str, found int"),
    ],
)
def test_value_of_another_type_is_refused_where_it_stands(field: str, value: object, said: str) -> None:
    with pytest.raises(PayloadEncodeError) as caught:
        payload_type(Everything).pack(replace(EVERYTHING, **{field: value}))  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_bytes_of_something_else_are_refused() -> None:
    kind = payload_type(Line)
    packed = kind.pack(Line(Sku("a")))
    packed.value = b"\xff\xff\xff"
    with pytest.raises(PayloadDecodeError, match=r"expected an encoded orders\.v1\.Line, found 3 other bytes"):
        kind.unpack(packed)


def changed(change: Callable[[Any], None]) -> Any:
    kind = payload_type(Everything)
    packed = kind.pack(EVERYTHING)
    message: Any = GetMessageClass(kind.descriptor).FromString(packed.value)
    change(message)
    packed.value = message.SerializeToString()
    return packed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda message: setattr(message, "status", "lost"), "'lost' is not a valid Status"),
        (lambda message: setattr(message, "mixed", "OTHER"), "expected one of TEXT, NUMBER, found 'OTHER'"),
        (lambda message: setattr(message, "how", "cash"), "expected one of 'card', 'invoice'"),
        (lambda message: setattr(message, "price", "much"), "expected a decimal number, found 'much'"),
        (lambda message: setattr(message, "day", "30.11."), "orders.v1.Everything.day"),
        (lambda message: setattr(message, "id", "x"), "orders.v1.Everything.id"),
        (lambda message: setattr(message.instant, "seconds", 2**40), "orders.v1.Everything.instant"),
        (lambda message: message.ClearField("number"), "orders.v1.Everything.number is missing"),
        (lambda message: message.line.ClearField("sku"), "line: orders.v1.Line.sku is missing"),
    ],
)
def test_what_no_value_can_have_been_is_refused_where_it_stands(change: Callable[[Any], None], said: str) -> None:
    with pytest.raises(PayloadDecodeError) as caught:
        payload_type(Everything).unpack(changed(change))
    assert said in str(caught.value)


@payload("orders.v1.Checked")
@dataclass
class Checked:
    quantity: int

    def __post_init__(self) -> None:
        if self.quantity < 0:
            raise LookupError("nothing has a negative quantity")


def test_value_that_its_own_class_refuses_is_refused() -> None:
    good = Checked(1)
    good.quantity = -1
    packed = payload_type(Checked).pack(good)
    with pytest.raises(PayloadDecodeError, match=r"orders\.v1\.Checked: refused by Checked: nothing has a negative quantity"):
        payload_type(Checked).unpack(packed)
    broken = LineModel.model_construct(sku=Sku("a"), quantity=0)
    with pytest.raises(PayloadDecodeError, match="greater than 0"):
        payload_type(LineModel).unpack(payload_type(LineModel).pack(broken))


def test_empty_value_is_there_only_if_nothing_must_be_given() -> None:
    @payload("orders.v1.Nothing")
    @dataclass
    class Nothing:
        note: str = "none"

    assert payload_type(Nothing).empty() == Nothing()
    assert payload_type(Line).empty() is None
    assert payload_type(StringValue).empty() == StringValue()
