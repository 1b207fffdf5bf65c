"""Every name that traces and logs are searched by. Nowhere else is one spelled out.

Where OpenTelemetry has a name for something (`rpc.*`, `error.type`), it is that one; everything of our own begins with `saga.`.
"""

from typing import Final

from coordinator.core.values import Direction

SERVICE_NAME: Final = "saga-coordinator"
"""What the coordinator calls itself unless OTEL_SERVICE_NAME says otherwise."""
SCOPE_NAME: Final = "coordinator.telemetry"

SAGA_ID: Final = "saga.id"
SAGA_STEP: Final = "saga.step"
SAGA_ATTEMPT: Final = "saga.attempt"
"""Number of the attempt within its step and direction, from 1."""
SAGA_ROUND: Final = "saga.round"
SAGA_DIRECTION: Final = "saga.direction"
SAGA_ACTION: Final = "saga.action"
SAGA_DEFINITION_NAME: Final = "saga.definition.name"
SAGA_DEFINITION_VERSION: Final = "saga.definition.version"
SAGA_STATUS: Final = "saga.status"
SAGA_OUTCOME: Final = "saga.outcome"
"""What is known after an attempt: SUCCEEDED, REJECTED, UNKNOWN, ACCEPTED, COMPENSATED, COMPENSATION_FAILED or an AttemptOutcome."""
SAGA_LATE: Final = "saga.late"
"""True on what was said about a step that was settled already; not there otherwise."""
SAGA_ACCEPTED_UNTIL: Final = "saga.accepted_until"
"""Until when a step that was accepted must be completed; RFC 3339, UTC."""
SAGA_HANDLER_RAN: Final = "saga.handler_ran"
SAGA_CAUSE: Final = "saga.turn_back.cause"
SAGA_ACTOR: Final = "saga.actor"
"""Who did it, as that person's program said."""
SAGA_REASON: Final = "saga.reason"
"""Why a person did it, in that person's words."""
SAGA_RESOLUTION: Final = "saga.resolution"
"""What a person said about a step: SUCCEEDED, SKIPPED, REJECTED or COMPENSATED."""
SAGA_INPUT_CHANGED: Final = "saga.input_changed"
"""Whether a step that is tried again has another input than before."""
SAGA_POLICY_CHANGED: Final = "saga.policy_changed"
"""The parts of a step's policy that a person set anew, with commas between."""
SAGA_INCIDENT_ID: Final = "saga.incident.id"
SAGA_INCIDENT_KIND: Final = "saga.incident.kind"
SAGA_IN_DOUBT: Final = "saga.in_doubt"
"""How many attempts may have been under way when a process died."""

RPC_SYSTEM: Final = "rpc.system"
RPC_SYSTEM_GRPC: Final = "grpc"
RPC_SERVICE: Final = "rpc.service"
RPC_SERVICE_PARTICIPANT: Final = "saga.v1.ParticipantService"
RPC_METHOD: Final = "rpc.method"
RPC_METHODS: Final = {Direction.EXECUTE: "Execute", Direction.COMPENSATE: "Compensate"}
ERROR_TYPE: Final = "error.type"
"""Name of the gRPC status code of a failure."""
ERROR_MESSAGE: Final = "error.message"

MOMENT_BEGAN: Final = "saga began"
MOMENT_TURN_BACK_REQUESTED: Final = "turning back requested"
MOMENT_TURNED_BACK: Final = "saga turned back"
MOMENT_RECOVERED: Final = "saga recovered"
MOMENT_PAUSED: Final = "saga paused"
MOMENT_RESUMED: Final = "saga resumed"
MOMENT_TERMINATED: Final = "saga terminated"
MOMENT_INCIDENT: Final = "incident opened"
MOMENT_INCIDENT_CLOSED: Final = "incident closed"
MOMENT_LEFT_OUT: Final = "step left out"
MOMENT_UNFIT: Final = "step cannot be executed"
MOMENT_COMPLETED_EARLY: Final = "step completed early"
MOMENT_LATE: Final = "late outcome"
MOMENT_RETRIED: Final = "step retried"
MOMENT_RESOLVED: Final = "step resolved"
MOMENT_POLICY_CHANGED: Final = "step policy changed"
MOMENT_OUTPUT_RESOLVED: Final = "output resolved"

LOG_TIME: Final = "ts"
LOG_LEVEL: Final = "level"
LOG_LOGGER: Final = "logger"
LOG_MESSAGE: Final = "message"
LOG_EXCEPTION: Final = "exception"
LOG_TRACE_ID: Final = "trace_id"
"""Without a prefix, as log collectors look for it."""
LOG_SPAN_ID: Final = "span_id"
LOGGER_SAGAS: Final = "coordinator.sagas"
"""The logger of what happens to sagas."""

_SPAN_VERBS: Final = {Direction.EXECUTE: "execute", Direction.COMPENSATE: "compensate"}


def saga_span(definition_name: str) -> str:
    """Name of the span of a whole saga. Example: "saga place-order"."""
    return f"saga {definition_name}"


def continuation_span(definition_name: str) -> str:
    """Name of the span of what a saga does after it was FAILED. Example: "continuation of place-order"."""
    return f"continuation of {definition_name}"


def completion_span(action: str) -> str:
    """Name of the span of what a participant does after it accepted a step. Example: "completion of payments.approve"."""
    return f"completion of {action}"


def attempt_span(direction: Direction, action: str) -> str:
    """Name of the span of a call. Example: "execute inventory.reserve"."""
    return f"{_SPAN_VERBS[direction]} {action}"
