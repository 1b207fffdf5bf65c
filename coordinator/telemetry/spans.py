"""Spans from committed facts.

One span per attempt that was sent, below one root span per saga; beside them one for what a participant does after it accepted a step, and
one for what a saga does after it was FAILED. No span is ever alive: each is built finished, when the fact that ends it is committed, with
ids derived from what it stands for. That needs nothing across commits, so that a trace goes on after a crash; a fact is committed once, so
that no span is doubled; and it costs a fraction of starting and ending spans with a tracer.
"""

from typing import Final, assert_never

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind
from opentelemetry.trace.status import Status, StatusCode

from coordinator.core.attempts import is_owed
from coordinator.core.events import (
    AttemptFailed,
    Event,
    IncidentClosed,
    IncidentOpened,
    LateOutcome,
    OutputResolved,
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
    StepCompletedEarly,
    StepHeartbeat,
    StepPolicyChanged,
    StepRejected,
    StepResolved,
    StepRetried,
    StepSucceeded,
    StepUnknown,
    TurnBackRequested,
)
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState, StepState
from coordinator.core.trace import attempt_span_id, completion_span_id, continuation_span_id, is_traced
from coordinator.core.values import AttemptKey, Direction, Failure, Instant, SagaStatus, StepId
from coordinator.engine.ports import Append
from coordinator.telemetry import names
from coordinator.telemetry.attempts import AttemptFact, SettlingFact, code_name, ending_of, is_completion, step_of
from coordinator.telemetry.contexts import caller_context, root_context, sibling
from coordinator.telemetry.descriptions import Fields
from coordinator.telemetry.moments import (
    NANOS_PER_MICRO,
    SAGAS_WITH_MOMENTS_MAX,
    TEXT_CHARS_MAX,
    Moment,
    MomentMemory,
    moment_of,
    moments_of_state,
    moments_reached,
)

_UNSET: Final = Status(StatusCode.UNSET)
_SCOPE: Final = InstrumentationScope(names.SCOPE_NAME)

EndFact = SagaCompleted | SagaCompensated | SagaFailed | SagaTerminated
"""The facts after which a saga does nothing more by itself, its hook excepted."""

_STATUS_AFTER: Final[dict[type[EndFact], SagaStatus]] = {
    SagaCompleted: SagaStatus.COMPLETED,
    SagaCompensated: SagaStatus.COMPENSATED,
    SagaFailed: SagaStatus.FAILED,
    SagaTerminated: SagaStatus.FAILED,
}


