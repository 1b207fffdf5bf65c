"""Two versions of a class understand each other as far as they can, and never misread each other."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from pydantic import BaseModel, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from participant_sdk.payloads import PayloadDecodeError, WireField, payload, payload_type

named = payload("orders.v1.Charge")


@named
@dataclass
class First:
    order_id: str
    amount: int
    note: str = ""


@named
@dataclass
class Reordered:
    note: str
    amount: int
    order_id: str


@named
@dataclass
class Added:
    order_id: str
    amount: int
    currency: str = "EUR"
    discount: int | None = None


@named
@dataclass
class AddedWithoutDefault:
    order_id: str
    amount: int
    currency: str


@named
@dataclass
class Renamed:
    order: Annotated[str, WireField(name="order_id")]
    cents: Annotated[int, WireField(name="amount")]


@named
@dataclass
class Retyped:
    order_id: str
    amount: Decimal = Decimal(0)


@named
@dataclass
class RetypedBool:
    order_id: str
    amount: bool = False


@named
class Model(BaseModel):
    amount: int
    order_id: str


@named
@pydantic_dataclass
class ModelDataclass:
    order_id: str = Field(min_length=1)
    amount: int = Field(default=3)
    notes: list[str] = Field(default_factory=list)


def carried(value: object, to: type[Any]) -> Any:
    packed: PackedAny = payload_type(type(value)).pack(value)
    return payload_type(to).unpack(packed)


FIRST = First("order-1", 7, "be quick")


def test_order_of_fields_does_not_matter() -> None:
    assert carried(FIRST, Reordered) == Reordered("be quick", 7, "order-1")
    assert carried(Reordered("be quick", 7, "order-1"), First) == FIRST


def test_added_field_has_its_default_in_what_was_written_before_and_is_ignored_by_older_code() -> None:
    assert carried(FIRST, Added) == Added("order-1", 7, "EUR", None)
    assert carried(Added("order-1", 7, "CHF", 3), First) == First("order-1", 7)


def test_added_field_without_a_default_is_told_to_be_missing() -> None:
    with pytest.raises(PayloadDecodeError, match=r"orders\.v1\.Charge\.currency is missing: .*give the field a default"):
        carried(FIRST, AddedWithoutDefault)


def test_renamed_field_keeps_its_name_on_the_wire() -> None:
    assert carried(FIRST, Renamed) == Renamed("order-1", 7)
    assert carried(Renamed("order-1", 7), First) == First("order-1", 7)


def test_field_of_another_type_is_another_field_and_is_never_misread() -> None:
    assert carried(FIRST, Retyped) == Retyped("order-1", Decimal(0))
    assert carried(First("order-1", 1), RetypedBool) == RetypedBool("order-1", False)
    with pytest.raises(PayloadDecodeError, match="amount is missing"):
        carried(Retyped("order-1", Decimal(7)), First)


def test_dataclass_and_model_with_the_same_fields_are_the_same_on_the_wire() -> None:
    assert carried(First("order-1", 7), Model) == Model(order_id="order-1", amount=7)
    assert carried(Model(order_id="order-1", amount=7), First) == First("order-1", 7)


def test_dataclass_of_pydantic_has_the_defaults_and_the_checks_that_its_fields_say() -> None:
    assert carried(First("order-1", 7), ModelDataclass) == ModelDataclass(order_id="order-1", amount=7)
    assert carried(Retyped("order-1", Decimal(7)), ModelDataclass) == ModelDataclass(order_id="order-1", amount=3)
    with pytest.raises(PayloadDecodeError, match="at least 1 character"):
        carried(First("", 7), ModelDataclass)


def test_numbers_stay_what_they_are() -> None:
    """They are part of what is stored in journals and barriers: a release that changes them cannot read what was written before."""
    found = {field.name: field.number for field in payload_type(First).descriptor.fields}
    assert found == {"order_id": 126922, "amount": 143680, "note": 226949}
