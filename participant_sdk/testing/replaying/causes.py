"""What may have happened to a saga, so that a fact was recorded: the decisions of the core, read backwards.

A fact does not say by which input it came about. Every input that could have made it is named, the usual one first; which of them
it was shows when the decision is made again.
"""

from collections.abc import Iterator
from typing import assert_never

from coordinator.core.events import (
    AttemptFailed,
    Event,
    IncidentClosed,
    LateOutcome,
    OutputResolved,
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
from coordinator.core.inputs import (
    Accepted,
    Acknowledge,
    Cancel,
    ChangePolicy,
    Compensated,
    CompleteStep,
    Heartbeat,
    Input,
    KeyExpired,
    Misconfigured,
    Mismatched,
    NotSent,
    Outcome,
    Pause,
    Recover,
    Rejected,
    Replied,
    ResolveOutput,
    ResolveStep,
    Resume,
    RetryLater,
    RetryStep,
    Start,
    Succeeded,
    Terminate,
    Unknown,
    Wake,
)
from coordinator.core.values import AttemptKey, AttemptOutcome, Failure, Instant, Payload, TurnBackCause

_SECOND_US = 1_000_000


def causes_of(event: Event, following: tuple[Event, ...]) -> Iterator[Input]:  # noqa: C901 - a table
    """Inputs that may have made this event. `following`: the events after it, since a resumption is recorded behind what it settles."""
    at, fact = event.occurred_at, event.fact
    for later in following:
        if isinstance(later.fact, SagaResumed) and later.occurred_at == at:
            yield Resume(reason=later.fact.reason, actor=later.fact.actor)
    match fact:
        case SagaStarted():
            yield from _starts(fact, at)
        case AttemptFailed():
            yield _replied(fact.attempt, fact.sent_at, _outcome_of(fact, at))
        case StepSucceeded():
            yield _replied(fact.attempt, fact.sent_at, Succeeded(output=fact.output))
            yield _completed(fact.attempt, Succeeded(output=fact.output))
        case StepRejected():
            yield _replied(fact.attempt, fact.sent_at, Rejected(failure=fact.failure, sealed=fact.sealed))
            yield _completed(fact.attempt, Rejected(failure=fact.failure, sealed=True))
            yield from (_replied(fact.attempt, fact.sent_at, each) for each in _failures(fact.failure))
        case StepUnknown():
            yield from (_replied(fact.attempt, fact.sent_at, each) for each in _failures(fact.failure))
            yield _replied(fact.attempt, fact.sent_at, Rejected(failure=fact.failure))
            yield _replied(fact.attempt, fact.sent_at, Accepted(time_limit_us=_SECOND_US))
            yield _completed(fact.attempt, Rejected(failure=fact.failure))
        case StepAccepted():
            yield _replied(fact.attempt, fact.sent_at, Accepted(time_limit_us=fact.accepted_until - at))
        case StepCompensated():
            yield _replied(fact.attempt, fact.sent_at, Compensated(handler_ran=fact.handler_ran))
        case StepCompensationFailed():
            yield from (_replied(fact.attempt, fact.sent_at, each) for each in _failures(fact.failure))
        case LateOutcome():
            yield from _late(fact)
        case SagaTurnedBack() | TurnBackRequested() if fact.cause is TurnBackCause.CANCELLED:
            yield Cancel(reason=fact.failure.message, actor=fact.actor)
            yield Cancel(actor=fact.actor)
        case _:
            yield from _of_persons(event)
    yield Wake()


def _of_persons(event: Event) -> Iterator[Input]:
    fact = event.fact
    match fact:
        case StepHeartbeat():
            limit_us = fact.accepted_until - event.occurred_at
            yield from (
                Heartbeat(step_id=fact.step_id, round=round_, time_limit_us=limit_us, progress=fact.progress) for round_ in (1, 2, 3)
            )
        case StepCompletedEarly():
            yield CompleteStep(step_id=fact.step_id, round=fact.round, result=fact.result)
        case SagaPaused():
            yield Pause(reason=fact.reason, actor=fact.actor)
        case SagaResumed():
            yield Resume(reason=fact.reason, actor=fact.actor)
        case SagaTerminated():
            yield Terminate(reason=fact.reason, actor=fact.actor)
        case StepRetried():
            yield RetryStep(step_id=fact.step_id, input=fact.input, reason=fact.reason, actor=fact.actor)
        case StepResolved():
            yield ResolveStep(step_id=fact.step_id, resolution=fact.resolution, reason=fact.reason, actor=fact.actor)
        case StepPolicyChanged():
            yield ChangePolicy(step_id=fact.step_id, change=fact.change, reason=fact.reason, actor=fact.actor)
        case OutputResolved():
            yield ResolveOutput(output=fact.output, reason=fact.reason, actor=fact.actor)
        case IncidentClosed():
            yield Acknowledge(incident_id=fact.id, reason=fact.reason, actor=fact.actor)
        case SagaRecovered():
            yield Recover()
        case _:
            return  # what follows from the state alone, or from time


def _starts(fact: SagaStarted, at: Instant) -> Iterator[Input]:
    """With the time limit of the definition, and with one of its own, which a start may have."""
    own_us = None if fact.deadline is None else fact.deadline - (at if fact.start_at is None else fact.start_at)
    for limit_us in dict.fromkeys((None, own_us)):
        yield Start(
            input=fact.input,
            labels=fact.labels,
            idempotency_key=fact.idempotency_key,
            start_at=fact.start_at,
            time_limit_us=limit_us,
            trace=fact.trace,
        )


def _outcome_of(fact: AttemptFailed, at: Instant) -> Outcome:
    match fact.outcome:
        case AttemptOutcome.UNKNOWN:
            return Unknown(failure=fact.failure)
        case AttemptOutcome.RETRY_LATER:
            return RetryLater(failure=fact.failure, delay_us=fact.retry_at - at)
        case AttemptOutcome.NOT_SENT:
            return NotSent(failure=fact.failure)
        case AttemptOutcome.MISCONFIGURED:
            return Misconfigured(failure=fact.failure)
        case AttemptOutcome.REFUSED:
            return Rejected(failure=fact.failure)
        case _:
            assert_never(fact.outcome)


def _failures(failure: Failure) -> tuple[Outcome, ...]:
    return (
        Unknown(failure=failure),
        Misconfigured(failure=failure),
        RetryLater(failure=failure, delay_us=0),
        NotSent(failure=failure),
        Mismatched(failure=failure),
        KeyExpired(failure=failure),
    )


def _late(fact: LateOutcome) -> Iterator[Input]:
    said = fact.outcome
    if said is None:
        yield _replied(fact.attempt, fact.sent_at, Compensated(handler_ran=True))
    elif isinstance(said, Payload):
        yield _replied(fact.attempt, fact.sent_at, Succeeded(output=said))
        yield _completed(fact.attempt, Succeeded(output=said))
    else:
        yield _replied(fact.attempt, fact.sent_at, Unknown(failure=said))
        yield _replied(fact.attempt, fact.sent_at, Rejected(failure=said))
        yield _completed(fact.attempt, Rejected(failure=said))


def _replied(attempt: AttemptKey, sent_at: Instant | None, outcome: Outcome) -> Input:
    return Replied(attempt=attempt, outcome=outcome, sent_at=sent_at)


def _completed(attempt: AttemptKey, result: Succeeded | Rejected) -> Input:
    return CompleteStep(step_id=attempt.step_id, round=attempt.round, result=result)
