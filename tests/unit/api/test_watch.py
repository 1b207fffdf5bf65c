"""Watching: every event once, in order, as it is committed, until the saga has ended (H2, R33)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from coordinator.api.errors import RefusedError
from coordinator.api.waits import OpenWaits
from coordinator.api.watch import Watches
from coordinator.core.inputs import Command, RetryStep, Start, Terminate
from coordinator.core.plan import ON_SUCCESS, StepPlan
from coordinator.core.record import replay
from coordinator.core.values import SagaId, StepId
from coordinator.engine.commands import CommandAccepted, CommandAnswer, StartAnswer, StartCommand
from coordinator.engine.engine import Engine
from coordinator.journal.memory_journal import MemoryJournal
from participant_sdk.rpc_errors import error_reason
from saga.v1 import coordinator_pb2, saga_pb2
from tests.builders import INPUT, SAGA, TRACE, compensated, hook, key_expired, rejected, sequence, succeeded
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

    async def start(self, *steps: str, on_success: StepPlan | None = None) -> None:
        self.plan = replace(sequence(*steps), on_success=on_success)
        answered: asyncio.Future[StartAnswer] = asyncio.get_running_loop().create_future()
        start = Start(input=INPUT, trace=TRACE)
        command = StartCommand(saga_id=SAGA, plan=self.plan, start=start, fingerprint=b"f" * 32, key=None)
        self.engine.start(command, answered.set_result)
        await answered
        await one_turn()

    async def take_up(self) -> None:
        """The saga is taken up for a person, as the journal has it."""
        stored = await self.journal.find_saga(SAGA)
        assert stored is not None
        self.engine.take_up(self.plan, replay(self.plan, SAGA, stored.events), stored)

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


async def give(stand: Stand, command: Command) -> None:
    answered: asyncio.Future[CommandAnswer] = asyncio.get_running_loop().create_future()
    stand.engine.command(SAGA, command, answered.set_result)
    assert isinstance(await answered, CommandAccepted)
    await one_turn()


async def test_watch_goes_on_until_the_hook_is_at_rest(stand: Stand) -> None:  # R16
    await stand.start("reserve", on_success=hook(ON_SUCCESS))
    watching = asyncio.ensure_future(stand.seen())
    await stand.dispatcher.end("reserve", succeeded())
    await one_turn()
    assert not watching.done()
    await stand.dispatcher.end("on_success", rejected(sealed=True))
    assert [(fact, status) for _, fact, status in await watching][-3:] == [
        ("saga_completed", "COMPLETED"),
        ("step_rejected", "COMPLETED"),
        ("incident_opened", "COMPLETED"),
    ]


async def test_hook_that_is_tried_again_is_followed_like_the_first_time(stand: Stand) -> None:
    await stand.start("reserve", on_success=hook(ON_SUCCESS))
    await stand.dispatcher.end("reserve", succeeded())
    await stand.dispatcher.end("on_success", rejected(sealed=True))
    seen = await stand.seen()
    await stand.take_up()
    await give(stand, RetryStep(step_id=ON_SUCCESS))
    watching = asyncio.ensure_future(stand.seen(len(seen)))
    await one_turn()
    assert not watching.done()
    await stand.dispatcher.end("on_success", succeeded())
    assert [fact for _, fact, _ in await watching] == ["step_retried", "incident_closed", "step_succeeded"]


@pytest.mark.parametrize("page_events", [1, 2, 3, 5, 500])
async def test_pages_end_where_they_end_and_the_watch_where_the_saga_does(stand: Stand, page_events: int) -> None:
    """The fifth of these events ends the hook; the sixth has it tried again. A page that ends in between is not the end."""
    stand.watches = Watches(stand.engine, stand.journal, stand.waits, page_events=page_events)
    await stand.start("reserve", on_success=hook(ON_SUCCESS))
    await stand.dispatcher.end("reserve", succeeded())
    await stand.dispatcher.end("on_success", rejected(sealed=True))
    await stand.take_up()
    await give(stand, RetryStep(step_id=ON_SUCCESS))
    await stand.dispatcher.end("on_success", succeeded())
    seen = await stand.seen()
    assert [sequence_ for sequence_, _, _ in seen] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert seen[-1][1] == "step_succeeded"


async def test_failed_saga_is_watched_on_and_a_terminated_one_is_over(stand: Stand) -> None:  # R15
    await stand.start("reserve", "charge")
    await stand.dispatcher.end("reserve", succeeded())
    await stand.dispatcher.end("charge", rejected(sealed=True))
    await stand.dispatcher.end("reserve", key_expired())
    watching = asyncio.ensure_future(stand.seen())
    await one_turn()
    assert not watching.done()
    await stand.take_up()
    await give(stand, RetryStep(step_id=StepId("reserve")))
    await give(stand, Terminate(reason="written off"))
    seen = [(fact, status) for _, fact, status in await watching]
    assert seen[-3:] == [("step_retried", "COMPENSATING"), ("incident_closed", "COMPENSATING"), ("saga_terminated", "FAILED")]
    assert ("saga_failed", "FAILED") in seen


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
    assert stand.engine._subscriptions._listeners == {}
    assert stand.watches._count == 0
    assert stand.waits._futures == {}
