"""The state of one saga in memory, and `apply`, the only place where it changes.

`apply` records; it contains no rules. Folding it over the journal gives the live state, so whatever it does must depend on nothing but
the plan, the state and the event.
"""

from collections.abc import Iterable
from typing import Final, assert_never

from coordinator.core.errors import CorruptJournalError
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
from coordinator.core.transitions import saga_status_after, step_status_after
from coordinator.core.values import (
    AttemptKey,
    AttemptOutcome,
    Direction,
    Failure,
    Instant,
    Payload,
    SagaId,
    SagaStatus,
    StepId,
    StepKind,
    StepStatus,
    TraceContext,
    TurnBackCause,
)

NO_TRACE: Final = TraceContext(traceparent="")
MAY_HAVE_EFFECT: Final = frozenset({StepStatus.SUCCEEDED, StepStatus.UNKNOWN})
"""Steps at rest that must be compensated when the saga turns back, if there is anything to undo (P4)."""


class CallState:
    """How one direction of one step stands. Mutable; changed by `apply` only."""

    __slots__ = (
        "due_at",
        "failed_first_at",
        "failure",
        "failures",
        "faults",
        "number",
        "postponed",
        "retry_at",
        "round",
    )

    def __init__(self, due_at: Instant, round_: int) -> None:
        self.due_at = due_at
        """When its first attempt was due."""
        self.round = round_
        self.number = 0
        """Number of the last attempt that has ended; the one owed is the next (R1)."""
        self.failures = 0
        """Attempts that count for the retry policy (R7)."""
        self.faults = 0
        """Those of them that met a participant set up wrongly (R6)."""
        self.postponed = 0
        """Attempts that do not count: retry later, not sent (R7)."""
        self.retry_at: Instant | None = None
        """When the next attempt is due; None: it was due at `due_at`, or nothing more is owed."""
        self.failed_first_at: Instant | None = None
        self.failure: Failure | None = None
        """The last one."""

    @property
    def not_before(self) -> Instant:
        """When the attempt that is owed may be handed to the network."""
        return self.due_at if self.retry_at is None else self.retry_at


class StepState:
    """How one step stands. Mutable; changed by `apply` only."""

    __slots__ = ("compensate", "ended_at", "execute", "handler_ran", "in_doubt", "output", "status", "waits_for")

    def __init__(self, waits_for: int) -> None:
        self.status = StepStatus.WAITING
        self.waits_for = waits_for
        """Predecessors that are not done yet (R14)."""
        self.execute: CallState | None = None
        """None until the step is due."""
        self.compensate: CallState | None = None
        """None until the compensation is due."""
        self.in_doubt = False
        """Whether an earlier attempt of this round may have taken effect: a refusal is then not clean (R5)."""
        self.output: Payload | None = None
        """None until it succeeded."""
        self.ended_at: Instant | None = None
        """When its execution came to rest."""
        self.handler_ran = False
        """Whether its compensation found something to undo."""


class SagaState:
    """How one saga stands. Mutable; changed by `apply` only."""

    __slots__ = (
        "cause", "created_at", "deadline", "ended_at", "failed_step", "failure", "idempotency_key", "incidents", "input", "labels",
        "output", "payload_bytes", "quiet_at", "saga_id", "sequence", "start_at", "started_at", "status", "steps", "trace", "updated_at",
    )  # fmt: skip

    def __init__(self, plan: SagaPlan, saga_id: SagaId) -> None:
        self.saga_id = saga_id
        self.status: SagaStatus | None = None
        """None before the first event."""
        self.sequence = 0
        self.updated_at = Instant(0)
        self.created_at = Instant(0)
        self.started_at: Instant | None = None
        """When its first steps became due; None while PENDING."""
        self.ended_at: Instant | None = None
        self.start_at: Instant | None = None
        self.deadline: Instant | None = None
        """When it turns back by itself; None: never."""
        self.input = Payload("", b"")
        self.output: Payload | None = None
        self.labels: tuple[tuple[str, str], ...] = ()
        self.idempotency_key = ""
        self.trace = NO_TRACE
        self.cause: TurnBackCause | None = None
        """Why it turned back; None while it goes forward."""
        self.failure: Failure | None = None
        self.failed_step: StepId | None = None
        """The step that made it turn back; None if none did."""
        self.quiet_at: Instant | None = None
        """Until when attempts in flight are awaited after turning back (R12)."""
        self.payload_bytes = 0
        self.incidents: list[tuple[Instant, IncidentOpened]] = []
        self.steps = [StepState(len(before)) for before in plan.predecessors]

    def output_of(self, index: int) -> Payload:
        """Output of a step that has succeeded."""
        output = self.steps[index].output
        assert output is not None, "an expression reads only steps that come before it in the graph"
        return output

    @property
    def is_quiet(self) -> bool:
        """Whether no execution can be under way any more."""
        return all(step.status is not StepStatus.EXECUTING for step in self.steps)


