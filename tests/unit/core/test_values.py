"""The words of the core are those of the wire contract: one numbering, not two tables of one mapping."""

from collections.abc import Mapping
from enum import IntEnum

import pytest
from google.rpc import code_pb2

from coordinator.core.events import Fact
from coordinator.core.transitions import SAGA_TRANSITIONS, STEP_TRANSITIONS
from coordinator.core.values import (
    ENDED,
    UNFINISHED,
    AttemptOutcome,
    Code,
    Direction,
    IncidentKind,
    SagaId,
    SagaStatus,
    StepId,
    StepKind,
    StepStatus,
    TurnBackCause,
    idempotency_key,
)
from saga.v1 import saga_pb2

PAIRS: list[tuple[type[IntEnum], Mapping[str, int], str]] = [
    (SagaStatus, dict(saga_pb2.SagaStatus.items()), "SAGA_STATUS_"),
    (StepStatus, dict(saga_pb2.StepStatus.items()), "STEP_STATUS_"),
    (StepKind, dict(saga_pb2.StepKind.items()), "STEP_KIND_"),
    (Direction, dict(saga_pb2.Direction.items()), "DIRECTION_"),
    (AttemptOutcome, dict(saga_pb2.AttemptOutcome.items()), "ATTEMPT_OUTCOME_"),
    (TurnBackCause, dict(saga_pb2.TurnBackCause.items()), "TURN_BACK_CAUSE_"),
    (IncidentKind, dict(saga_pb2.IncidentKind.items()), "INCIDENT_KIND_"),
]


@pytest.mark.parametrize(("ours", "theirs", "prefix"), PAIRS, ids=lambda part: getattr(part, "__name__", ""))
def test_enum_has_the_numbers_of_the_wire_contract(ours: type[IntEnum], theirs: Mapping[str, int], prefix: str) -> None:
    on_the_wire = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
    assert {member.name: member.value for member in ours} == on_the_wire


def test_codes_are_those_of_grpc() -> None:
    assert {code.name: code.value for code in Code}.items() <= dict(code_pb2.Code.items()).items()


def test_every_status_is_pending_running_compensating_ended_or_failed() -> None:  # R15
    assert ENDED | UNFINISHED | {SagaStatus.FAILED} == set(SagaStatus)
    assert not ENDED & UNFINISHED


def test_nothing_leaves_an_end() -> None:
    assert not ENDED & {before for before, _ in SAGA_TRANSITIONS}
    facts: set[type[Fact]] = {fact for status, fact in STEP_TRANSITIONS if status in (StepStatus.COMPENSATED, StepStatus.REJECTED)}
    assert facts == set()


def test_idempotency_key_names_saga_step_direction_and_round() -> None:  # R1
    assert idempotency_key(SagaId("s"), StepId("charge"), Direction.COMPENSATE, 2) == "s/charge/compensate/2"