class SpanObserver:
    """Turns the facts of traced sagas into spans and hands them to a span processor, which must neither block nor fail.

    The state it is shown may be ahead of the facts: of the state it reads only what can change no more, but for the reason on the root of
    a FAILED saga that a person turned back within the same commit. It keeps nothing of a saga but moments, until the span that shows them
    is written.
    """

    def __init__(self, processor: SpanProcessor, resource: Resource, *, sagas_with_moments_max: int = SAGAS_WITH_MOMENTS_MAX) -> None:
        self._processor = processor
        self._resource = resource
        self._memory = MomentMemory(sagas_with_moments_max)

    def committed(self, append: Append, plan: SagaPlan, state: SagaState, /) -> None:
        """Writes the spans that these facts end."""
        if is_traced(state.trace):
            for event in append.events:
                self._observe(event, plan, state)

    def _observe(self, event: Event, plan: SagaPlan, state: SagaState) -> None:
        fact = event.fact
        match fact:  # the usual ones first: every case above costs the ones below
            case StepSucceeded() | AttemptFailed() | StepRejected() | StepUnknown() | StepAccepted():
                self._observe_attempt(event, fact, plan, state)
            case SagaCompleted() | SagaCompensated() | SagaFailed() | SagaTerminated():
                self._write_course(event, fact, plan, state)
                return
            case SagaStarted() | SagaBegan() | IncidentOpened() | IncidentClosed() | StepHeartbeat():
                pass  # the state tells their instants for good, and how often a participant reports is for its own trace
            case StepCompensated() | StepCompensationFailed():
                self._observe_attempt(event, fact, plan, state)
            case LateOutcome():
                self._observe_late(event, fact, plan, state)
            case (
                SagaTurnedBack() | SagaRecovered() | TurnBackRequested() | StepCompletedEarly() | SagaPaused() | SagaResumed()
                | StepRetried() | StepResolved() | StepPolicyChanged() | OutputResolved()
            ):  # fmt: skip
                self._remember(moment_of(event.occurred_at, fact), event, state)
            case _:
                assert_never(fact)
        if event.reached:
            for moment in moments_reached(event):
                self._remember(moment, event, state)

    def _remember(self, moment: Moment, event: Event, state: SagaState) -> None:
        """What comes after the end is on no span: that of the saga is written."""
        if state.ended_at is None or event.occurred_at <= state.ended_at:
            self._memory.keep(state.saga_id, moment)

    def _observe_attempt(self, event: Event, fact: AttemptFact, plan: SagaPlan, state: SagaState) -> None:
        step = step_of(fact.attempt.step_id, plan, state)
        if fact.sent_at is not None:
            self._write_attempt(event.occurred_at, fact, step, plan, state)
        elif is_completion(fact, step):
            self._write_completion(event.occurred_at, fact, step, plan, state)
        # else: what was never sent, or ended in silence, has no span

    def _observe_late(self, event: Event, fact: LateOutcome, plan: SagaPlan, state: SagaState) -> None:
        step = step_of(fact.attempt.step_id, plan, state)
        call = step.execute if fact.attempt.direction is Direction.EXECUTE else step.compensate
        if fact.sent_at is not None and call is not None and is_owed(call, fact.attempt):
            # It was under way when a person ended the saga or said how the step ended: nothing has ended it before.
            self._write_attempt(event.occurred_at, fact, step, plan, state)
        else:
            self._remember(moment_of(event.occurred_at, fact), event, state)

    def _write_attempt(self, ended_at: Instant, fact: AttemptFact, step: StepState, plan: SagaPlan, state: SagaState) -> None:
        attempt, sent_at = fact.attempt, fact.sent_at
        assert sent_at is not None, "what was never sent has no span"
        outcome, failure = ending_of(fact)
        attributes = _step_attributes(attempt, outcome, step, plan, state)
        attributes[names.RPC_SYSTEM] = names.RPC_SYSTEM_GRPC
        attributes[names.RPC_SERVICE] = names.RPC_SERVICE_PARTICIPANT
        attributes[names.RPC_METHOD] = names.RPC_METHODS[attempt.direction]
        if failure is not None:
            attributes[names.ERROR_TYPE] = code_name(failure.code)
        if isinstance(fact, StepCompensated):
            attributes[names.SAGA_HANDLER_RAN] = fact.handler_ran
        elif isinstance(fact, LateOutcome):
            attributes[names.SAGA_LATE] = True
        root = root_context(state.trace)
        self._processor.on_end(
            ReadableSpan(
                name=names.attempt_span(attempt.direction, step.plan.action),
                context=sibling(root, attempt_span_id(state.saga_id, attempt)),
                parent=root,
                resource=self._resource,
                attributes=attributes,
                links=() if attempt.direction is Direction.EXECUTE else _links_to_execution(root, attempt.step_id, step, state),
                kind=SpanKind.CLIENT,
                status=_status(failure),
                start_time=sent_at * NANOS_PER_MICRO,
                end_time=ended_at * NANOS_PER_MICRO,
                instrumentation_scope=_SCOPE,
            )
        )

    def _write_completion(self, ended_at: Instant, fact: SettlingFact, step: StepState, plan: SagaPlan, state: SagaState) -> None:
        """The span of what a participant does after it accepted a step, until it completes it or its time is over (R24).

        The call has a span of its own, to which this one is linked: it ended with the acceptance, perhaps in another process.
        """
        assert step.accepted_at is not None, "what was accepted was accepted at an instant"
        outcome, failure = ending_of(fact)
        attributes = _step_attributes(fact.attempt, outcome, step, plan, state)
        if failure is not None:
            attributes[names.ERROR_TYPE] = code_name(failure.code)
        root = root_context(state.trace)
        self._processor.on_end(
            ReadableSpan(
                name=names.completion_span(step.plan.action),
                context=sibling(root, completion_span_id(state.saga_id, fact.attempt)),
                parent=root,
                resource=self._resource,
                attributes=attributes,
                links=(Link(sibling(root, attempt_span_id(state.saga_id, fact.attempt))),),
                kind=SpanKind.INTERNAL,
                status=_status(failure),
                start_time=step.accepted_at * NANOS_PER_MICRO,
                end_time=ended_at * NANOS_PER_MICRO,
                instrumentation_scope=_SCOPE,
            )
        )

    def _write_course(self, event: Event, fact: EndFact, plan: SagaPlan, state: SagaState) -> None:
        """The span of what a saga did until it ended or became FAILED, since its start or since it last left FAILED.

        The first one is the root. It is not left to the end: a FAILED saga waits for a person, perhaps for ever, and is the one whose
        trace is looked at. Whatever it does after a person let it go on is a span of its own below the root, named by the fact that led
        out of FAILED; so is a termination that finds it FAILED. Its attempts are below the root like all others.

        The kind of the root is SERVER: the saga is what the coordinator does for the caller that started it, and what rates, errors and
        durations of the coordinator are counted by. What follows is INTERNAL: it must not count as another request.
        """
        root, continued = root_context(state.trace), _continued(event, state)
        since = state.created_at if continued is None else continued[1]
        moments = [*self._memory.take(state.saga_id), *moments_reached(event), *moments_of_state(state, since, event.occurred_at)]
        if isinstance(fact, SagaTerminated):
            moments.append(moment_of(event.occurred_at, fact))
        moments.sort(key=lambda moment: moment.timestamp)
        failure = _failure_after(event, fact, state)
        self._processor.on_end(
            ReadableSpan(
                name=names.saga_span(plan.key.name) if continued is None else names.continuation_span(plan.key.name),
                context=root if continued is None else sibling(root, continuation_span_id(state.saga_id, continued[0])),
                parent=caller_context(state.trace) if continued is None else root,
                resource=self._resource,
                attributes=_saga_attributes(fact, failure, plan, state),
                events=moments,
                kind=SpanKind.SERVER if continued is None else SpanKind.INTERNAL,
                status=_status(failure),
                start_time=since * NANOS_PER_MICRO,
                end_time=event.occurred_at * NANOS_PER_MICRO,
                instrumentation_scope=_SCOPE,
            )
        )