def replay(plan: SagaPlan, saga_id: SagaId, events: Iterable[Event]) -> SagaState:
    """The state after these events. Raises CorruptJournalError if they contradict each other."""
    state = SagaState(plan, saga_id)
    for event in events:
        apply(plan, state, event)
    return state


def apply(plan: SagaPlan, state: SagaState, event: Event) -> None:
    """Records one event. Raises CorruptJournalError if it cannot follow what is recorded already."""
    if event.sequence != state.sequence + 1:
        raise CorruptJournalError(f"event {event.sequence} follows event {state.sequence} of saga {state.saga_id}")
    _record(plan, state, event)
    state.sequence = event.sequence
    state.updated_at = event.occurred_at
    if state.status is SagaStatus.COMPENSATING:
        _release_compensations(plan, state, event.occurred_at)


def _record(plan: SagaPlan, state: SagaState, event: Event) -> None:  # noqa: C901 - one case per fact, closed below
    fact, at = event.fact, event.occurred_at
    match fact:
        case SagaStarted():
            _record_start(plan, state, fact, at)
        case SagaBegan():
            state.status = saga_status_after(state.status, fact)
            _begin(state, at)
        case AttemptFailed():
            _record_failed_attempt(plan, state, fact, at)
        case StepSucceeded():
            step = _end_execution(plan, state, fact, at)
            step.output = fact.output
            state.payload_bytes += len(fact.output.value)
            _release_successors(plan, state, plan.index_of[fact.attempt.step_id], at)
        case StepRejected() | StepUnknown():
            step = _end_execution(plan, state, fact, at)
            assert step.execute is not None
            step.execute.failure = fact.failure
        case SagaTurnedBack():
            _record_turn_back(state, fact, at)
        case StepCompensated():
            _end_compensation(plan, state, fact).handler_ran = fact.handler_ran
        case StepCompensationFailed():
            call = _end_compensation(plan, state, fact).compensate
            assert call is not None
            call.failure = fact.failure
        case IncidentOpened():
            state.status = saga_status_after(state.status, fact)
            state.incidents.append((at, fact))
        case SagaCompleted():
            state.status = saga_status_after(state.status, fact)
            state.output, state.ended_at = fact.output, at
        case SagaCompensated():
            state.status = saga_status_after(state.status, fact)
            state.ended_at = at
        case SagaFailed():
            state.status = saga_status_after(state.status, fact)
        case SagaRecovered():
            _record_recovery(plan, state, fact, at)
        case _:
            assert_never(fact)


def _record_start(plan: SagaPlan, state: SagaState, fact: SagaStarted, at: Instant) -> None:
    if fact.definition != plan.key:
        raise CorruptJournalError(f"saga {state.saga_id} follows {fact.definition}, not {plan.key}")
    wanted = SagaStatus.RUNNING if fact.start_at is None else SagaStatus.PENDING
    state.status = saga_status_after(state.status, fact, wanted)
    state.created_at = at
    state.input, state.labels, state.trace = fact.input, fact.labels, fact.trace
    state.idempotency_key, state.start_at, state.deadline = fact.idempotency_key, fact.start_at, fact.deadline
    state.payload_bytes = len(fact.input.value)
    if wanted is SagaStatus.RUNNING:
        _begin(state, at)


def _begin(state: SagaState, at: Instant) -> None:
    state.started_at = at
    for step in state.steps:
        if step.waits_for == 0:
            _release(step, at)


def _release(step: StepState, at: Instant) -> None:
    step.status = StepStatus.EXECUTING
    step.execute = CallState(at, 1)


