"""What the engine keeps of one saga beside its state."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from coordinator.core.effects import CallParticipant
from coordinator.core.events import Event
from coordinator.core.pending import call_participant, pending
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.values import MICROS_PER_SECOND, AttemptKey, Direction, Instant, SagaStatus, StepStatus
from coordinator.engine.commands import StartAnswer, StartCommand
from coordinator.engine.ports import Append, SagaStart

HORIZON_US: Final = 60 * MICROS_PER_SECOND
"""A saga that does not move by itself for so long need not be held in memory."""
NEVER: Final = Instant(2**63 - 1)
"""Until when a saga sleeps that only a person can set in motion."""

StartListener = Callable[[StartAnswer], None]
"""Told once what became of a start."""
EndListener = Callable[[tuple[SagaPlan, SagaState] | None], None]
"""Told once, when the saga has ended or failed and that is committed. None: it is no longer held here; the journal has what there is."""


class Restraints(NamedTuple):
    """What keeps a saga from sending calls that it owed."""

    turned_back: bool
    shall_turn_back: bool
    paused: bool
    terminated: bool

    def is_tighter_than(self, before: "Restraints") -> bool:
        """Whether there is one now that was not there before."""
        return any(now and not then for now, then in zip(self, before, strict=True))


class Slot:
    """One live saga. Belongs to the engine alone."""

    __slots__ = (
        "after_commit",
        "ahead_us",
        "asleep_until",
        "end_listeners",
        "fingerprint",
        "plan",
        "released",
        "shard",
        "starts",
        "state",
        "uncommitted",
    )

    def __init__(self, plan: SagaPlan, state: SagaState, fingerprint: bytes, shard: int, asleep_until: Instant | None = None) -> None:
        self.plan = plan
        self.shard = shard
        self.state = state
        self.fingerprint = fingerprint
        self.ahead_us = 0
        """How far the time of the saga is ahead of the clock."""
        self.asleep_until = asleep_until
        """Until when its row says that it sleeps, once everything is committed; None: it does not."""
        self.uncommitted = 0
        """Appends under way. While there are any, nothing is released and nothing is answered from this state (R25)."""
        self.released: set[AttemptKey] = set()
        """Calls handed to the dispatcher that have not come back."""
        self.starts: list[tuple[StartCommand, StartListener]] = []
        """Starts with this id that wait for an answer; the first is the one that made it."""
        self.after_commit: list[Callable[[bool], None]] = []
        """Told True when nothing is uncommitted any more, False if the saga was dropped instead."""
        self.end_listeners: list[EndListener] = []

    def go_on_from(self, clock_now: Instant) -> None:
        """A saga lives in its own time. If the process before had a clock that was ahead, that time goes on from where it was: else nothing
        of the saga would move until the clock has caught up. What is PENDING begins by the clock, as its caller said.
        """
        if self.state.status is not SagaStatus.PENDING:
            self.ahead_us = max(0, self.state.updated_at - clock_now)

    def time_at(self, clock_now: Instant) -> Instant:
        """What time it is for the saga."""
        return Instant(clock_now + self.ahead_us)

    def take_due(self, clock_now: Instant) -> tuple[list[CallParticipant], Instant | None]:
        """The calls that are owed, due and not released yet, which they are from now on; and when to look again, by the clock."""
        owed, now = pending(self.plan, self.state), self.time_at(clock_now)
        wake_at = owed.wake_at
        due: list[CallParticipant] = []
        for call in owed.calls:
            if call.attempt in self.released:
                continue
            if call.not_before <= now:
                due.append(self._by_the_clock(call_participant(self.plan, self.state, call.attempt)))
            elif wake_at is None or call.not_before < wake_at:
                wake_at = call.not_before
        self.released.update(call.attempt for call in due)
        return due, None if wake_at is None else Instant(wake_at - self.ahead_us)

    def _by_the_clock(self, call: CallParticipant) -> CallParticipant:
        if not self.ahead_us or call.send_before is None:
            return call
        return replace(call, send_before=Instant(call.send_before - self.ahead_us))

    def append_of(self, events: tuple[Event, ...], start: SagaStart | None) -> Append:
        """What the journal is given, when these events have just been applied."""
        state = self.state
        assert state.status is not None, "a saga with events has a status"
        self.asleep_until = self._sleeps_until(events[-1].occurred_at)
        return Append(
            saga_id=state.saga_id,
            events=events,
            status=state.status,
            is_unfinished=state.is_unfinished,
            is_paused=state.paused is not None,
            has_ended=state.has_ended,
            wake_at=self.asleep_until,
            start=start,
            shard=self.shard,
        )

    def _sleeps_until(self, now: Instant) -> Instant | None:
        """When it next moves by itself, by the clock, if that is far away and none of its calls is under way; else None."""
        state = self.state
        if self.released or not state.is_unfinished:
            return None
        if state.paused is not None:
            return NEVER
        if state.status is SagaStatus.RUNNING:
            for step in state.steps:
                if step.status is StepStatus.EXECUTING and step.execute is not None and step.execute.retry_at is None:
                    return None  # the usual case, and on the hot path: a call is owed at once
        owed = pending(self.plan, state)
        instants = (owed.wake_at, *(call.not_before for call in owed.calls))
        wake_at = min((instant for instant in instants if instant is not None), default=None)
        return Instant(wake_at - self.ahead_us) if wake_at is not None and wake_at - now >= HORIZON_US else None

    def may_leave(self, clock_now: Instant) -> bool:
        """Whether it can be let go of: its row says when it is to be taken up again, that is not soon, and nobody waits for it here."""
        is_needed = self.uncommitted or self.released or self.starts or self.after_commit or self.end_listeners
        return self.asleep_until is not None and not is_needed and self.asleep_until - clock_now >= HORIZON_US

    def unsent_executions(self) -> Iterator[AttemptKey]:
        """Executions that are owed and were not handed to the dispatcher."""
        for plan, step in zip(self.plan.steps, self.state.steps, strict=True):
            if step.status is StepStatus.EXECUTING and step.execute is not None:
                attempt = AttemptKey(plan.id, Direction.EXECUTE, step.execute.round, step.execute.number + 1)
                if attempt not in self.released:
                    yield attempt

    def dismiss(self) -> None:
        """Tells whoever waits for the saga that it is no longer held here."""
        for told in self.after_commit:
            told(False)
        for end_listener in self.end_listeners:
            end_listener(None)

    @property
    def restraints(self) -> Restraints:
        """What keeps it from sending now."""
        state = self.state
        return Restraints(
            turned_back=state.status is SagaStatus.COMPENSATING,
            shall_turn_back=state.turn_back_requested is not None,
            paused=state.paused is not None,
            terminated=state.terminated is not None,
        )

    @property
    def is_decided(self) -> bool:
        """Whether whoever waits for the end of the saga can be told: it has ended, or a person is needed. A hook may still move."""
        return self.state.has_ended or self.state.status is SagaStatus.FAILED
