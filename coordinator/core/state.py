"""The state of one saga in memory. `record.apply` alone changes it; everybody else reads."""

from typing import Final, NamedTuple

from coordinator.core.events import IncidentOpened, StepCompletedEarly, TurnBackRequested
from coordinator.core.inputs import Resolution
from coordinator.core.plan import SagaPlan, StepPlan
from coordinator.core.values import (
    ENDED,
    UNFINISHED,
    AttemptKey,
    Failure,
    IncidentKind,
    Instant,
    Payload,
    SagaId,
    SagaStatus,
    StepId,
    StepStatus,
    TraceContext,
    TurnBackCause,
)

NO_TRACE: Final = TraceContext(traceparent="")
MAY_HAVE_EFFECT: Final = frozenset({StepStatus.SUCCEEDED, StepStatus.UNKNOWN})
"""Steps at rest that must be compensated when the saga turns back, if there is anything to undo (P4)."""
QUIET_GRACE_US: Final = 500_000
"""Added to the time that attempts in flight are waited for, so that their own deadline is heard first."""
IN_MOTION: Final = frozenset({StepStatus.EXECUTING, StepStatus.ACCEPTED})
"""Steps whose execution is not at rest."""


class PersonAction(NamedTuple):
    """Who did something to a saga, why, and when."""

    actor: str
    reason: str
    at: Instant


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
        "since",
        "unheard_until",
    )

    def __init__(self, due_at: Instant, round_: int, number: int = 0) -> None:
        self.due_at = due_at
        """When the first attempt of this round was due (R21)."""
        self.round = round_
        self.number = number
        """Number of the last attempt that has ended; the one owed is the next (R1)."""
        self.retry_at: Instant | None = None
        """When the next attempt is due; None: it was due at `due_at`, or nothing more is owed."""
        self.failure: Failure | None = None
        """The last one."""
        self.unheard_until: Instant | None = None
        """Until when a call that an earlier process made may still be at work, unheard; None: there is none."""
        self.count_anew(due_at)

    def count_anew(self, at: Instant) -> None:
        """The retry policy begins from the beginning: the call is new, or a person has it tried again."""
        self.since = at
        """From when the limit of the step counts."""
        self.failures = 0
        """Attempts that count for the retry policy (R7)."""
        self.faults = 0
        """Those of them that met a participant set up wrongly (R6)."""
        self.postponed = 0
        """Attempts that do not count: retry later, not sent (R7)."""
        self.failed_first_at: Instant | None = None

    def may_be_unheard(self, now: Instant) -> bool:
        """Whether a call that an earlier process made may still be at work."""
        return self.unheard_until is not None and now < self.unheard_until

    @property
    def not_before(self) -> Instant:
        """When the attempt that is owed may be handed to the network."""
        return self.due_at if self.retry_at is None else self.retry_at


class StepState:
    """How one step, or the hook, stands. Mutable; changed by `apply` only."""

    __slots__ = (
        "accepted_at", "accepted_attempt", "accepted_limit_us", "accepted_until", "compensate", "early", "ended_at", "execute", "failure",
        "handler_ran", "in_doubt", "input", "late_outcomes", "longest_call_us", "output", "plan", "progress", "progress_at", "resolution",
        "resolved", "status", "waits_for",
    )  # fmt: skip

    def __init__(self, plan: StepPlan, waits_for: int) -> None:
        self.plan = plan
        """What holds for this step in this saga: a person may have changed its policy."""
        self.longest_call_us = plan.attempt_timeout_us
        """How long a call of it may be under way, whatever was changed since it was made."""
        self.status = StepStatus.WAITING
        self.waits_for = waits_for
        """Predecessors that are not done yet (R14)."""
        self.execute: CallState | None = None
        """None until it is due."""
        self.compensate: CallState | None = None
        """None until the compensation is due."""
        self.in_doubt = False
        """Whether an earlier attempt of this round may have taken effect: a refusal is then not clean (R5)."""
        self.input: Payload | None = None
        """None until it is due."""
        self.output: Payload | None = None
        """None until it succeeded."""
        self.failure: Failure | None = None
        """Why its execution came to rest without success; None: it did not."""
        self.ended_at: Instant | None = None
        """When its execution came to rest."""
        self.handler_ran = False
        """Whether its compensation found something to undo."""
        self.accepted_attempt: AttemptKey | None = None
        """The attempt that was answered with an acceptance; None: none was."""
        self.accepted_at: Instant | None = None
        """When that answer was recorded."""
        self.accepted_until: Instant | None = None
        """Until when it must be completed; None unless ACCEPTED."""
        self.accepted_limit_us = 0
        """How long the participant said that it takes."""
        self.progress: Payload | None = None
        """What its participant told last."""
        self.progress_at: Instant | None = None
        """When that was recorded."""
        self.early: StepCompletedEarly | None = None
        """How it was completed while its call was still under way (R24)."""
        self.resolved: PersonAction | None = None
        """Who said how it ended; None: nobody had to (R17)."""
        self.resolution: Resolution | None = None
        """What that person said."""
        self.late_outcomes = 0
        """How many were recorded."""

    def begin_execution(self, given: Payload, at: Instant) -> None:
        """Its first round begins."""
        self.input = given
        self.execute = CallState(at, 1)

    def keep_alive(self, until: Instant, progress: Payload | None, at: Instant) -> None:
        """Its participant has more time to complete it, and may have told how far it is."""
        self.accepted_until = until
        if progress is not None:
            self.progress, self.progress_at = progress, at

    def settle(self, status: StepStatus, at: Instant) -> None:
        """Its execution has ended so; nothing more is owed for it."""
        self.status, self.ended_at, self.accepted_until, self.early = status, at, None, None
        if status is StepStatus.UNKNOWN:
            self.in_doubt = True  # R5: if it is tried again, its doubt is not forgotten
        if self.execute is not None:
            self.execute.retry_at = None

    @property
    def is_at_rest(self) -> bool:
        """Whether its execution was begun or could not be, and has ended without success."""
        return self.status in (StepStatus.REJECTED, StepStatus.UNKNOWN)


