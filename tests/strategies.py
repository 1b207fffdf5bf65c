"""Values of the core for Hypothesis: everything that can be in a journal."""

from typing import Final

from hypothesis import strategies as st

from coordinator.codec.values import INSTANT_MAX, INSTANT_MIN
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
    StepCompletedEarly,
    StepDue,
    StepHeartbeat,
    StepLeftOut,
    StepPolicyChanged,
    StepRejected,
    StepResolved,
    StepRetried,
    StepSucceeded,
    StepUnfit,
    StepUnknown,
    TurnBackRequested,
)
from coordinator.core.inputs import (
    PolicyChange,
    Rejected,
    Resolution,
    ResolvedCompensated,
    ResolvedRejected,
    ResolvedSkipped,
    ResolvedSucceeded,
    Succeeded,
)
from coordinator.core.plan import RetryPolicy
from coordinator.core.values import (
    MICROS_PER_SECOND,
    AttemptKey,
    AttemptOutcome,
    DefinitionKey,
    Direction,
    Failure,
    IncidentKind,
    Instant,
    Payload,
    SagaId,
    StepId,
    TraceContext,
    TurnBackCause,
)
from participant_sdk.definitions.durations import DURATION_SECONDS_MAX

UINT32_MAX: Final = 2**32 - 1
INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""Any text that protobuf takes."""
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1, max_size=20)
saga_ids = st.uuids().map(lambda made: SagaId(str(made)))
step_ids = names.map(StepId)
instants = st.integers(INSTANT_MIN, INSTANT_MAX).map(Instant)
payloads = st.builds(Payload, type_name=names, value=st.binary(max_size=60))
failures = st.builds(Failure, code=st.integers(-INT32_MAX, INT32_MAX), message=words, details=st.lists(payloads, max_size=2).map(tuple))
counts = st.integers(1, UINT32_MAX)
attempts = st.builds(AttemptKey, step_id=step_ids, direction=st.sampled_from(Direction), round=counts, number=counts)
traces = st.builds(TraceContext, traceparent=words, parent_traceparent=words, tracestate=words)
labels = st.dictionaries(words, words, max_size=4).map(lambda made: tuple(sorted(made.items())))
sent_at = st.none() | instants
durations = st.integers(0, DURATION_SECONDS_MAX * MICROS_PER_SECOND)
"""In microseconds: all that google.protobuf.Duration can say, but for those below zero."""
retry_policies = st.builds(
    RetryPolicy,
    attempts_max=st.integers(0, UINT32_MAX),
    initial_backoff_us=durations,
    multiplier=st.floats(1, allow_infinity=False),
    backoff_max_us=durations,
    non_retryable_codes=st.frozensets(st.integers(-INT32_MAX, INT32_MAX), max_size=4),
)
policy_changes = st.builds(
    PolicyChange,
    execute_retry=st.none() | retry_policies,
    compensate_retry=st.none() | retry_policies,
    attempt_timeout_us=st.none() | durations,
    execute_time_limit_us=st.none() | durations,
    recovery_time_limit_us=st.none() | durations,
)
resolutions: st.SearchStrategy[Resolution] = st.one_of(
    st.builds(ResolvedSucceeded, payloads), st.builds(ResolvedSkipped), st.builds(ResolvedRejected), st.builds(ResolvedCompensated)
)
results = st.builds(Succeeded, output=payloads) | st.builds(Rejected, failure=failures, sealed=st.booleans())

FACTS: Final[dict[type[Fact], st.SearchStrategy[Fact]]] = {
    SagaStarted: st.builds(
        SagaStarted,
        definition=st.builds(DefinitionKey, name=names, version=counts),
        input=payloads,
        labels=labels,
        idempotency_key=words,
        start_at=st.none() | instants,
        deadline=st.none() | instants,
        trace=traces,
    ),
    SagaBegan: st.builds(SagaBegan),
    AttemptFailed: st.builds(
        AttemptFailed, attempt=attempts, sent_at=sent_at, outcome=st.sampled_from(AttemptOutcome), failure=failures, retry_at=instants
    ),
    StepSucceeded: st.builds(StepSucceeded, attempt=attempts, sent_at=sent_at, output=payloads),
    StepRejected: st.builds(StepRejected, attempt=attempts, sent_at=sent_at, failure=failures, sealed=st.booleans()),
    StepUnknown: st.builds(StepUnknown, attempt=attempts, sent_at=sent_at, failure=failures),
    StepAccepted: st.builds(StepAccepted, attempt=attempts, sent_at=sent_at, accepted_until=instants),
    StepHeartbeat: st.builds(StepHeartbeat, step_id=step_ids, accepted_until=instants, progress=st.none() | payloads),
    StepCompletedEarly: st.builds(StepCompletedEarly, step_id=step_ids, round=counts, result=results),
    LateOutcome: st.builds(LateOutcome, attempt=attempts, sent_at=sent_at, outcome=st.none() | payloads | failures),
    TurnBackRequested: st.builds(
        TurnBackRequested, cause=st.sampled_from(TurnBackCause), step_id=st.none() | step_ids, failure=failures, actor=words
    ),
    SagaTurnedBack: st.builds(
        SagaTurnedBack,
        cause=st.sampled_from(TurnBackCause),
        step_id=st.none() | step_ids,
        failure=failures,
        quiet_at=instants,
        actor=words,
    ),
    StepCompensated: st.builds(StepCompensated, attempt=attempts, sent_at=sent_at, handler_ran=st.booleans()),
    StepCompensationFailed: st.builds(StepCompensationFailed, attempt=attempts, sent_at=sent_at, failure=failures),
    IncidentOpened: st.builds(
        IncidentOpened, id=counts, kind=st.sampled_from(IncidentKind), step_id=st.none() | step_ids, failure=failures
    ),
    SagaCompleted: st.builds(SagaCompleted, output=st.none() | payloads),
    SagaCompensated: st.builds(SagaCompensated),
    SagaFailed: st.builds(SagaFailed),
    SagaPaused: st.builds(SagaPaused, reason=words, actor=words),
    SagaResumed: st.builds(SagaResumed, reason=words, actor=words),
    SagaTerminated: st.builds(SagaTerminated, reason=words, actor=words),
    StepRetried: st.builds(
        StepRetried,
        step_id=step_ids,
        direction=st.sampled_from(Direction),
        round=counts,
        input=st.none() | payloads,
        reason=words,
        actor=words,
    ),
    StepResolved: st.builds(StepResolved, step_id=step_ids, resolution=resolutions, reason=words, actor=words),
    StepPolicyChanged: st.builds(StepPolicyChanged, step_id=step_ids, change=policy_changes, reason=words, actor=words),
    OutputResolved: st.builds(OutputResolved, output=payloads, reason=words, actor=words),
    IncidentClosed: st.builds(IncidentClosed, id=counts),
    SagaRecovered: st.builds(SagaRecovered, in_doubt=st.lists(attempts, max_size=4).map(tuple)),
}
"""Each kind of fact, so that a test can go through all of them."""

facts: st.SearchStrategy[Fact] = st.one_of(*FACTS.values())
REACHED: Final[dict[type[Reached], st.SearchStrategy[Reached]]] = {
    StepDue: st.builds(StepDue, step_id=step_ids, input=st.none() | payloads),
    StepLeftOut: st.builds(StepLeftOut, step_id=step_ids),
    StepUnfit: st.builds(StepUnfit, step_id=step_ids, failure=failures),
}
"""Each kind of consequence for a step that is reached."""

reached: st.SearchStrategy[tuple[Reached, ...]] = st.lists(st.one_of(*REACHED.values()), max_size=4).map(tuple)
events: st.SearchStrategy[Event] = st.builds(Event, sequence=st.integers(1, INT64_MAX), occurred_at=instants, fact=facts, reached=reached)
