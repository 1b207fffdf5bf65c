"""Tests in three words: given a saga and its participants, when it starts with this, then it ended so.

    given(place_order, Inventory(barrier=MemoryBarrier()), stub(Payments.charge).rejects("CARD_DECLINED")).when(
        PlaceOrder(sku="widget")
    ).then_compensated(because="CARD_DECLINED").then_called("reserve", "charge", "undo reserve")

Each `when` lives through a world of its own, from the start of its coordinator to its end, and is called from a plain `def` test.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar, Unpack

from participant_sdk.client.starting import StartOptions
from participant_sdk.payloads import Payload
from participant_sdk.testing.errors import KitError
from participant_sdk.testing.faults import CallFault, Fault, Mishap, Refusal
from participant_sdk.testing.kit import SagaKit
from participant_sdk.testing.plans import Plan
from participant_sdk.testing.saga_run import SagaRun
from participant_sdk.testing.serving import Part
from participant_sdk.testing.virtual_time import run_in_virtual_time

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Given:
    """A saga with its participants, and what is to go wrong. Made by `given`."""

    plan: Plan
    parts: tuple[Part, ...]
    faults: tuple[Fault, ...] = ()

    def mishap(self, step_id: str, mishap: Mishap, *, attempt: int = 1, undo: bool = False) -> Self:
        """Something happens to an attempt of a step, or of what undoes it."""
        return replace(self, faults=(*self.faults, CallFault(step_id, undo, attempt, mishap)))

    def refusal(self, step_id: str) -> Self:
        """The participant refuses that step, whatever its code would say."""
        return replace(self, faults=(*self.faults, Refusal(step_id)))

    def when(self, message: Payload, **options: Unpack[StartOptions]) -> SagaRun:
        """The saga starts with that, and goes on until it is at rest: ended, or in need of a person.

        Raises SagaStandstillError if nothing would ever move it, KitError in an `async def` test.
        """

        async def live() -> SagaRun:
            async with SagaKit(*self.parts, faults=self.faults) as kit:
                return await kit.run(self.plan, message, **options)

        return live_through(live())


def given(plan: Plan, *parts: Part, faults: Iterable[Fault] = ()) -> Given:
    """A saga with what serves it: participants, stubs, or functions that make them. A participant that keeps something, as a barrier does,
    belongs to one `when`: where there are several, give a function that makes it.
    """
    return Given(plan, parts, tuple(faults))


def live_through(world: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Runs a world to its end. Raises KitError where an event loop runs already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run_in_virtual_time(world)
    world.close()
    raise KitError("this lives through a world of its own: call it from a plain `def` test; an `async def` test uses the fixture saga_kit")