class IncidentState:
    """One incident. Mutable; changed by `apply` only."""

    __slots__ = ("closed_at", "fact", "opened_at")

    def __init__(self, opened_at: Instant, fact: IncidentOpened) -> None:
        self.opened_at = opened_at
        self.fact = fact
        self.closed_at: Instant | None = None
        """None while it is open."""


class SagaState:
    """How one saga stands. Mutable; changed by `apply` only. It is what expressions read: see `plan.Values`."""

    __slots__ = (
        "cause", "created_at", "deadline", "ended_at", "failed_step", "failure", "hook", "hook_id", "idempotency_key", "incidents", "input",
        "labels", "output", "paused", "payload_bytes", "quiet_at", "ready", "resumed", "saga_id", "sequence", "start_at", "started_at",
        "status", "steps", "terminated", "trace", "turn_back_requested", "updated_at",
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
        """What it returns; set before it is COMPLETED only if a person said it."""
        self.labels: tuple[tuple[str, str], ...] = ()
        self.idempotency_key = ""
        self.trace = NO_TRACE
        self.cause: TurnBackCause | None = None
        """Why it turned back; None while it goes forward."""
        self.failure: Failure | None = None
        """Why it turned back or was terminated."""
        self.failed_step: StepId | None = None
        """The step that made it turn back; None if none did."""
        self.turn_back_requested: TurnBackRequested | None = None
        """Why it will turn back if its pivot turns out not to have taken effect (R10); None: nobody asked, or the answer is known."""
        self.quiet_at: Instant | None = None
        """Until when attempts in flight are awaited after turning back (R12)."""
        self.paused: PersonAction | None = None
        self.terminated: PersonAction | None = None
        self.resumed: list[tuple[int, Instant]] = []
        """Sequence and instant of each fact by which a person led it out of FAILED, or ended it there."""
        self.payload_bytes = 0
        self.incidents: list[IncidentState] = []
        self.steps = [StepState(step, len(before)) for step, before in zip(plan.steps, plan.predecessors, strict=True)]
        self.ready: list[int] = []
        """Places of steps whose predecessors are all done, and which the saga has not reached yet."""
        self.hook: StepState | None = None
        """The hook that the saga reached at its end; None: it has none, or has not ended."""
        self.hook_id: StepId | None = None

    def output_of(self, index: int) -> Payload | None:
        """Output of a step; None if it did not run, or did not succeed."""
        return self.steps[index].output

    def step(self, plan: SagaPlan, step_id: StepId) -> StepState | None:
        """The step, or the hook that was reached; None: there is no such step, or the hook was not reached."""
        if step_id == self.hook_id:
            return self.hook
        index = plan.index_of.get(step_id)
        return None if index is None else self.steps[index]

    @property
    def is_quiet(self) -> bool:
        """Whether no execution can be under way any more."""
        return all(step.status is not StepStatus.EXECUTING for step in self.steps)

    @property
    def has_ended(self) -> bool:
        """Whether its outcome is final: COMPLETED, COMPENSATED or terminated. Its hook may still move."""
        return self.status in ENDED or self.terminated is not None

    @property
    def is_unfinished(self) -> bool:
        """Whether it can move by itself, or could if it were not paused (R16)."""
        return self.status in UNFINISHED or (self.hook is not None and self.hook.status in IN_MOTION)

    @property
    def needs_person(self) -> bool:
        """Whether an incident is open."""
        return any(incident.closed_at is None for incident in self.incidents)

    def find_open_incident(self, step_id: StepId | None, kind: IncidentKind | None = None) -> IncidentState | None:
        """The first open incident about a step (None: about the whole saga), of a kind; None: of any that asks a person to move the saga,
        which one about a late outcome does not.
        """
        for incident in self.incidents:
            if incident.closed_at is not None or incident.fact.step_id != step_id:
                continue
            if incident.fact.kind is kind or (kind is None and incident.fact.kind is not IncidentKind.LATE_OUTCOME):
                return incident
        return None

    def may_have_been_sent(self, call: CallState, now: Instant) -> bool:
        """Whether the attempt that is owed may have reached the participant, so that it may have taken effect. That its time is over says
        nothing: its answer may come later than whatever is decided now, since the process may have been stopped in between (P4).
        """
        return call.not_before <= (now if self.paused is None else self.paused.at)

    def may_be_under_way(self, step: StepState, call: CallState, now: Instant) -> bool:
        """Whether the attempt that is owed may be with the participant. While the saga is paused nothing more is sent, so that what was
        sent before has come to rest, or was never sent, when its time is over.
        """
        may_be_heard = self.paused is None or now < self.paused.at + step.longest_call_us + QUIET_GRACE_US
        return may_be_heard and self.may_have_been_sent(call, now)
