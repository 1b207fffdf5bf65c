"""Spans from committed facts.

One span per attempt that was sent, below one root span per saga. No span is ever alive: each is built finished, when the fact that ends
it is committed, with ids derived from what it stands for. That needs nothing across commits, so that a trace goes on after a crash; a
fact is committed once, so that no span is doubled; and it costs a fraction of starting and ending spans with a tracer.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, assert_never

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from coordinator.core.events import (
    AttemptFailed,
    Event,
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
from coordinator.core.trace import attempt_span_id, is_traced, parse_traceparent
from coordinator.core.values import AttemptKey, Direction, Failure, Instant, SagaId, SagaStatus, TraceContext
from coordinator.engine.ports import Append
from coordinator.telemetry import names
from coordinator.telemetry.attempts import AttemptFact, code_name, ending_of

SAGAS_WITH_MOMENTS_MAX: Final = 10_000
"""Sagas at once whose turning back and recoveries are remembered for their root span; beyond, the oldest lose theirs."""
MOMENTS_PER_SAGA_MAX: Final = 16
"""A saga that is recovered more often than this shows the first of them."""
STATUS_CHARS_MAX: Final = 1_024
"""A participant's message is cut to this: collectors refuse a whole batch that is too large."""
CONTEXTS_KEPT_MAX: Final = 4_096
"""Root contexts kept from one span of a saga to its next: 6.7 instead of 8.7 µs a span, measured over 1,000 sagas taking turns."""

_NANOS_PER_MICRO: Final = 1_000
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)
_SCOPE: Final = InstrumentationScope(names.SCOPE_NAME)

Attributes = dict[str, str | bool | int]


class SpanObserver:
    """Turns the facts of traced sagas into spans and hands them to a span processor, which must neither block nor fail.

    The state it is shown may be ahead of the facts: of the state it reads only what can change no more. It keeps nothing of a saga but the
    moments at which it turned back or was recovered, until the root span is written. Those of an earlier process are not known any more;
    the root's attributes tell the cause in any case.
    """

    def __init__(self, processor: SpanProcessor, resource: Resource, *, sagas_with_moments_max: int = SAGAS_WITH_MOMENTS_MAX) -> None:
        self._processor = processor
        self._resource = resource
        self._sagas_with_moments_max = sagas_with_moments_max
        self._moments: dict[SagaId, list[SpanEvent]] = {}

    def committed(self, append: Append, plan: SagaPlan, state: SagaState, /) -> None:
        """Writes the spans that these facts end."""
        if not is_traced(state.trace):
            return
        for event in append.events:
            fact = event.fact
            match fact:
                case AttemptFailed() | StepSucceeded() | StepRejected() | StepUnknown() | StepCompensated() | StepCompensationFailed():
                    if fact.sent_at is not None:  # what was never sent, or ended in silence, has no span
                        self._write_attempt(event.occurred_at, fact, fact.sent_at, plan, state)
                case SagaTurnedBack() | SagaRecovered():
                    self._remember(state.saga_id, _moment_of(event.occurred_at, fact))
                case SagaCompleted() | SagaCompensated() | SagaFailed():
                    self._write_root(event, plan, state)
                case SagaStarted() | SagaBegan() | IncidentOpened():
                    pass  # the state tells their instants for good; the root span reads them there
                case _:
                    assert_never(fact)

    def _remember(self, saga_id: SagaId, moment: SpanEvent) -> None:
        moments = self._moments.setdefault(saga_id, [])
        if len(moments) < MOMENTS_PER_SAGA_MAX:
            moments.append(moment)
        if len(self._moments) > self._sagas_with_moments_max:
            del self._moments[next(iter(self._moments))]

    def _write_attempt(self, ended_at: Instant, fact: AttemptFact, sent_at: Instant, plan: SagaPlan, state: SagaState) -> None:
        attempt = fact.attempt
        action = plan.steps[plan.index_of[attempt.step_id]].action
        outcome, failure = ending_of(fact)
        attributes: Attributes = {
            names.SAGA_ID: state.saga_id,
            names.SAGA_STEP: attempt.step_id,
            names.SAGA_ATTEMPT: attempt.number,
            names.SAGA_ROUND: attempt.round,
            names.SAGA_DIRECTION: attempt.direction.name,
            names.SAGA_ACTION: action,
            names.SAGA_DEFINITION_NAME: plan.key.name,
            names.SAGA_DEFINITION_VERSION: plan.key.version,
            names.SAGA_OUTCOME: outcome,
            names.RPC_SYSTEM: names.RPC_SYSTEM_GRPC,
            names.RPC_SERVICE: names.RPC_SERVICE_PARTICIPANT,
            names.RPC_METHOD: names.RPC_METHODS[attempt.direction],
        }
        if failure is not None:
            attributes[names.ERROR_TYPE] = code_name(failure.code)
        if isinstance(fact, StepCompensated):
            attributes[names.SAGA_HANDLER_RAN] = fact.handler_ran
        root = _root_context(state.trace)
        self._processor.on_end(
            ReadableSpan(
                name=names.attempt_span(attempt.direction, action),
                context=_sibling(root, attempt_span_id(state.saga_id, attempt)),
                parent=root,
                resource=self._resource,
                attributes=attributes,
                links=_links(root, attempt, plan, state),
                kind=SpanKind.CLIENT,
                status=_status(failure),
                start_time=sent_at * _NANOS_PER_MICRO,
                end_time=ended_at * _NANOS_PER_MICRO,
                instrumentation_scope=_SCOPE,
            )
        )

    def _write_root(self, event: Event, plan: SagaPlan, state: SagaState) -> None:
        """The span of the whole saga, written when it ends or FAILED is reached, whichever comes first.

        A FAILED saga waits for a person, perhaps for ever, and is the one whose trace is looked at: it must not lack its root. No fact
        leads out of FAILED and none follows an end, so there is one root. Whoever adds a way out of FAILED gives what follows a span of
        its own below this one; a test fails when the table of transitions gets such a way.

        The kind is SERVER: the saga is what the coordinator does for the caller that started it, and what rates, errors and
        durations of the coordinator are counted by.
        """
        status = _status_after(event)
        attributes: Attributes = {
            names.SAGA_ID: state.saga_id,
            names.SAGA_DEFINITION_NAME: plan.key.name,
            names.SAGA_DEFINITION_VERSION: plan.key.version,
            names.SAGA_STATUS: status.name,
        }
        if state.cause is not None:
            attributes[names.SAGA_CAUSE] = state.cause.name
        if state.failure is not None:
            attributes[names.ERROR_TYPE] = code_name(state.failure.code)
        moments = [*self._moments.pop(state.saga_id, ()), *_moments_of_state(state)]
        moments.sort(key=lambda moment: moment.timestamp)
        self._processor.on_end(
            ReadableSpan(
                name=names.saga_span(plan.key.name),
                context=_root_context(state.trace),
                parent=_caller_context(state.trace),
                resource=self._resource,
                attributes=attributes,
                events=moments,
                kind=SpanKind.SERVER,
                status=_status(state.failure),
                start_time=state.created_at * _NANOS_PER_MICRO,
                end_time=event.occurred_at * _NANOS_PER_MICRO,
                instrumentation_scope=_SCOPE,
            )
        )


