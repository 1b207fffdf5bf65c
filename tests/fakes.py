"""Fakes of the engine's ports that do nothing by themselves: time passes, commits come and calls end only when a test says so."""

import asyncio
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import cast

from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import Command, Outcome, Replied, Start
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.values import AttemptKey, DefinitionKey, Failure, Instant, SagaId, SagaStatus
from coordinator.engine.commands import CommandAnswer, StartAnswer, StartCommand
from coordinator.engine.declining import LIVE_SAGAS_MAX
from coordinator.engine.engine import Engine
from coordinator.engine.held import RESTING_MAX
from coordinator.engine.ports import (
    Append,
    Appended,
    Committed,
    Journal,
    JournalListener,
    Refused,
    ReplyListener,
    StartKey,
    StartLost,
    StoredSaga,
)
from coordinator.engine.reviver import Reviver
from tests.builders import DEFINITION, INPUT, SAGA, TRACE, Story, at, failure, seconds


async def one_turn() -> None:
    """Lets the loop run what is ready. No time passes."""
    for _ in range(3):
        await asyncio.sleep(0)


class VirtualClock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self._now = at(1_000)
        self._timers: list[tuple[Instant, int, Callable[[], None]]] = []
        self._cancelled: set[int] = set()
        self._made = 0

    def now(self) -> Instant:
        return self._now

    def call_at(self, instant: Instant, callback: Callable[[], None], /) -> Callable[[], None]:
        self._made += 1
        number = self._made
        heappush(self._timers, (instant, number, callback))
        return lambda: self._cancelled.add(number)

    @property
    def armed(self) -> list[Instant]:
        """Instants of the timers that are set, in order."""
        return sorted(instant for instant, number, _ in self._timers if number not in self._cancelled)

    def fire_at(self, instant: Instant) -> None:
        """Moves time to that instant and fires what is due, without giving the loop a turn."""
        while self._timers and self._timers[0][0] <= instant:
            due, number, callback = heappop(self._timers)
            if number not in self._cancelled:
                self._now = max(self._now, due)
                callback()
        self._now = instant

    async def pass_time(self, by_s: float) -> None:
        """Moves time; timers that become due fire, each at its own instant."""
        until = Instant(self._now + seconds(by_s))
        while self._timers and self._timers[0][0] <= until:
            instant, number, callback = heappop(self._timers)
            if number not in self._cancelled:
                self._now = max(self._now, instant)
                callback()
                await one_turn()
        self._now = until
        await one_turn()


def stored_of(story: Story, saga_id: SagaId = SAGA, *, in_doubt: bool = True, asleep_until: Instant | None = None) -> StoredSaga:
    """The saga as a journal has it. `in_doubt`: whether it was left by an earlier process."""
    assert story.status is not None
    return StoredSaga(
        saga_id=saga_id,
        definition=DEFINITION,
        fingerprint=b"order-42",
        status=story.status,
        created_at=Instant(0),
        ended_at=story.state.ended_at,
        is_paused=story.state.paused is not None,
        needs_person=story.state.needs_person,
        events=tuple(story.journal),
        labels=(),
        quarantined=None,
        in_doubt=in_doubt,
        asleep_until=asleep_until,
    )


class HandJournal:
    """Takes appends and lets the test say what becomes of them. Only what the engine itself asks of a journal."""

    def __init__(self, stored: Sequence[StoredSaga] = ()) -> None:
        self.listener: JournalListener
        self.queued: list[Append] = []
        self.committed: list[Append] = []
        self.batches: list[int] = []
        self.quarantined: list[tuple[SagaId, Failure]] = []
        self.may_read_on = asyncio.Event()
        """Whether the page after one is there already."""
        self.may_read_on.set()
        self._stored = sorted(stored, key=lambda saga: saga.saga_id)

    def append(self, batch: Sequence[Append], /) -> None:
        self.queued += batch
        self.batches.append(len(batch))

    async def quarantine(self, saga_id: SagaId, failure: Failure, /) -> None:
        self.quarantined.append((saga_id, failure))

    async def load_awake(self, after: SagaId | None, limit: int, /, *, shard: int = 0) -> Sequence[StoredSaga]:
        if after is not None:
            await self.may_read_on.wait()
        awake = (saga for saga in self._stored if saga.asleep_until is None)
        return [saga for saga in awake if after is None or saga.saga_id > after][:limit]

    async def find_asleep(
        self, since: Instant, until: Instant, after: tuple[Instant, SagaId] | None, limit: int, /, *, shard: int = 0
    ) -> Sequence[tuple[Instant, SagaId]]:
        asleep = [(saga.asleep_until, saga.saga_id) for saga in self._stored if saga.asleep_until is not None]
        return sorted(place for place in asleep if since <= place[0] < until and (after is None or place > after))[:limit]

    async def load(self, ids: Sequence[SagaId], /) -> Sequence[StoredSaga]:
        return [saga for saga in self._stored if saga.saga_id in ids]

    def commit(self, count: int | None = None) -> None:
        """The oldest appends are in."""
        taken, self.queued = self.queued[:count], self.queued[len(self.queued) if count is None else count :]
        self.committed += taken
        self.listener.appended([Committed(append=append) for append in taken])

    def lose_start(self, winner: SagaId, *, same: bool, by_key: bool) -> None:
        """The oldest append, a start, is lost to another."""
        self._settle(StartLost(append=self.queued.pop(0), winner=winner, same=same, by_key=by_key))

    def refuse(self) -> None:
        """The oldest append will never be in."""
        self._settle(Refused(append=self.queued.pop(0), failure=failure(13, "no such page")))

    def _settle(self, result: Appended) -> None:
        self.listener.appended([result])


