"""What happens to sagas, as log lines: what goes well at DEBUG, turning back and what people do at INFO, where one is needed at WARNING."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from coordinator.core.events import (
    AttemptFailed,
    Event,
    Fact,
    IncidentClosed,
    IncidentOpened,
    LateOutcome,
    OutputResolved,
    Reached,
    SagaBegan,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaPaused,
    SagaRecovered,
    SagaResumed,
    SagaStarted,
    SagaTerminated,
    SagaTurnedBack,
    StepAccepted,
    StepCompensated,
    StepCompensationFailed,
    StepDue,
    StepHeartbeat,
    StepPolicyChanged,
    StepRejected,
    StepResolved,
    StepRetried,
    StepSucceeded,
    StepUnfit,
    StepUnknown,
    TurnBackRequested,
)
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.trace import attempt_span_id, completion_span_id, parse_traceparent
from coordinator.core.values import Instant
from coordinator.engine.ports import Append
from coordinator.telemetry import names
from coordinator.telemetry.attempts import AttemptFact, ending_of, is_completion, step_of
from coordinator.telemetry.descriptions import Fields, describe, failure_fields, step_field

_LEVELS: Final[dict[type[Fact | Reached], int]] = {
    SagaTurnedBack: logging.INFO,
    TurnBackRequested: logging.INFO,
    SagaRecovered: logging.INFO,
    SagaCompensated: logging.INFO,
    StepUnfit: logging.INFO,
    LateOutcome: logging.INFO,
    IncidentClosed: logging.INFO,
    SagaPaused: logging.INFO,
    SagaResumed: logging.INFO,
    SagaTerminated: logging.INFO,
    StepRetried: logging.INFO,
    StepResolved: logging.INFO,
    StepPolicyChanged: logging.INFO,
    OutputResolved: logging.INFO,
    IncidentOpened: logging.WARNING,
    SagaFailed: logging.WARNING,
}
"""Everything else is DEBUG: a line for each saga that goes well would cost more than the saga."""
_WORDS: Final[dict[type[Fact], str]] = {
    SagaStarted: "saga started",
    SagaBegan: "saga began",
    AttemptFailed: "attempt failed",
    StepSucceeded: "step succeeded",
    StepRejected: "step rejected",
    StepUnknown: "step unknown",
    StepAccepted: "step accepted",
    StepHeartbeat: "step still under way",
    LateOutcome: "late outcome",
    StepCompensated: "step compensated",
    StepCompensationFailed: "step compensation failed",
    IncidentOpened: "incident opened: a person is needed",
    SagaCompleted: "saga completed",
    SagaCompensated: "saga compensated",
    SagaFailed: "saga failed: it cannot move without a person",
}
"""What is said about the facts that `describe` does not know, or knows in shorter words."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_logger = logging.getLogger(names.LOGGER_SAGAS)


class LogObserver:
    """Writes a line per committed fact, if its level is on. Payloads are never written; failures, their messages and reasons are."""

    def committed(self, append: Append, plan: SagaPlan, state: SagaState, /) -> None:
        """Writes the lines of these facts."""
        for event in append.events:
            level = _LEVELS.get(type(event.fact), logging.DEBUG)
            if _logger.isEnabledFor(level):
                _write(level, *_line_of(event.fact, plan, state), plan, state)
            if event.reached:
                _write_reached(event, plan, state)


def _write(level: int, message: str, fields: Fields, plan: SagaPlan, state: SagaState) -> None:
    _logger.log(level, message, extra={**_saga_fields(plan, state), **fields})


def _write_reached(event: Event, plan: SagaPlan, state: SagaState) -> None:
    for reached in event.reached:
        if isinstance(reached, StepDue):
            continue  # every step has one, and its attempts tell the rest
        level = _LEVELS.get(type(reached), logging.DEBUG)
        if _logger.isEnabledFor(level):
            _write(level, *describe(reached), plan, state)


def _saga_fields(plan: SagaPlan, state: SagaState) -> Fields:
    fields: Fields = {
        names.SAGA_ID: state.saga_id,
        names.SAGA_DEFINITION_NAME: plan.key.name,
        names.SAGA_DEFINITION_VERSION: plan.key.version,
    }
    root = parse_traceparent(state.trace.traceparent)
    if root is not None:
        fields[names.LOG_TRACE_ID] = f"{root.trace_id:032x}"
        fields[names.LOG_SPAN_ID] = f"{root.span_id:016x}"
    return fields


def _line_of(fact: Fact, plan: SagaPlan, state: SagaState) -> tuple[str, Fields]:
    match fact:
        case (
            AttemptFailed() | StepSucceeded() | StepRejected() | StepUnknown() | StepAccepted() | StepCompensated()
            | StepCompensationFailed() | LateOutcome()
        ):  # fmt: skip
            return _WORDS[type(fact)], _attempt_fields(fact, plan, state) | _further_fields(fact)
        case SagaStarted() | SagaBegan() | SagaCompleted() | SagaCompensated() | SagaFailed():
            return _WORDS[type(fact)], {}
        case StepHeartbeat():
            return _WORDS[type(fact)], step_field(fact.step_id) | _until(fact.accepted_until)
        case IncidentOpened():
            return _WORDS[type(fact)], describe(fact).fields
        case _:
            return describe(fact)


def _attempt_fields(fact: AttemptFact, plan: SagaPlan, state: SagaState) -> Fields:
    attempt = fact.attempt
    step = step_of(attempt.step_id, plan, state)
    outcome, failure = ending_of(fact)
    fields: Fields = {
        names.SAGA_STEP: attempt.step_id,
        names.SAGA_ATTEMPT: attempt.number,
        names.SAGA_ROUND: attempt.round,
        names.SAGA_DIRECTION: attempt.direction.name,
        names.SAGA_ACTION: step.plan.action,
        names.SAGA_OUTCOME: outcome,
    }
    if state.trace.traceparent and fact.sent_at is not None:
        fields[names.LOG_SPAN_ID] = f"{attempt_span_id(state.saga_id, attempt):016x}"
    elif state.trace.traceparent and is_completion(fact, step):
        fields[names.LOG_SPAN_ID] = f"{completion_span_id(state.saga_id, attempt):016x}"
    return fields | ({} if failure is None else failure_fields(failure))


def _further_fields(fact: AttemptFact) -> Fields:
    match fact:
        case StepAccepted():
            return _until(fact.accepted_until)
        case StepCompensated():
            return {names.SAGA_HANDLER_RAN: fact.handler_ran}
        case LateOutcome():
            return {names.SAGA_LATE: True}
        case _:
            return {}


def _until(instant: Instant) -> Fields:
    until = _EPOCH + timedelta(microseconds=instant)
    return {names.SAGA_ACCEPTED_UNTIL: until.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
