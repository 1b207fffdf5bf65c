"""Commands reach a saga wherever it is: held by the engine, or at rest in the journal; one at a time, and never twice."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from coordinator.api.errors import _REFUSALS, RefusedError
from coordinator.api.saga_commands import SagaCommands
from coordinator.core.errors import Refusal
from coordinator.core.events import Event
from coordinator.core.inputs import Cancel, Pause, ResolvedSkipped, ResolveStep, Resume, RetryStep, Terminate
from coordinator.core.values import Code, Failure, SagaId, SagaStatus, StepId
from coordinator.engine.commands import CommandAccepted
from coordinator.engine.ports import Clock, StoredSaga
from coordinator.journal.memory_journal import MemoryDatabase, MemoryJournal
from participant_sdk.rpc_errors import error_reason
from tests.builders import SAGA
from tests.fakes import one_turn
from tests.unit.api.stand import Stand, done, opened

SHIP = StepId("ship")
OTHER = SagaId("01900000-0000-7000-8000-000000000002")


async def reason_of(stand: Stand, command: object, saga_id: SagaId = SAGA) -> str:
    with pytest.raises(RefusedError) as caught:
        await stand.give(command, saga_id)  # type: ignore[arg-type]
    return error_reason(caught.value.status)


async def test_live_saga_takes_a_command(stand: Stand) -> None:
    await stand.start()
    assert await stand.give(Pause(actor="ann")) == 1
    assert (await stand.view()).state.paused is not None
    assert await stand.give(Pause(actor="ann")) == 0  # nothing had to change


async def test_failed_saga_is_taken_up_and_goes_on(stand: Stand) -> None:
    await stand.fail()
    assert len(stand.engine.held) == 0
    assert await stand.give(RetryStep(step_id=SHIP)) > 0
    assert len(stand.engine.held) == 1
    await stand.end("ship", done())
    assert await stand.status() is SagaStatus.COMPLETED
    assert len(stand.engine.held) == 0


async def test_failed_saga_of_an_earlier_process_is_taken_up_too() -> None:
    database = MemoryDatabase()
    async with opened(database) as before:
        await before.fail()
    async with opened(database) as after:
        await after.give(ResolveStep(step_id=SHIP, resolution=ResolvedSkipped(), reason="by hand"))
        assert await after.status() is SagaStatus.COMPLETED


async def test_refused_command_leaves_nothing_in_memory(stand: Stand) -> None:
    await stand.fail()
    assert await reason_of(stand, Cancel()) == "POINT_OF_NO_RETURN_PASSED"
    assert len(stand.engine.held) == 0
    sequence = (await stand.view()).state.sequence
    assert await reason_of(stand, Pause()) == "SAGA_STATUS"
    assert (await stand.view()).state.sequence == sequence


@pytest.mark.parametrize("command", [Pause(), Resume(), Cancel(), Terminate(reason="x"), RetryStep(step_id=SHIP)])
async def test_saga_that_has_ended_says_so(stand: Stand, command: object) -> None:
    await stand.fail()
    await stand.give(ResolveStep(step_id=SHIP, resolution=ResolvedSkipped(), reason="by hand"))
    assert await reason_of(stand, command) == "SAGA_ALREADY_ENDED"


async def test_saga_that_is_not_there_is_not_found(stand: Stand) -> None:
    assert await reason_of(stand, Pause()) == "SAGA_NOT_FOUND"


async def test_step_that_is_not_there_is_not_found(stand: Stand) -> None:
    await stand.start()
    assert await reason_of(stand, RetryStep(step_id=StepId("sail"))) == "STEP_NOT_FOUND"


async def test_saga_that_is_set_aside_takes_no_command(stand: Stand) -> None:
    await stand.fail()
    await stand.journal.quarantine(SAGA, Failure(Code.INTERNAL, "no such page"))
    assert await reason_of(stand, RetryStep(step_id=SHIP)) == "SAGA_QUARANTINED"


async def test_commands_at_the_same_time_are_each_applied_once(stand: Stand) -> None:
    """Both find the saga at rest: the second one must not hand it over again, as it was before the first."""
    await stand.fail()
    answers = await asyncio.gather(*(stand.give(RetryStep(step_id=SHIP)) for _ in range(5)), return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, int)] == [answers[0]]
    assert {error_reason(answer.status) for answer in answers if isinstance(answer, RefusedError)} == {"ATTEMPT_UNDER_WAY"}
    assert stand.dispatcher.sent() == {"ship execute 2"}
    assert stand.commands._flights == {}


async def test_command_that_comes_with_the_start_waits_for_it(stand: Stand) -> None:  # R4, R25
    starting = asyncio.ensure_future(stand.start())
    await asyncio.sleep(0)
    assert await stand.give(Cancel()) > 0
    await starting
    assert await stand.status() is SagaStatus.COMPENSATED


class SlowJournal(MemoryJournal):
    """Lets a test do something while a saga is read."""

    is_slow = False

    def __init__(self, *, clock: Clock, database: MemoryDatabase | None = None) -> None:
        super().__init__(clock=clock, database=database)
        self.meanwhile = asyncio.Event()
        self.reading = asyncio.Event()
        self.reads = 0

    async def find_saga(self, saga_id: SagaId, /) -> StoredSaga | None:
        found = await super().find_saga(saga_id)
        if self.is_slow:
            self.reads += 1
            self.reading.set()
            await self.meanwhile.wait()
        return found


@pytest.fixture
async def slow() -> AsyncIterator[tuple[Stand, SlowJournal]]:
    async with opened(journal_class=SlowJournal) as stand:
        journal = stand.journal
        assert isinstance(journal, SlowJournal)
        await stand.fail()
        yield stand, journal


async def test_saga_that_came_to_life_while_it_was_read_is_read_again(slow: tuple[Stand, SlowJournal]) -> None:
    """What was read is old: handing it over would make the next append contradict the journal, and that costs the whole process (R27)."""
    stand, journal = slow
    read_before = await stand.views.require(SAGA)
    journal.is_slow = True
    pausing = asyncio.ensure_future(stand.give(Pause()))
    await journal.reading.wait()
    view = await stand.views.rebuild(read_before)
    stand.engine.take_up(view.plan, view.state, read_before)  # somebody else takes it up in between, and it ends
    answered: list[object] = []
    stand.engine.command(SAGA, ResolveStep(step_id=SHIP, resolution=ResolvedSkipped(), reason="x"), answered.append)
    await one_turn()
    assert isinstance(answered[0], CommandAccepted)
    journal.meanwhile.set()
    with pytest.raises(RefusedError) as caught:
        await pausing
    assert error_reason(caught.value.status) == "SAGA_ALREADY_ENDED"
    assert journal.reads == 2
    assert not stand.engine.lost_reason.done()


async def test_saga_at_rest_is_read_once_for_commands_that_come_together(slow: tuple[Stand, SlowJournal]) -> None:
    stand, journal = slow
    journal.is_slow = True
    giving = [asyncio.ensure_future(stand.give(RetryStep(step_id=SHIP))) for _ in range(3)]
    await journal.reading.wait()
    journal.meanwhile.set()
    await asyncio.wait(giving)
    assert [one.exception() is None for one in giving] == [True, False, False]
    assert journal.reads == 1


async def test_saga_that_moves_elsewhere_is_not_touched() -> None:
    """Unfinished in the journal and not held: it is about to be recovered. Handing it over would make two of it."""
    database = MemoryDatabase()
    async with opened(database) as before:
        await before.start()
    async with opened(database) as after:
        assert await reason_of(after, Pause()) == "SHUTTING_DOWN"
        assert len(after.engine.held) == 0


async def test_command_that_the_database_does_not_take_in_time_is_refused(stand: Stand) -> None:
    await stand.start()
    commands = SagaCommands(stand.engine, stand.views, stand.waits, commit_wait_s=0.0)
    with pytest.raises(RefusedError) as caught:
        await commands.give(SAGA, Pause(), lambda given: None)
    assert error_reason(caught.value.status) == "JOURNAL_UNAVAILABLE"
    await one_turn()
    assert (await stand.view()).state.paused is not None  # it may still be done, as the refusal says


async def test_too_many_commands_for_one_saga_are_refused(slow: tuple[Stand, SlowJournal]) -> None:
    stand, journal = slow
    journal.is_slow = True
    commands = SagaCommands(stand.engine, stand.views, stand.waits, waiting_per_saga_max=1)
    first = asyncio.ensure_future(commands.give(SAGA, RetryStep(step_id=SHIP), lambda given: len(given.events)))
    await journal.reading.wait()
    with pytest.raises(RefusedError) as caught:
        await commands.give(SAGA, RetryStep(step_id=SHIP), lambda given: None)
    assert error_reason(caught.value.status) == "OVERLOADED"
    journal.meanwhile.set()
    assert await first > 0


async def test_closing_coordinator_refuses_commands(stand: Stand) -> None:
    await stand.start()
    stand.waits.close()
    assert await reason_of(stand, Pause()) == "SHUTTING_DOWN"


async def test_caller_that_goes_away_leaves_the_command_done(stand: Stand) -> None:
    await stand.fail()
    giving = asyncio.ensure_future(stand.give(RetryStep(step_id=SHIP)))
    while not stand.engine.held:
        await asyncio.sleep(0)
    giving.cancel()
    await asyncio.wait([giving])
    await one_turn()
    assert stand.dispatcher.sent() == {"ship execute 2"}
    assert stand.commands._flights == {}
    assert stand.waits._futures == {}


async def test_answer_that_cannot_be_read_hurts_its_caller_only(stand: Stand) -> None:
    await stand.start()

    def stumble(given: CommandAccepted) -> Sequence[Event]:
        raise OverflowError("too far away")

    with pytest.raises(OverflowError):
        await stand.commands.give(SAGA, Pause(), stumble)
    await stand.start(saga_id=OTHER)  # the engine goes on
    assert await stand.status(OTHER) is SagaStatus.RUNNING


def test_every_refusal_of_the_core_is_told_to_callers() -> None:
    assert set(_REFUSALS) == set(Refusal)
