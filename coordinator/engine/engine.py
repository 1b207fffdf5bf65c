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
from typing import assert_never

from coordinator.core.decide import advance
from coordinator.core.effects import CallParticipant
from coordinator.core.errors import CommandRefusedError
from coordinator.core.events import Event
from coordinator.core.inputs import Command, Input, NotSent, Recover, Replied, Wake
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.values import Code, Failure, Instant, SagaId
from coordinator.engine import declining
from coordinator.engine.commands import (
    CommandAccepted,
    CommandAnswer,
    CommandRefused,
    Declined,
    Existing,
    NotLive,
    StartCommand,
    Started,
)
from coordinator.engine.held import RESTING_MAX, Held
from coordinator.engine.ports import (
    Append,
    Appended,
    Clock,
    Committed,
    Dispatcher,
    Journal,
    Moved,
    Observer,
    Refused,
    SagaStart,
    StartLost,
    StoredSaga,
)
from coordinator.engine.shards import ONE_SHARD, Shards
from coordinator.engine.slot import EndListener, Slot, StartListener
from coordinator.engine.subscriptions import Subscriptions

_logger = logging.getLogger(__name__)


class Engine:
    """Holds the live sagas, decides what happens to them, and releases what they owe.

    It opens and closes none of its ports. Everything but `run` and `drain` happens in callbacks of the loop that made it.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        journal: Journal,
        dispatcher: Dispatcher,
        observers: Sequence[Observer] = (),
        shards: Shards = ONE_SHARD,
        live_sagas_max: int = declining.LIVE_SAGAS_MAX,
        resting_max: int = RESTING_MAX,
    ) -> None:
        self._clock = clock
        self._shards = shards
        self._journal = journal
        self._dispatcher = dispatcher
        self._observers = observers
        self._loop = asyncio.get_running_loop()
        self.held = Held(clock, self._wake, sagas_max=live_sagas_max, resting_max=resting_max)
        """The sagas in memory. For others to look at, and to hear who leaves; not to change."""
        self._inbox: deque[tuple[SagaId, Input]] = deque()
        self._turn_is_due = self._closing = self._holds_calls = False
        self._due: list[CallParticipant] = []
        self._subscriptions = Subscriptions()
        self._starts_uncommitted = self._uncommitted = self._in_flight = 0
        self._at_rest = asyncio.Event()
        self._set_aside: asyncio.Queue[tuple[SagaId, Failure]] = asyncio.Queue()
        self.lost_reason: asyncio.Future[Failure] = self._loop.create_future()
        """Set when the journal says that this process may not go on."""

    # ── Commands ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, command: StartCommand, answer: StartListener) -> None:
        """Starts a saga. `answer` is called once, after the commit that settles it."""
        there = self.held.find(command.saga_id)
        if there is not None:
            if there.uncommitted:
                there.starts.append((command, answer))
            else:
                answer(Existing(winner=command.saga_id, same=there.fingerprint == command.fingerprint, by_key=False))
            return
        declined, shard = self._reason_to_decline(command.saga_id), self._shards.place_for(command.saga_id)
        if declined is not None or shard is None:
            answer(Declined(failure=declined or declining.WITHOUT_SHARD))
            return
        slot = Slot(command.plan, SagaState(command.plan, command.saga_id), command.fingerprint, shard)
        slot.starts.append((command, answer))
        try:
            events = advance(slot.plan, slot.state, command.start, self._clock.now())
        except Exception as error:  # nothing of it is known to anybody yet, so there is nothing to set aside (P5)
            _logger.exception("saga cannot be started", extra={"saga.id": command.saga_id})
            answer(Declined(failure=Failure(Code.INTERNAL, f"cannot be started: {type(error).__name__}: {error}")))
            return
        self.held.add(slot)
        self._starts_uncommitted += 1
        self._journal.append((self._append_of(slot, events, command.saga_start(events[0].occurred_at)),))

    def _reason_to_decline(self, saga_id: SagaId) -> Failure | None:
        if self._closing:
            return declining.CLOSING
        if saga_id in self.held.abandoned:
            return declining.SETTLING
        if self._starts_uncommitted >= declining.STARTS_UNCOMMITTED_MAX:
            return declining.OVERLOADED
        return declining.FULL if self.held.is_full else None

    def command(self, saga_id: SagaId, command: Command, answer: Callable[[CommandAnswer], None]) -> None:
        """Does what a person or a participant asks. `answer` is called once, after the commit that settles it (R25)."""
        slot = self.held.find(saga_id)
        if slot is None or self._closing:
            answer(Declined(failure=declining.CLOSING) if self._closing else NotLive())
            return
        if slot.starts:
            # Its start may still be lost to another (R4): an append behind it would then hit the events of the winner.
            slot.after_commit.append(lambda kept: self.command(saga_id, command, answer) if kept else answer(NotLive()))
            return
        append, settled = self._advance_by_command(slot, command)
        if append is not None:
            self._journal.append((append,))
        elif not self.held.has(slot):
            answer(NotLive())  # it could not be advanced and was set aside
            return
        if slot.uncommitted:
            slot.after_commit.append(lambda kept: answer(settled if kept else NotLive()))  # R25
        else:
            answer(settled)
            self._rest_or_release(slot)
            self._send_due()
        self._request_turn()

    def _advance_by_command(self, slot: Slot, command: Command) -> tuple[Append | None, CommandAnswer]:
        try:
            append = self._advance(slot, command, self._clock.now())
        except CommandRefusedError as refused:
            return None, CommandRefused(status=refused.status, refusal=refused.refusal, message=str(refused))
        now = slot.time_at(self._clock.now())
        return append, CommandAccepted(plan=slot.plan, state=slot.state, now=now, events=() if append is None else append.events)

    def peek(self, saga_id: SagaId) -> tuple[SagaPlan, SagaState, Instant] | None:
        """A live saga of which everything decided is committed, and what time it is for it; None: the journal has what can be told.

        Keep nothing of it.
        """
        slot = self.held.find(saga_id)
        return None if slot is None or slot.uncommitted else (slot.plan, slot.state, slot.time_at(self._clock.now()))

    def on_end(self, saga_id: SagaId, listener: EndListener) -> bool:
        """Tells the listener once when the saga has ended or failed. False if it is not live, or has already: the journal has its end."""
        slot = self.held.find(saga_id)
        if slot is None or (slot.is_decided and not slot.uncommitted):
            return False
        slot.end_listeners.append(listener)
        return True

    def off_end(self, saga_id: SagaId, listener: EndListener) -> None:
        """Takes back `on_end`; harmless if it was told already."""
        slot = self.held.find(saga_id)
        if slot is not None and listener in slot.end_listeners:
            slot.end_listeners.remove(listener)
            self.held.note_rest(slot)

    def subscribe(self, saga_id: SagaId, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls the listener after every commit of the saga, and when this process stops committing; returns what ends that."""
        return self._subscriptions.add(saga_id, listener)

    @property
    def is_closing(self) -> bool:
        """Whether nothing new is begun any more."""
        return self._closing

    # ── Life ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def take_up(self, plan: SagaPlan, state: SagaState, stored: StoredSaga) -> bool:
        """Takes a saga into memory as the journal has it, to go on with it or for a command. Nothing may have changed it since it was read;
        does nothing if it is held already, or not ours to hold. False: a start of it, or what it left, is not settled yet: read it again.
        What it owes is put in doubt at once, not in a turn (R29): a cancel that came first would take calls made before for never sent."""
        if self._closing or not self._shards.holds(stored.shard):
            return True
        there = self.held.find(state.saga_id)
        if there is not None or state.saga_id in self.held.abandoned:
            return there is not None and not there.starts
        slot = Slot(plan, state, stored.fingerprint, stored.shard, stored.asleep_until)
        self.held.add(slot)
        slot.go_on_from(self._clock.now())
        append = self._advance(slot, Recover(), self._clock.now()) if stored.in_doubt else None
        if append is not None:
            self._journal.append((append,))
        else:
            self._release(slot)
            self._send_due()
        return True

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
        self.held.stop_timers()

    # ── Inputs from the ports ───────────────────────────────────────────────────────────────────────────────────────────────────

    def replied(self, replies: Sequence[tuple[SagaId, Replied]], /) -> None:
        """Calls of the dispatcher that have ended."""
        self._in_flight -= len(replies)
        self._inbox.extend(replies)
        self._request_turn()

    def appended(self, results: Sequence[Appended], /) -> None:
        """What became of appends: the only place from which anything is announced or released."""
        for result in results:
            slot = self.held.find(result.append.saga_id)
            self._uncommitted -= 1
            self._starts_uncommitted -= result.append.start is not None
            if slot is None:
                self.held.abandoned.note_back(result.append.saga_id)
                continue
            slot.uncommitted -= 1
            match result:
                case Committed():
                    self._announce(slot, result.append)
                case StartLost():
                    self._drop_lost_start(slot, result)
                case Refused():
                    self._drop(slot, result.failure)
                case Moved():
                    self._drop(slot, declining.MOVED)
                case _:
                    assert_never(result)
        self._send_due()
        self._notice_rest()

    def shards_lost(self, shards: frozenset[int], reason: Failure, /) -> None:
        """Other nodes drive their sagas now: drops them, and announces nothing more of them (R26)."""
        slots = {slot.state.saga_id: slot for slot in self.held.of_shards(shards)}
        self._due = [call for call in self._due if call.saga_id not in slots]
        for saga_id, slot in slots.items():
            if slot.released:
                self._dispatcher.withdraw(saga_id, tuple(sorted(slot.released)))
            self._drop(slot, reason)
        self._subscriptions.tell_all()  # also those of sagas that are not held: what was read of them may be out of date
        self._send_due()

    def lost(self, reason: Failure, /) -> None:
        """Nothing further will be committed by this process: drop ALL memory and announce nothing (R26)."""
        self._closing = True
        for memory in (self.held, self._inbox, self._due):
            memory.clear()
        self._at_rest.set()
        if not self.lost_reason.done():
            self.lost_reason.set_result(reason)
        self._subscriptions.tell_all()

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
        now = self._clock.now()
        while self._inbox:
            saga_id, happened = self._inbox.popleft()
            slot = self.held.find(saga_id)
            if slot is None:
                continue
            if isinstance(happened, Replied):
                slot.released.discard(happened.attempt)
            append = self._advance(slot, happened, now)
            if append is not None:
                batch.append(append)
            elif slot.uncommitted == 0:
                self._rest_or_release(slot)
        if batch:
            self._journal.append(batch)
        self._send_due()
        self._notice_rest()

    def _advance(self, slot: Slot, happened: Input, now: Instant) -> Append | None:
        """What has to be journalled; None: nothing, or the saga could not be advanced and is no longer held.

        Raises CommandRefusedError for a command that the status forbids.
        """
        before = slot.restraints
        try:
            events = advance(slot.plan, slot.state, happened, slot.time_at(now))
        except CommandRefusedError:
            raise
        except Exception as error:
            self._stop(slot, error)
            return None
        if not events:
            return None
        after = slot.restraints
        if after != before and after.is_tighter_than(before):
            self._withdraw(slot)
        return self._append_of(slot, events, None)

    def _append_of(self, slot: Slot, events: tuple[Event, ...], start: SagaStart | None) -> Append:
        slot.uncommitted += 1
        self._uncommitted += 1
        self.held.note_motion(slot)
        return slot.append_of(events, start)

    def _stop(self, slot: Slot, error: Exception) -> None:
        """A poison saga stops alone (P5): its state may be half changed, so nothing more of it is used."""
        saga_id = slot.state.saga_id
        _logger.error("saga cannot be advanced", exc_info=error, extra={"saga.id": saga_id})
        failure = Failure(Code.INTERNAL, f"cannot be advanced: {type(error).__name__}: {error}")
        self._set_aside.put_nowait((saga_id, failure))
        self._drop(slot, failure)

    def _withdraw(self, slot: Slot) -> None:
        """The saga turned back, shall, or was stopped: what was not sent yet need not be. Not sending is no effect, so it waits for no
        commit.
        """
        state = slot.state
        for call in [call for call in self._due if call.saga_id == state.saga_id]:
            self._due.remove(call)  # the dispatcher does not know it yet, so it could not take it back
            slot.released.discard(call.attempt)
        if slot.released:
            self._dispatcher.withdraw(state.saga_id, tuple(sorted(slot.released)))
        if not slot.restraints.turned_back and not slot.restraints.shall_turn_back:
            return  # what it owes stays owed, until it is resumed
        not_sent = NotSent(failure=declining.WITHDRAWN)
        self._inbox.extend((state.saga_id, Replied(attempt=attempt, outcome=not_sent)) for attempt in slot.unsent_executions())

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
        self._subscriptions.tell(append.saga_id)
        if append.start is not None and any(slot.restraints):
            self._withdraw(slot)  # it shall turn back from its very start: then nothing of it need be sent
            self._take_turn()
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
        if slot.uncommitted or not self.held.has(slot):
            return  # whoever was told has asked for more
        if slot.is_decided:
            end_listeners, slot.end_listeners = slot.end_listeners, []
            for end_listener in end_listeners:
                end_listener((slot.plan, slot.state))
        self._rest_or_release(slot)

    def _rest_or_release(self, slot: Slot) -> None:
        """Lets go of a saga that cannot move by itself and expects no answer; otherwise hands over what it owes."""
        if not self.held.has(slot) or slot.uncommitted:
            return
        if slot.state.is_unfinished or slot.released:
            self._release(slot)
        else:
            self.held.forget(slot)

    def _release(self, slot: Slot) -> None:
        """Hands over what is owed and due, and sets the timer for what is not due yet. Everything decided is committed here."""
        if self._closing or not self.held.has(slot):
            return
        try:
            due, wake_at = slot.take_due(self._clock.now())
        except Exception as error:
            self._stop(slot, error)
            return
        self._due += due
        self.held.wake_at(slot, wake_at)

    def hold_calls(self, *, is_holding: bool) -> None:
        """Sends nothing while holding, and then all that is still due."""
        self._holds_calls = is_holding
        self._send_due()

    def _send_due(self) -> None:
        if self._due and not self._holds_calls and self._shards.is_current():
            due, self._due = self._due, []
            self._in_flight += len(due)
            self._dispatcher.send(due)

    def _drop_lost_start(self, slot: Slot, lost: StartLost) -> None:
        self.held.forget(slot)
        (_, answer), *others = slot.starts
        answer(Existing(winner=lost.winner, same=lost.same, by_key=lost.by_key))
        slot.starts = []
        slot.dismiss()
        for command, other_answer in others:
            self.start(command, other_answer)

    def _drop(self, slot: Slot, failure: Failure) -> None:
        self.held.forget(slot)
        for _, answer in slot.starts:
            answer(Declined(failure=failure))
        slot.dismiss()

    def _notice_rest(self) -> None:
        if self._closing and not self._uncommitted and not self._in_flight and not self._inbox:
            self._at_rest.set()