class RecordingDispatcher:
    """Keeps the calls; the test says how they end."""

    def __init__(self) -> None:
        self.listener: ReplyListener
        self.under_way: list[CallParticipant] = []
        self.withdrawn: list[tuple[SagaId, tuple[AttemptKey, ...]]] = []

    def send(self, calls: Sequence[CallParticipant], /) -> None:
        self.under_way += calls

    def withdraw(self, saga_id: SagaId, attempts: Sequence[AttemptKey], /) -> None:
        self.withdrawn.append((saga_id, tuple(attempts)))

    def abandon_waiting(self) -> int:
        """Nothing waits here: every call is under way as soon as it is sent."""
        return 0

    def sent(self) -> set[str]:
        """Who is called now, as `step direction number`."""
        return {f"{call.attempt.step_id} {call.attempt.direction.name.lower()} {call.attempt.number}" for call in self.under_way}

    async def end(self, step_id: str, outcome: Outcome, saga_id: SagaId = SAGA) -> None:
        """The call of that step ends."""
        (call,) = [call for call in self.under_way if (call.attempt.step_id, call.saga_id) == (step_id, saga_id)]
        await self.end_all([(call, outcome)])

    async def end_all(self, ends: Sequence[tuple[CallParticipant, Outcome]]) -> None:
        """Calls end, reported together."""
        for call, _ in ends:
            self.under_way.remove(call)
        self.listener.replied([(call.saga_id, Replied(attempt=call.attempt, outcome=outcome)) for call, outcome in ends])
        await one_turn()


class KnownPlans:
    """Plans by their keys; one key holds one that does not compile any more."""

    BROKEN = DefinitionKey("broken", 1)

    def __init__(self, *plans: SagaPlan) -> None:
        self._plans = {plan.key: plan for plan in plans}

    async def plan_of(self, key: DefinitionKey, /) -> SagaPlan:
        if key == self.BROKEN:
            raise ValueError("expected an expression, found nothing")
        return self._plans[key]


class Shell:
    """An engine over the fakes, and everything that it answered."""

    def __init__(self, stored: Sequence[StoredSaga] = (), *, live_sagas_max: int = LIVE_SAGAS_MAX, resting_max: int = RESTING_MAX) -> None:
        self.clock = VirtualClock()
        self.journal = HandJournal(stored)
        self.dispatcher = RecordingDispatcher()
        self.seen: list[tuple[SagaId, SagaStatus]] = []
        # The engine writes and quarantines; what else a journal can do is for others.
        self.engine = Engine(
            clock=self.clock,
            journal=cast("Journal", self.journal),
            dispatcher=self.dispatcher,
            observers=(self,),
            live_sagas_max=live_sagas_max,
            resting_max=resting_max,
        )
        self.journal.listener = self.dispatcher.listener = self.engine
        self.starts: list[StartAnswer] = []
        self.answers: list[CommandAnswer] = []
        self.ends: list[SagaStatus | None] = []

    def reviver(self, *plans: SagaPlan) -> Reviver:
        """Of what the journal has."""
        return Reviver(self.engine, cast("Journal", self.journal), KnownPlans(*plans))

    def take_up(self, story: Story, *, in_doubt: bool = False, asleep_until: Instant | None = None) -> None:
        """Takes a saga into memory as the journal has it."""
        self.engine.take_up(story.plan, story.state, stored_of(story, in_doubt=in_doubt, asleep_until=asleep_until))

    def committed(self, append: Append, plan: SagaPlan, state: SagaState, /) -> None:
        """The engine's observer: what was shown."""
        self.seen.append((append.saga_id, append.status))

    def start(
        self, plan: SagaPlan, saga_id: SagaId = SAGA, *, key: str = "", asks_for: str = "order-42", start_at: float | None = None
    ) -> None:
        """Somebody starts a saga."""
        start = Start(input=INPUT, idempotency_key=key, start_at=None if start_at is None else at(start_at), trace=TRACE)
        start_key = StartKey(definition_name=plan.key.name, key=key, expires_at=at(10_000)) if key else None
        command = StartCommand(saga_id=saga_id, plan=plan, start=start, fingerprint=asks_for.encode(), key=start_key)
        self.engine.start(command, self.starts.append)

    async def run(self, plan: SagaPlan, saga_id: SagaId = SAGA) -> None:
        """A saga is started, and that is committed."""
        self.start(plan, saga_id)
        self.journal.commit()
        await one_turn()

    async def end_and_commit(self, step_id: str, outcome: Outcome, saga_id: SagaId = SAGA) -> None:
        """A call ends, and what follows is committed."""
        await self.dispatcher.end(step_id, outcome, saga_id)
        self.journal.commit()
        await one_turn()

    def command(self, command: Command, saga_id: SagaId = SAGA) -> None:
        """Somebody asks for something; the answer is kept."""
        self.engine.command(saga_id, command, self.answers.append)

    async def command_and_commit(self, command: Command, saga_id: SagaId = SAGA) -> CommandAnswer:
        """Somebody asks for something, and whatever follows is committed; returns the answer."""
        self.command(command, saga_id)
        await self.settle()
        return self.answers[-1]

    async def settle(self) -> None:
        """Everything that was decided is committed, and everything that follows from it at once."""
        await one_turn()
        while self.journal.queued:
            self.journal.commit()
            await one_turn()

    def listen_for_end(self, saga_id: SagaId = SAGA) -> bool:
        """Notes how the saga ends; None: it is no longer held."""
        return self.engine.on_end(saga_id, lambda ended: self.ends.append(None if ended is None else ended[1].status))
