"""Following one saga until something has happened to it."""

from contextlib import aclosing
from datetime import timedelta
from typing import Final

from participant_sdk import SagaHandle
from saga.v1 import saga_pb2

FOLLOWED_FOR: Final = timedelta(seconds=60)
"""How long anything that is waited for may take."""


async def until(handle: SagaHandle, fact: str, *, step_id: str = "", count: int = 1) -> saga_pb2.Event:
    """Waits for the event of that kind, or the last of `count`, and returns it; of one step, if it is named."""
    found = 0
    async with aclosing(handle.watch(timeout=FOLLOWED_FOR)) as events:
        async for response in events:
            if response.event.WhichOneof("fact") == fact and step_id in ("", _step_of(response.event)):
                found += 1
                if found == count:
                    return response.event
    raise AssertionError(f"the saga ended with {found} events {fact} of {step_id or 'any step'}, expected {count}")


def statuses(saga: saga_pb2.Saga) -> dict[str, str]:
    """How each step stands, without the prefix."""
    return {step.id: saga_pb2.StepStatus.Name(step.status).removeprefix("STEP_STATUS_") for step in saga.steps}


def _step_of(event: saga_pb2.Event) -> str:
    fact = getattr(event, event.WhichOneof("fact") or "")
    attempt = getattr(fact, "attempt", None)
    return str(getattr(fact, "step_id", "") or getattr(attempt, "step_id", ""))
