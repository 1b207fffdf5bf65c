"""What happens to sagas, as log lines: what goes well at DEBUG, turning back at INFO, what needs a person at WARNING."""

import logging
from typing import Final, assert_never

from coordinator.core.events import (
    AttemptFailed,
    Fact,
    IncidentOpened,
    SagaBegan,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaRecovered,
    SagaStarted,
    SagaTurnedBack,
    StepCompensated,
    StepCompensationFailed,
    StepRejected,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.trace import attempt_span_id, parse_traceparent
from coordinator.core.values import Failure
from coordinator.engine.ports import Append
from coordinator.telemetry import names
from coordinator.telemetry.attempts import AttemptFact, code_name, ending_of

Fields = dict[str, object]

_LEVELS: Final[dict[type[Fact], int]] = {
    SagaTurnedBack: logging.INFO,
    SagaRecovered: logging.INFO,
    SagaCompensated: logging.INFO,
    IncidentOpened: logging.WARNING,
    SagaFailed: logging.WARNING,
}
"""Everything else is DEBUG: a line for each saga that goes well would cost more than the saga."""

_logger = logging.getLogger(names.LOGGER_SAGAS)


class LogObserver:
    """Writes a line per committed fact, if its level is on. Payloads are never written; failures and their messages are."""

    def committed(self, append: Append, plan: SagaPlan, state: SagaState, /) -> None:
        """Writes the lines of these facts."""
        for event in append.events:
            level = _LEVELS.get(type(event.fact), logging.DEBUG)
            if _logger.isEnabledFor(level):
                message, fields = _line_of(event.fact, plan, state)
                _logger.log(level, message, extra={**_saga_fields(plan, state), **fields})


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
        case SagaStarted():
            return "saga started", {}
        case SagaBegan():
            return "saga began", {}
        case AttemptFailed():
            return "attempt failed", _attempt_fields(fact, plan, state)
        case StepSucceeded():
            return "step succeeded", _attempt_fields(fact, plan, state)
        case StepRejected():
            return "step rejected", _attempt_fields(fact, plan, state)
        case StepUnknown():
            return "step unknown", _attempt_fields(fact, plan, state)
        case StepCompensated():
            return "step compensated", _attempt_fields(fact, plan, state) | {names.SAGA_HANDLER_RAN: fact.handler_ran}
        case StepCompensationFailed():
            return "step compensation failed", _attempt_fields(fact, plan, state)
        case _:
            return _line_of_saga(fact)


def _line_of_saga(
    fact: SagaTurnedBack | IncidentOpened | SagaCompleted | SagaCompensated | SagaFailed | SagaRecovered,
) -> tuple[str, Fields]:
    match fact:
        case SagaTurnedBack():
            fields = {names.SAGA_CAUSE: fact.cause.name, **_step_field(fact.step_id), **_failure_fields(fact.failure)}
            return "saga turned back", fields | ({names.SAGA_ACTOR: fact.actor} if fact.actor else {})
        case IncidentOpened():
            fields = {names.SAGA_INCIDENT_ID: fact.id, names.SAGA_INCIDENT_KIND: fact.kind.name}
            return "incident opened: a person is needed", fields | _step_field(fact.step_id) | _failure_fields(fact.failure)
        case SagaCompleted():
            return "saga completed", {}
        case SagaCompensated():
            return "saga compensated", {}
        case SagaFailed():
            return "saga failed: it cannot move without a person", {}
        case SagaRecovered():
            return "saga recovered", {names.SAGA_IN_DOUBT: len(fact.in_doubt)}
        case _:
            assert_never(fact)


def _attempt_fields(fact: AttemptFact, plan: SagaPlan, state: SagaState) -> Fields:
    attempt = fact.attempt
    outcome, failure = ending_of(fact)
    fields: Fields = {
        names.SAGA_STEP: attempt.step_id,
        names.SAGA_ATTEMPT: attempt.number,
        names.SAGA_ROUND: attempt.round,
        names.SAGA_DIRECTION: attempt.direction.name,
        names.SAGA_ACTION: plan.steps[plan.index_of[attempt.step_id]].action,
        names.SAGA_OUTCOME: outcome,
    }
    if fact.sent_at is not None and state.trace.traceparent:
        fields[names.LOG_SPAN_ID] = f"{attempt_span_id(state.saga_id, attempt):016x}"
    return fields | ({} if failure is None else _failure_fields(failure))


def _failure_fields(failure: Failure) -> Fields:
    return {names.ERROR_TYPE: code_name(failure.code), names.ERROR_MESSAGE: failure.message}


def _step_field(step_id: str | None) -> Fields:
    return {} if step_id is None else {names.SAGA_STEP: step_id}