def _status_after(event: Event) -> SagaStatus:
    match event.fact:
        case SagaCompleted():
            return SagaStatus.COMPLETED
        case SagaCompensated():
            return SagaStatus.COMPENSATED
        case _:
            return SagaStatus.FAILED


def _root_context(trace: TraceContext) -> SpanContext:
    return _context_of(trace.traceparent, trace.tracestate, is_remote=False)


def _caller_context(trace: TraceContext) -> SpanContext | None:
    return _context_of(trace.parent_traceparent, trace.tracestate, is_remote=True) if trace.parent_traceparent else None


@lru_cache(CONTEXTS_KEPT_MAX)
def _context_of(traceparent: str, tracestate: str, *, is_remote: bool) -> SpanContext:
    named = parse_traceparent(traceparent)
    assert named is not None, "only well-formed traceparents are stored with a saga"
    return SpanContext(
        named.trace_id,
        named.span_id,
        is_remote,
        _SAMPLED,
        TraceState.from_header([tracestate]) if tracestate else None,
    )


def _sibling(context: SpanContext, span_id: int) -> SpanContext:
    return SpanContext(context.trace_id, span_id, False, context.trace_flags, context.trace_state)


def _links(root: SpanContext, attempt: AttemptKey, plan: SagaPlan, state: SagaState) -> tuple[Link, ...]:
    """For a compensation, the last attempt to execute what it undoes. The execution is at rest by then: its number is final."""
    if attempt.direction is Direction.EXECUTE:
        return ()
    execute = state.steps[plan.index_of[attempt.step_id]].execute
    assert execute is not None, "what was never due is not compensated"
    undone = AttemptKey(attempt.step_id, Direction.EXECUTE, execute.round, execute.number)
    return (Link(_sibling(root, attempt_span_id(state.saga_id, undone))),)


def _status(failure: Failure | None) -> Status:
    return _UNSET if failure is None else Status(StatusCode.ERROR, failure.message[:STATUS_CHARS_MAX])


def _moment_of(at: Instant, fact: SagaTurnedBack | SagaRecovered) -> SpanEvent:
    if isinstance(fact, SagaRecovered):
        return _moment(names.MOMENT_RECOVERED, at, {names.SAGA_IN_DOUBT: len(fact.in_doubt)})
    attributes: Attributes = {names.SAGA_CAUSE: fact.cause.name, **_failure_attributes(fact.failure)}
    if fact.step_id is not None:
        attributes[names.SAGA_STEP] = fact.step_id
    if fact.actor:
        attributes[names.SAGA_ACTOR] = fact.actor
    return _moment(names.MOMENT_TURNED_BACK, at, attributes)


def _moments_of_state(state: SagaState) -> list[SpanEvent]:
    moments = []
    if state.started_at is not None and state.started_at != state.created_at:
        moments.append(_moment(names.MOMENT_BEGAN, state.started_at, {}))
    for at, incident in state.incidents:
        attributes: Attributes = {
            names.SAGA_INCIDENT_ID: incident.id,
            names.SAGA_INCIDENT_KIND: incident.kind.name,
            **_failure_attributes(incident.failure),
        }
        if incident.step_id is not None:
            attributes[names.SAGA_STEP] = incident.step_id
        moments.append(_moment(names.MOMENT_INCIDENT, at, attributes))
    return moments


def _failure_attributes(failure: Failure) -> Attributes:
    return {names.ERROR_TYPE: code_name(failure.code), names.ERROR_MESSAGE: failure.message[:STATUS_CHARS_MAX]}


def _moment(name: str, at: Instant, attributes: Mapping[str, str | bool | int]) -> SpanEvent:
    return SpanEvent(name, attributes=attributes, timestamp=at * _NANOS_PER_MICRO)
