"""The steps that a saga reached by a fact, and what follows for them (R3)."""

from typing import assert_never

from coordinator.codec.events.parts import checked_step
from coordinator.codec.values import failure_of, fill_any, fill_status, payload_of
from coordinator.core.events import Reached, StepDue, StepLeftOut, StepUnfit
from saga.v1 import saga_pb2


def fill_reached(message: saga_pb2.Event, reached: tuple[Reached, ...]) -> None:
    """Writes them in their order. Asked by type and not matched by pattern, which took half as long again (1.4 against 0.9 µs)."""
    for one in reached:
        filled = message.reached.add()
        filled.step_id = checked_step(one.step_id)
        if isinstance(one, StepDue):
            if one.input is None:
                filled.input_copied.SetInParent()
            else:
                fill_any(filled.input, one.input)
        elif isinstance(one, StepLeftOut):
            filled.left_out.SetInParent()
        else:
            fill_status(filled.error, one.failure)


def reached_of(message: saga_pb2.Event) -> tuple[Reached, ...]:
    """Those of an event, in order. Raises ValueError if one names no step, or says nothing that this version knows."""
    return tuple(map(_one_of, message.reached)) if message.reached else ()


def _one_of(message: saga_pb2.StepReached) -> Reached:
    step_id = checked_step(message.step_id)
    match message.WhichOneof("consequence"):
        case "input":
            return StepDue(step_id, payload_of(message.input))
        case "input_copied":
            return StepDue(step_id, None)
        case "left_out":
            return StepLeftOut(step_id)
        case "error":
            return StepUnfit(step_id, failure_of(message.error))
        case None:
            raise ValueError(f"step {step_id} is reached without a consequence that this version knows; was it written by a newer one?")
        case name:
            assert_never(name)
