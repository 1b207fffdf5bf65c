"""Expressions read the fields of dataclasses and models, and make values of them, as they do with any message."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from participant_sdk import Participant, Rejected, Saga, StepContext, action
from participant_sdk.payloads import WireField, payload
from participant_sdk.testing import MemoryBarrier, SagaKit


class Payment(StrEnum):
    CARD = "card"
    INVOICE = "invoice"


@payload("payloads.v1.Item")
@dataclass(frozen=True)
class Item:
    sku: str
    quantity: int = 1


@payload("payloads.v1.Order")
@dataclass(frozen=True)
class Order:
    customer: str
    items: list[Item]
    payment: Payment
    wanted_by: datetime
    patience: timedelta
    price: Decimal = Decimal(0)
    coupon: str | None = None
    tags: dict[str, int] = field(default_factory=dict)
    weight: float = 0.5
    gift: bool = False
    renamed: Annotated[int, WireField(name="was_called")] = 4


@payload("payloads.v1.Reserve")
class Reserve(BaseModel):
    sku: str
    quantity: int
    note: str = ""


@payload("payloads.v1.Reserved")
class Reserved(BaseModel):
    reservation: str
    remaining: int = 0


class Inventory(Participant, name="inventory"):
    @action
    async def reserve(self, request: Reserve, step: StepContext) -> Reserved:
        if request.quantity > 10:
            raise Rejected("OUT_OF_STOCK")
        return Reserved(reservation=f"{request.sku}/{request.quantity}/{request.note}", remaining=10 - request.quantity)

    @reserve.compensation
    async def release(self, request: Reserve, reserved: Reserved, step: StepContext) -> None:
        assert isinstance(reserved, Reserved)


ITEMS = [Item("bell"), Item("bicycle", 2)]
ORDER = Order("ann", ITEMS, Payment.CARD, datetime(2026, 11, 30, tzinfo=UTC), timedelta(hours=2), tags={"x": 3})


def saga(expression: str, **options: Any) -> Saga[Any]:
    order = Saga("order", input=Order)
    reserved = order.step(Inventory.reserve, expression, **options)
    order.returns(reserved)
    return order


@pytest.mark.parametrize(
    ("expression", "answered"),
    [
        ("Reserve{sku: input.items[1].sku, quantity: input.items[1].quantity}", "bicycle/2/"),
        ("Reserve{sku: input.customer, quantity: size(input.items)}", "ann/2/"),
        ('Reserve{sku: "a", quantity: input.tags["x"], note: input.payment}', "a/3/card"),
        ('Reserve{sku: "a", quantity: input.was_called, note: has(input.coupon) ? input.coupon : "none"}', "a/4/none"),
        ('Reserve{sku: "a", quantity: int(input.weight * 4.0), note: string(input.gift)}', "a/2/false"),
        ('Reserve{sku: "a", quantity: 1, note: string(input.wanted_by + input.patience)}', "a/1/2026-11-30T02:00:00Z"),
    ],
)
async def test_expression_reads_every_kind_of_field(saga_kit: SagaKit, expression: str, answered: str) -> None:
    saga_kit.serve(Inventory(barrier=MemoryBarrier()))
    run = await saga_kit.run(saga(expression), ORDER)
    run.then_completed()
    assert run.output(Reserved).reservation == answered
