"""Explanations, and how calls to participants are getting on, as the API shows them."""

from typing import Final

from coordinator.codec.sagas import person_message
from coordinator.codec.values import to_status, to_timestamp
from coordinator.core.explanation import Explanation, Wait
from coordinator.engine.ports import Circuit, ParticipantStanding
from coordinator.engine.shards import NodeStanding
from saga.v1 import operator_pb2, saga_pb2

_CIRCUITS: Final = {
    Circuit.CLOSED: operator_pb2.CIRCUIT_STATE_CLOSED,
    Circuit.OPEN: operator_pb2.CIRCUIT_STATE_OPEN,
    Circuit.HALF_OPEN: operator_pb2.CIRCUIT_STATE_HALF_OPEN,
}


def explanation_message(saga: saga_pb2.Saga, explanation: Explanation) -> operator_pb2.ExplainSagaResponse:
    """Why a saga stands where it stands."""
    return operator_pb2.ExplainSagaResponse(
        saga=saga,
        summary=explanation.summary,
        waits=[_wait_message(wait) for wait in explanation.waits],
        next=explanation.next,
        next_at=None if explanation.next_at is None else to_timestamp(explanation.next_at),
        choices=explanation.choices,
    )


def standing_message(standing: ParticipantStanding) -> operator_pb2.ParticipantStanding:
    """How the calls to one participant are getting on."""
    return operator_pb2.ParticipantStanding(
        name=standing.name,
        targets=standing.targets,
        under_way=standing.under_way,
        waiting=standing.waiting,
        concurrency=standing.concurrency,
        rate_per_second=standing.rate_per_second,
        circuit=_CIRCUITS[standing.circuit],
        open_until=None if standing.open_until is None else to_timestamp(standing.open_until),
        last_error=None if standing.last_failure is None else to_status(standing.last_failure),
    )


def node_message(node: NodeStanding) -> operator_pb2.Node:
    """A coordinator that takes part in a database."""
    return operator_pb2.Node(
        id=node.id,
        address=node.address,
        host=node.host,
        pid=node.pid,
        started_at=None if node.started_at is None else to_timestamp(node.started_at),
        alive=node.is_alive,
        cordoned=node.is_cordoned,
        shards=node.shards,
        answering=node.is_here,
    )


def _wait_message(wait: Wait) -> operator_pb2.WaitExplanation:
    return operator_pb2.WaitExplanation(
        reason=operator_pb2.WaitReason.ValueType(wait.reason),
        step_id=wait.step_id or "",
        description=wait.description,
        until=None if wait.until is None else to_timestamp(wait.until),
        error=None if wait.failure is None else to_status(wait.failure),
        participant=wait.participant,
        incident_id=wait.incident_id or 0,
        person=None if wait.person is None else person_message(wait.person),
    )
