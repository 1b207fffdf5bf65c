"""The loop that drives every saga of this process.

EVENTS ARE COMMITTED BEFORE ANY EFFECT THEY JUSTIFY IS RELEASED.
NOTHING IS ANNOUNCED THAT IS NOT IN THE JOURNAL.

One turn takes what is in the inbox, decides, applies, and hands the events to the journal as one batch, without waiting anywhere in
between. When the journal says that everything a saga has decided is committed, what it owes by then is released.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, assert_never

from coordinator.core.decide import advance
from coordinator.core.effects import CallParticipant
from coordinator.core.errors import CommandRefusedError
from coordinator.core.events import Event
from coordinator.core.inputs import Cancel, Input, NotSent, Recover, Replied, Wake
from coordinator.core.pending import call_participant, pending
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.values import UNFINISHED, AttemptKey, Code, Direction, Failure, SagaId, SagaStatus, StepStatus
from coordinator.engine.commands import (
    CancelAccepted,
    CancelAnswer,
    CancelRefused,
    Declined,
    Existing,
    NotLive,
    StartCommand,
    Started,
)
from coordinator.engine.ports import Append, Appended, Clock, Committed, Dispatcher, Journal, Observer, Refused, SagaStart, StartLost
from coordinator.engine.slot import EndListener, Slot, StartListener
from coordinator.engine.timers import Timers

STARTS_UNCOMMITTED_MAX: Final = 10_000
"""Starts that may wait for their commit; more are declined, so that a database that is away cannot fill the memory."""
CLOSING: Final = Failure(Code.UNAVAILABLE, "the coordinator is closing; send the same request again")
OVERLOADED: Final = Failure(Code.UNAVAILABLE, f"{STARTS_UNCOMMITTED_MAX} starts wait for the database already; send the same request again")
SETTLING: Final = Failure(Code.UNAVAILABLE, "what is known of this saga is being settled; send the same request again")
TURNED_BACK: Final = Failure(Code.CANCELLED, "not sent: the saga turned back first")

_logger = logging.getLogger(__name__)


class Engine:
    """Holds the live sagas, decides what happens to them, and releases what they owe.

    It opens and closes none of its ports. Everything but `run` and `drain` happens in callbacks of the loop that made it.
    """

    def __init__(self, *, clock: Clock, journal: Journal, dispatcher: Dispatcher, observers: Sequence[Observer] = ()) -> None:
        self._clock = clock
        self._journal = journal
        self._dispatcher = dispatcher
        self._observers = observers
        self._loop = asyncio.get_running_loop()
        self._slots: dict[SagaId, Slot] = {}
        self._abandoned: dict[SagaId, int] = {}
        """Appends under way of sagas that were dropped meanwhile: nothing may be begun under such an id before they have come back."""
        self._inbox: deque[tuple[SagaId, Input]] = deque()
        self._turn_is_due = False
        self._due: list[CallParticipant] = []
        self._timers = Timers(clock, self._wake)
        self._commit_listeners: dict[SagaId, set[Callable[[], None]]] = {}
        self._starts_uncommitted = 0
        self._uncommitted = 0
        self._in_flight = 0
        self._closing = False
        self._at_rest = asyncio.Event()
        self._set_aside: asyncio.Queue[tuple[SagaId, Failure]] = asyncio.Queue()
        self.lost_reason: asyncio.Future[Failure] = self._loop.create_future()
        """Set when the journal says that this process may not go on."""

    # ── Commands ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, command: StartCommand, answer: StartListener) -> None:
        """Starts a saga. `answer` is called once, after the commit that settles it."""
        held = self._slots.get(command.saga_id)
        if held is not None:
            if held.uncommitted:
                held.starts.append((command, answer))
            else:
                answer(Existing(winner=command.saga_id, same=held.fingerprint == command.fingerprint, by_key=False))
            return
        declined = self._reason_to_decline(command.saga_id)
        if declined is not None:
            answer(Declined(failure=declined))
            return
        slot = Slot(command.plan, SagaState(command.plan, command.saga_id), command.fingerprint, recovered=False)
        slot.starts.append((command, answer))
        events = advance(slot.plan, slot.state, command.start, self._clock.now())
        start = SagaStart(
            definition=command.plan.key,
            fingerprint=command.fingerprint,
            labels=command.start.labels,
            key=command.key,
            created_at=events[0].occurred_at,
        )
        self._slots[command.saga_id] = slot
        self._starts_uncommitted += 1
        self._journal.append((self._append_of(slot, events, start),))

    def _reason_to_decline(self, saga_id: SagaId) -> Failure | None:
        if self._closing:
            return CLOSING
        if saga_id in self._abandoned:
            return SETTLING
        return OVERLOADED if self._starts_uncommitted >= STARTS_UNCOMMITTED_MAX else None

    def cancel(self, saga_id: SagaId, cancel: Cancel, answer: Callable[[CancelAnswer], None]) -> None:
        """Turns a saga back. `answer` is called once, after the commit that settles it."""
        slot = self._slots.get(saga_id)
        if slot is None or self._closing:
            answer(Declined(failure=CLOSING) if self._closing else NotLive())
            return
        if slot.starts:
            # Its start may still be lost to another (R4): an append behind it would then hit the events of the winner.
            slot.after_commit.append(lambda kept: self.cancel(saga_id, cancel, answer) if kept else answer(NotLive()))
            return
        accepted: CancelAnswer = CancelAccepted(plan=slot.plan, state=slot.state)
        try:
            append = self._advance(slot, cancel)
        except CommandRefusedError as refused:
            append, accepted = None, CancelRefused(status=refused.status)
        if append is not None:
            self._journal.append((append,))
        elif self._slots.get(saga_id) is not slot:
            answer(NotLive())  # it could not be advanced and was set aside
            return
        if slot.uncommitted:
            slot.after_commit.append(lambda kept: answer(accepted if kept else NotLive()))  # R25
        else:
            answer(accepted)
        self._request_turn()

    def on_end(self, saga_id: SagaId, listener: EndListener) -> bool:
        """Tells the listener once when the saga has ended or failed. False if the saga is not live: then the journal has its end."""
        slot = self._slots.get(saga_id)
        if slot is None:
            return False
        slot.end_listeners.append(listener)
        return True

    def off_end(self, saga_id: SagaId, listener: EndListener) -> None:
        """Takes back `on_end`; harmless if it was told already."""
        slot = self._slots.get(saga_id)
        if slot is not None and listener in slot.end_listeners:
            slot.end_listeners.remove(listener)

    def subscribe(self, saga_id: SagaId, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls the listener after every commit of the saga, and when this process stops committing; returns what ends that."""
        listeners = self._commit_listeners.setdefault(saga_id, set())
        listeners.add(listener)

        def unsubscribe() -> None:
            listeners.discard(listener)
            if not listeners and self._commit_listeners.get(saga_id) is listeners:
                del self._commit_listeners[saga_id]

        return unsubscribe

    @property
    def live_sagas(self) -> int:
        """Sagas held in memory."""
        return len(self._slots)

    @property
    def is_closing(self) -> bool:
        """Whether nothing new is begun any more."""
        return self._closing

    # ── Life ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def recover(self, plan: SagaPlan, state: SagaState, fingerprint: bytes) -> None:
        """Takes up a saga that an earlier process left unfinished (R29).

        At once and not in a turn: a cancel that came first would take calls that the earlier process made for calls never sent.
        """
        slot = Slot(plan, state, fingerprint, recovered=True)
        self._slots[state.saga_id] = slot
        append = self._advance(slot, Recover())
        if append is not None:
            self._journal.append((append,))
        else:
            self._release(slot)
            self._send_due()

    async def run(self) -> None:
        """Sets sagas aside in the journal that could not be advanced. Runs until it is cancelled."""
        while True:
            saga_id, failure = await self._set_aside.get()
            try:
                await self._journal.quarantine(saga_id, failure)
            except Exception:  # the saga is out of memory in any case; the next start sets it aside again
                _logger.exception("saga could not be set aside in the journal", extra={"saga.id": saga_id})

    async def drain(self) -> None:
        """Begins nothing new, and returns when calls under way have come back and everything decided is committed."""
        if not self._closing:
            self._closing = True
            self._in_flight -= self._dispatcher.abandon_waiting()
        self._notice_rest()
        await self._at_rest.wait()
        self._timers.close()

    # ── Inputs from the ports ───────────────────────────────────────────────────────────────────────────────────────────────────

    def replied(self, replies: Sequence[tuple[SagaId, Replied]], /) -> None:
        """Calls of the dispatcher that have ended."""
        self._in_flight -= len(replies)
        self._inbox.extend(replies)
        self._request_turn()

    def appended(self, results: Sequence[Appended], /) -> None:
        """What became of appends: the only place from which anything is announced or released."""
        for result in results:
            slot = self._slots.get(result.append.saga_id)
            self._uncommitted -= 1
            self._starts_uncommitted -= result.append.start is not None
            if slot is None:
                self._count_abandoned(result.append.saga_id)
                continue
            slot.uncommitted -= 1
            match result:
                case Committed():
                    self._announce(slot, result.append)
                case StartLost():
                    self._drop_lost_start(slot, result)
                case Refused():
                    self._drop(slot, result.failure)
                case _:
                    assert_never(result)
        self._send_due()
        self._notice_rest()

    def lost(self, reason: Failure, /) -> None:
        """Nothing further will be committed by this process: drop ALL memory and announce nothing (R26)."""
        self._closing = True
        self._slots.clear()
        self._abandoned.clear()
        self._inbox.clear()
        self._due.clear()
        self._timers.close()
        self._at_rest.set()
        if not self.lost_reason.done():
            self.lost_reason.set_result(reason)
        for listeners in list(self._commit_listeners.values()):
            for listener in list(listeners):
                listener()

    def _wake(self, saga_id: SagaId) -> None:
        self._inbox.append((saga_id, Wake()))
        self._request_turn()

    # ── The turn ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _request_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn_is_due = False
        batch: list[Append] = []
        while self._inbox:
            saga_id, happened = self._inbox.popleft()
            slot = self._slots.get(saga_id)
            if slot is None:
                continue
            if isinstance(happened, Replied):
                slot.released.discard(happened.attempt)
            append = self._advance(slot, happened)
            if append is not None:
                batch.append(append)
            elif slot.uncommitted == 0:
                self._release(slot)
        if batch:
            self._journal.append(batch)
        self._send_due()
        self._notice_rest()

    def _advance(self, slot: Slot, happened: Input) -> Append | None:
        """What has to be journalled; None: nothing, or the saga could not be advanced and is no longer held.

        Raises CommandRefusedError for a command that the status forbids.
        """
        before = slot.state.status
        try:
            events = advance(slot.plan, slot.state, happened, self._clock.now())
        except CommandRefusedError:
            raise
        except Exception as error:
            self._stop(slot, error)
            return None
        if not events:
            return None
        if before is not SagaStatus.COMPENSATING and slot.state.status is SagaStatus.COMPENSATING:
            self._withdraw(slot)
        return self._append_of(slot, events, None)

    def _append_of(self, slot: Slot, events: tuple[Event, ...], start: SagaStart | None) -> Append:
        state = slot.state
        assert state.status is not None, "a saga with events has a status"
        slot.uncommitted += 1
        self._uncommitted += 1
        wake_at = state.start_at if state.status is SagaStatus.PENDING else None
        return Append(saga_id=state.saga_id, events=events, status=state.status, wake_at=wake_at, start=start)

    def _stop(self, slot: Slot, error: Exception) -> None:
        """A poison saga stops alone (P5): its state may be half changed, so nothing more of it is used."""
        saga_id = slot.state.saga_id
        _logger.error("saga cannot be advanced", exc_info=error, extra={"saga.id": saga_id})
        failure = Failure(Code.INTERNAL, f"cannot be advanced: {type(error).__name__}: {error}")
        self._set_aside.put_nowait((saga_id, failure))
        self._drop(slot, failure)

    def _withdraw(self, slot: Slot) -> None:
        """The saga turned back: executions that were not sent yet need not be. Not sending is no effect, so it waits for no commit."""
        state = slot.state
        for call in [call for call in self._due if call.saga_id == state.saga_id]:
            self._due.remove(call)  # the dispatcher does not know it yet, so it could not take it back
            slot.released.discard(call.attempt)
        if slot.released:
            self._dispatcher.withdraw(state.saga_id, tuple(slot.released))
        for step_plan, step in zip(slot.plan.steps, state.steps, strict=True):
            if step.status is not StepStatus.EXECUTING or step.execute is None:
                continue
            attempt = AttemptKey(step_plan.id, Direction.EXECUTE, step.execute.round, step.execute.number + 1)
            sent_by_earlier_process = slot.recovered and step.in_doubt  # it is awaited until the saga is quiet (R12)
            if attempt not in slot.released and not sent_by_earlier_process:
                self._inbox.append((state.saga_id, Replied(attempt=attempt, outcome=NotSent(failure=TURNED_BACK))))

    # ── After the commit ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _announce(self, slot: Slot, append: Append) -> None:
        for observer in self._observers:
            try:
                observer.committed(append, slot.plan, slot.state)
            except Exception:  # a broken sink never stops a saga (P5)
                _logger.exception("observer failed", extra={"saga.id": append.saga_id})
        if append.start is not None and slot.starts:
            _, answer = slot.starts.pop(0)
            answer(Started(plan=slot.plan, state=slot.state))
        for listener in list(self._commit_listeners.get(append.saga_id, ())):
            listener()
        if not slot.uncommitted:
            self._settle(slot)

    def _settle(self, slot: Slot) -> None:
        """Everything decided of a saga is committed: answers who waited for that, then releases what is owed or lets go of it."""
        starts, slot.starts = slot.starts, []
        for command, answer in starts:
            answer(Existing(winner=slot.state.saga_id, same=slot.fingerprint == command.fingerprint, by_key=False))
        waiting, slot.after_commit = slot.after_commit, []
        for told in waiting:
            told(True)
        if slot.uncommitted or self._slots.get(slot.state.saga_id) is not slot:
            return  # whoever was told has asked for more
        if slot.state.status in UNFINISHED:
            self._release(slot)
        else:
            self._forget(slot)
            for end_listener in slot.end_listeners:
                end_listener((slot.plan, slot.state))

    def _release(self, slot: Slot) -> None:
        """Hands over what is owed and due, and sets the timer for what is not due yet. Everything decided is committed here."""
        if self._closing or self._slots.get(slot.state.saga_id) is not slot:
            return
        owed = pending(slot.plan, slot.state)
        now = self._clock.now()
        wake_at = owed.wake_at
        due: list[CallParticipant] = []
        for call in owed.calls:
            if call.attempt in slot.released:
                continue
            if call.not_before <= now:
                try:
                    due.append(call_participant(slot.plan, slot.state, call.attempt))
                except Exception as error:
                    self._stop(slot, error)
                    return
            elif wake_at is None or call.not_before < wake_at:
                wake_at = call.not_before
        slot.released.update(call.attempt for call in due)
        self._due += due
        self._timers.set(slot.state.saga_id, wake_at)

    def _send_due(self) -> None:
        if self._due:
            due, self._due = self._due, []
            self._in_flight += len(due)
            self._dispatcher.send(due)

    def _drop_lost_start(self, slot: Slot, lost: StartLost) -> None:
        self._forget(slot)
        (_, answer), *others = slot.starts
        answer(Existing(winner=lost.winner, same=lost.same, by_key=lost.by_key))
        slot.starts = []
        self._dismiss(slot)
        for command, other_answer in others:
            self.start(command, other_answer)

    def _drop(self, slot: Slot, failure: Failure) -> None:
        self._forget(slot)
        for _, answer in slot.starts:
            answer(Declined(failure=failure))
        self._dismiss(slot)

    def _dismiss(self, slot: Slot) -> None:
        for told in slot.after_commit:
            told(False)
        for end_listener in slot.end_listeners:
            end_listener(None)

    def _forget(self, slot: Slot) -> None:
        del self._slots[slot.state.saga_id]
        if slot.uncommitted:
            self._abandoned[slot.state.saga_id] = slot.uncommitted
        self._timers.set(slot.state.saga_id, None)

    def _count_abandoned(self, saga_id: SagaId) -> None:
        left = self._abandoned.pop(saga_id, 0) - 1
        if left > 0:
            self._abandoned[saga_id] = left

    def _notice_rest(self) -> None:
        if self._closing and not self._uncommitted and not self._in_flight and not self._inbox:
            self._at_rest.set()