def _continued(event: Event, state: SagaState) -> tuple[int, Instant] | None:
    """Sequence and instant of the fact that led out of FAILED to where this event is; None: the saga was not FAILED before it."""
    return next((resumed for resumed in reversed(state.resumed) if resumed[0] <= event.sequence), None)


def _saga_attributes(fact: EndFact, failure: Failure | None, plan: SagaPlan, state: SagaState) -> Fields:
    attributes: Fields = {
        names.SAGA_ID: state.saga_id,
        names.SAGA_DEFINITION_NAME: plan.key.name,
        names.SAGA_DEFINITION_VERSION: plan.key.version,
        names.SAGA_STATUS: _STATUS_AFTER[type(fact)].name,
    }
    if state.cause is not None:
        attributes[names.SAGA_CAUSE] = state.cause.name
    if failure is not None:
        attributes[names.ERROR_TYPE] = code_name(failure.code)
    return attributes


def _failure_after(event: Event, fact: EndFact, state: SagaState) -> Failure | None:
    """Why the saga did not do what it was asked for. One that cannot go forward has no reason of its own but that of its last incident."""
    if isinstance(fact, SagaCompleted) or state.failure is not None:
        return state.failure
    return next((known.fact.failure for known in reversed(state.incidents) if known.opened_at <= event.occurred_at), None)


def _step_attributes(attempt: AttemptKey, outcome: str, step: StepState, plan: SagaPlan, state: SagaState) -> Fields:
    return {
        names.SAGA_ID: state.saga_id,
        names.SAGA_STEP: attempt.step_id,
        names.SAGA_ATTEMPT: attempt.number,
        names.SAGA_ROUND: attempt.round,
        names.SAGA_DIRECTION: attempt.direction.name,
        names.SAGA_ACTION: step.plan.action,
        names.SAGA_DEFINITION_NAME: plan.key.name,
        names.SAGA_DEFINITION_VERSION: plan.key.version,
        names.SAGA_OUTCOME: outcome,
    }


def _links_to_execution(root: SpanContext, step_id: StepId, step: StepState, state: SagaState) -> tuple[Link, ...]:
    """For a compensation, the last attempt to execute what it undoes. The execution is at rest by then: its number is final."""
    assert step.execute is not None, "what was never due is not compensated"
    undone = AttemptKey(step_id, Direction.EXECUTE, step.execute.round, step.execute.number)
    return (Link(sibling(root, attempt_span_id(state.saga_id, undone))),)


def _status(failure: Failure | None) -> Status:
    return _UNSET if failure is None else Status(StatusCode.ERROR, failure.message[:TEXT_CHARS_MAX])
