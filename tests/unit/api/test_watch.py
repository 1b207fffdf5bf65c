"""Watching: every event once, in order, as it is committed, until the saga has ended (H2, R33)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from coordinator.api.errors import RefusedError
from coordinator.api.waits import OpenWaits
from coordinator.api.watch import Watches
from coordinator.core.inputs import Start
from coordinator.core.values import SagaId
from coordinator.engine.commands import StartAnswer, StartCommand
from coordinator.engine.engine import Engine
from coordinator.journal.memory_journal import MemoryJournal
from participant_sdk.rpc_errors import error_reason
from saga.v1 import coordinator_pb2, saga_pb2
from tests.builders import INPUT, SAGA, TRACE, compensated, rejected, sequence, succeeded
from tests.fakes import RecordingDispatcher, VirtualClock, one_turn

Seen = tuple[int, str, str]
WAIT_S = 5.0


class Stand:
    """An engine over the memory journal; a test says how calls end."""

    def __init__(self, journal: MemoryJournal, clock: VirtualClock) -> None:
        self.journal = journal
        self.dispatcher = RecordingDispatcher()
        self.engine = Engine(clock=clock, journal=journal, dispatcher=self.dispatcher)
        self.dispatcher.listener = self.engine
        journal.listen(self.engine)
        self.waits = OpenWaits()
        self.watches = Watches(self.engine, journal, self.waits)

    async def start(self, *steps: str) -> None:
        answered: asyncio.Future[StartAnswer] = asyncio.get_running_loop().create_future()
        start = Start(input=INPUT, trace=TRACE)
        command = StartCommand(saga_id=SAGA, plan=sequence(*steps), start=start, fingerprint=b"f" * 32, key=None)
        self.engine.start(command, answered.set_result)
        await answered
        await one_turn()

    async def seen(self, after: int = 0, saga_id: SagaId = SAGA) -> list[Seen]:
        """Everything that a watcher sees until the end."""
        async with asyncio.timeout(WAIT_S), aclosing(self.watches.watch(saga_id, after)) as watch:  # type: ignore[type-var]
            return [brief(response) async for response in watch]


def brief(response: coordinator_pb2.WatchSagaResponse) -> Seen:
    status = saga_pb2.SagaStatus.Name(response.status).removeprefix("SAGA_STATUS_")
    return response.event.sequence, response.event.WhichOneof("fact") or "", status


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    clock = VirtualClock()
    async with MemoryJournal(clock=clock) as journal:
        yield Stand(journal, clock)


COMPLETED: list[Seen] = [(1, "saga_started", "RUNNING"), (2, "step_succeeded", "RUNNING"), (3, "saga_completed", "COMPLETED")]


async def test_saga_that_has_ended_is_told_whole(stand: Stand) -> None:
    await stand.start("reserve")
    await stand.dispatcher.end("reserve", succeeded())
    assert await stand.seen() == COMPLETED


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_watch_goes_on_after_the_sequence_received_last(stand: Stand, after: int) -> None:  # H2
    await stand.start("reserve")
    await stand.dispatcher.end("reserve", succeeded())
    assert await stand.seen(after) == COMPLETED[after:]


async def test_running_saga_is_told_as_it_goes_on(stand: Stand) -> None:
    await stand.start("reserve", "charge")
    watching = asyncio.ensure_future(stand.seen())
    await one_turn()
    await stand.dispatcher.end("reserve", succeeded())
    await stand.dispatcher.end("charge", rejected(sealed=True))
    assert not watching.done()
    await stand.dispatcher.end("reserve", compensated())
    seen = await watching
    assert [sequence_ for sequence_, _, _ in seen] == list(range(1, len(seen) + 1))  # no gaps, nothing twice
    assert [fact for _, fact, _ in seen] == [
        "saga_started",
        "step_succeeded",
        "step_rejected",
        "saga_turned_back",
        "step_compensated",
        "saga_compensated",
    ]
    assert seen[-1][2] == "COMPENSATED"


async def test_many_watchers_see_the_same(stand: Stand) -> None:
    await stand.start("reserve")
    watching = [asyncio.ensure_future(stand.seen(after)) for after in (0, 0, 2)]
    await one_turn()
    await stand.dispatcher.end("reserve", succeeded())
    assert await asyncio.gather(*watching) == [COMPLETED, COMPLETED, COMPLETED[2:]]


async def test_closing_ends_a_watch_with_a_refusal(stand: Stand) -> None:
    await stand.start("reserve")
    watching = asyncio.ensure_future(stand.seen())
    await one_turn()
    stand.waits.close()
    with pytest.raises(RefusedError) as caught:
        await watching
    assert error_reason(caught.value.status) == "SHUTTING_DOWN"


async def test_watcher_that_goes_away_leaves_nothing_behind(stand: Stand) -> None:
    await stand.start("reserve")
    watching = asyncio.ensure_future(stand.seen())
    await one_turn()
    watching.cancel()
    await asyncio.wait([watching])
    await one_turn()
    assert stand.engine._commit_listeners == {}
    assert stand.watches._count == 0
    assert stand.waits._futures == set()