def _release_successors(plan: SagaPlan, state: SagaState, index: int, at: Instant) -> None:
    for successor in plan.successors[index]:
        step = state.steps[successor]
        step.waits_for -= 1
        if step.waits_for == 0 and state.status is SagaStatus.RUNNING:  # R14; nothing new starts once the saga has turned back (R12)
            _release(step, at)


def _call_of(plan: SagaPlan, state: SagaState, attempt: AttemptKey) -> tuple[StepState, CallState]:
    index = plan.index_of.get(attempt.step_id)
    if index is None:
        raise CorruptJournalError(f"saga {state.saga_id} has no step {attempt.step_id!r}")
    step = state.steps[index]
    call = step.execute if attempt.direction is Direction.EXECUTE else step.compensate
    if call is None:
        raise CorruptJournalError(f"step {attempt.step_id} of saga {state.saga_id} owed no {attempt.direction.name}")
    return step, call


def _end_execution(plan: SagaPlan, state: SagaState, fact: StepSucceeded | StepRejected | StepUnknown, at: Instant) -> StepState:
    step, call = _call_of(plan, state, fact.attempt)
    step.status = step_status_after(step.status, fact)
    call.number = fact.attempt.number
    call.retry_at = None
    step.ended_at = at
    return step


def _end_compensation(plan: SagaPlan, state: SagaState, fact: StepCompensated | StepCompensationFailed) -> StepState:
    step, call = _call_of(plan, state, fact.attempt)
    step.status = step_status_after(step.status, fact)
    call.number = fact.attempt.number
    call.retry_at = None
    return step


def _record_failed_attempt(plan: SagaPlan, state: SagaState, fact: AttemptFailed, at: Instant) -> None:
    step, call = _call_of(plan, state, fact.attempt)
    step.status = step_status_after(step.status, fact)
    call.number = fact.attempt.number
    call.retry_at, call.failure = fact.retry_at, fact.failure
    if call.failed_first_at is None:
        call.failed_first_at = at
    if fact.outcome in (AttemptOutcome.RETRY_LATER, AttemptOutcome.NOT_SENT):
        call.postponed += 1
        return
    call.failures += 1
    if fact.outcome is AttemptOutcome.MISCONFIGURED:
        call.faults += 1
    if fact.outcome is AttemptOutcome.UNKNOWN and fact.attempt.direction is Direction.EXECUTE:
        step.in_doubt = True  # R5


def _record_turn_back(state: SagaState, fact: SagaTurnedBack, at: Instant) -> None:
    state.status = saga_status_after(state.status, fact)
    state.cause, state.failure, state.quiet_at = fact.cause, fact.failure, fact.quiet_at
    state.failed_step = fact.step_id
    for step in state.steps:
        call = step.execute
        if step.status is not StepStatus.EXECUTING or call is None or call.not_before <= at:
            continue
        # In backoff: at rest at once (R12). Without any attempt in doubt it is known to have had no effect.
        step.status = StepStatus.UNKNOWN if step.in_doubt else StepStatus.REJECTED
        call.retry_at, step.ended_at = None, at


def _record_recovery(plan: SagaPlan, state: SagaState, fact: SagaRecovered, at: Instant) -> None:
    state.status = saga_status_after(state.status, fact)
    for attempt in fact.in_doubt:
        step, call = _call_of(plan, state, attempt)
        call.number = attempt.number
        call.retry_at = max(call.not_before, at)
        if attempt.direction is Direction.EXECUTE:
            step.in_doubt = True  # R29, R5


def _release_compensations(plan: SagaPlan, state: SagaState, at: Instant) -> None:
    """Makes due what can be undone now: in the inverse order of the graph, independent steps together, once all is quiet (R12)."""
    if not state.is_quiet:
        return
    undone = [False] * len(state.steps)
    for index in plan.backward_order:
        step = state.steps[index]
        if not all(undone[successor] for successor in plan.successors[index]):
            continue
        if step.status not in MAY_HAVE_EFFECT or plan.steps[index].kind is StepKind.READ_ONLY:
            undone[index] = step.status not in (StepStatus.COMPENSATING, StepStatus.COMPENSATION_FAILED)
            continue
        step.status = StepStatus.COMPENSATING
        step.compensate = CallState(at, 1)
