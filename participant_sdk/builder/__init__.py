"""Sagas as typed Python: built without a server, checked by mypy while typing and by `definition()` before anything is sent.

    place_order = Saga("place-order", input=PlaceOrder, output=PaymentCharged)
    reserved = place_order.step(Inventory.reserve, "ReserveStock{sku: input.sku, quantity: input.quantity}")
    charged = place_order.step(Payments.charge, "ChargeCard{amount_cents: reserve.total_cents}", kind=StepKind.PIVOT)
    place_order.step(Shipping.label, reserved, after=[reserved, charged], kind=StepKind.RETRIABLE)
    place_order.returns(charged)

A type checker refuses a source whose message type is not the one that the action takes, and knows what the saga returns. Expressions are
texts: they are compiled by `definition()` if the extra `definitions` is installed, and by the coordinator in any case.
"""

from participant_sdk.builder.errors import DefinitionError
from participant_sdk.builder.hooks import Hook, HookOptions
from participant_sdk.builder.places import describe_place, describe_problem
from participant_sdk.builder.saga import Saga
from participant_sdk.builder.sources import Origin, Source, Step, StepHandle
from participant_sdk.builder.steps import StepOptions, TextStepOptions

__all__ = [
    "DefinitionError",
    "Hook",
    "HookOptions",
    "Origin",
    "Saga",
    "Source",
    "Step",
    "StepHandle",
    "StepOptions",
    "TextStepOptions",
    "describe_place",
    "describe_problem",
]
