"""Facts that are the doing of a person. Each names who it was, and why."""

from collections.abc import Callable
from typing import Any, Final, assert_never

from coordinator.codec.events.parts import checked_round, checked_step, required_output
from coordinator.codec.policies import fill_policy, policy_change_of
from coordinator.codec.values import fill_any, payload_of
from coordinator.core.events import (
    Fact,
    OutputResolved,
    SagaPaused,
    SagaResumed,
    SagaTerminated,
    StepPolicyChanged,
    StepResolved,
    StepRetried,
)
from coordinator.core.inputs import Resolution, ResolvedCompensated, ResolvedRejected, ResolvedSkipped, ResolvedSucceeded
from coordinator.core.values import Direction
from saga.v1 import saga_pb2


def _fill_saga_paused(message: saga_pb2.Event, fact: SagaPaused) -> None:
    filled = message.saga_paused
    filled.SetInParent()
    filled.actor, filled.reason = fact.actor, fact.reason


def _read_saga_paused(message: saga_pb2.Event) -> SagaPaused:
    return SagaPaused(actor=message.saga_paused.actor, reason=message.saga_paused.reason)


def _fill_saga_resumed(message: saga_pb2.Event, fact: SagaResumed) -> None:
    filled = message.saga_resumed
    filled.SetInParent()
    filled.actor, filled.reason = fact.actor, fact.reason


def _read_saga_resumed(message: saga_pb2.Event) -> SagaResumed:
    return SagaResumed(actor=message.saga_resumed.actor, reason=message.saga_resumed.reason)


def _fill_saga_terminated(message: saga_pb2.Event, fact: SagaTerminated) -> None:
    filled = message.saga_terminated
    filled.SetInParent()
    filled.actor, filled.reason = fact.actor, fact.reason


def _read_saga_terminated(message: saga_pb2.Event) -> SagaTerminated:
    return SagaTerminated(actor=message.saga_terminated.actor, reason=message.saga_terminated.reason)


def _fill_step_retried(message: saga_pb2.Event, fact: StepRetried) -> None:
    filled = message.step_retried
    filled.step_id = checked_step(fact.step_id)
    filled.direction = saga_pb2.Direction.ValueType(fact.direction)
    filled.round = checked_round(fact.round)
    if fact.input is not None:
        fill_any(filled.input, fact.input)
    filled.actor, filled.reason = fact.actor, fact.reason


def _read_step_retried(message: saga_pb2.Event) -> StepRetried:
    read = message.step_retried
    return StepRetried(
        step_id=checked_step(read.step_id),
        direction=Direction(read.direction),
        round=checked_round(read.round),
        input=payload_of(read.input) if read.HasField("input") else None,
        actor=read.actor,
        reason=read.reason,
    )


def _fill_step_resolved(message: saga_pb2.Event, fact: StepResolved) -> None:
    filled = message.step_resolved
    filled.step_id = checked_step(fact.step_id)
    match fact.resolution:
        case ResolvedSucceeded(output):
            fill_any(filled.succeeded, output)
        case ResolvedSkipped():
            filled.skipped.SetInParent()
        case ResolvedRejected():
            filled.rejected.SetInParent()
        case ResolvedCompensated():
            filled.compensated.SetInParent()
        case _:
            assert_never(fact.resolution)
    filled.actor, filled.reason = fact.actor, fact.reason


def _read_step_resolved(message: saga_pb2.Event) -> StepResolved:
    read = message.step_resolved
    return StepResolved(step_id=checked_step(read.step_id), resolution=_resolution_of(read), actor=read.actor, reason=read.reason)


def _resolution_of(message: saga_pb2.StepResolved) -> Resolution:
    match message.WhichOneof("resolution"):
        case "succeeded":
            return ResolvedSucceeded(payload_of(message.succeeded))
        case "skipped":
            return ResolvedSkipped()
        case "rejected":
            return ResolvedRejected()
        case "compensated":
            return ResolvedCompensated()
        case None:
            raise ValueError(f"step {message.step_id} is resolved without saying how")
        case name:
            assert_never(name)


def _fill_step_policy_changed(message: saga_pb2.Event, fact: StepPolicyChanged) -> None:
    filled = message.step_policy_changed
    filled.step_id = checked_step(fact.step_id)
    fill_policy(filled.policy, fact.change)
    filled.actor, filled.reason = fact.actor, fact.reason


def _read_step_policy_changed(message: saga_pb2.Event) -> StepPolicyChanged:
    read = message.step_policy_changed
    if not read.HasField("policy"):
        raise ValueError("the changed policy is missing")
    return StepPolicyChanged(step_id=checked_step(read.step_id), change=policy_change_of(read.policy), actor=read.actor, reason=read.reason)


def _fill_output_resolved(message: saga_pb2.Event, fact: OutputResolved) -> None:
    filled = message.output_resolved
    fill_any(filled.output, fact.output)
    filled.actor, filled.reason = fact.actor, fact.reason


def _read_output_resolved(message: saga_pb2.Event) -> OutputResolved:
    read = message.output_resolved
    return OutputResolved(output=required_output(read), actor=read.actor, reason=read.reason)


FILL: Final[dict[type[Fact], Callable[[saga_pb2.Event, Any], None]]] = {
    SagaPaused: _fill_saga_paused,
    SagaResumed: _fill_saga_resumed,
    SagaTerminated: _fill_saga_terminated,
    StepRetried: _fill_step_retried,
    StepResolved: _fill_step_resolved,
    StepPolicyChanged: _fill_step_policy_changed,
    OutputResolved: _fill_output_resolved,
}
READ: Final[dict[str, Callable[[saga_pb2.Event], Fact]]] = {
    "saga_paused": _read_saga_paused,
    "saga_resumed": _read_saga_resumed,
    "saga_terminated": _read_saga_terminated,
    "step_retried": _read_step_retried,
    "step_resolved": _read_step_resolved,
    "step_policy_changed": _read_step_policy_changed,
    "output_resolved": _read_output_resolved,
}
