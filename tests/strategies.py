"""Values of the core for Hypothesis: everything that can be in a journal."""

from typing import Final

from hypothesis import strategies as st

from coordinator.codec.values import INSTANT_MAX, INSTANT_MIN
from coordinator.core.events import (
    AttemptFailed,
    Event,
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
from coordinator.core.values import (
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
    SagaRecovered: st.builds(SagaRecovered, in_doubt=st.lists(attempts, max_size=4).map(tuple)),
}
"""Each kind of fact, so that a test can go through all of them."""

facts: st.SearchStrategy[Fact] = st.one_of(*FACTS.values())
events: st.SearchStrategy[Event] = st.builds(Event, sequence=st.integers(1, INT64_MAX), occurred_at=instants, fact=facts)
