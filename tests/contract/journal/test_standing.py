"""What the row of a saga tells of its state: who is taken up again, what is paused, when it ended."""

import pytest

from coordinator.core.events import (
    SagaCompleted,
    SagaFailed,
    SagaPaused,
    SagaResumed,
    SagaTerminated,
    SagaTurnedBack,
    StepRetried,
)
from coordinator.core.values import Direction, Failure, SagaId, SagaStatus, StepId, TurnBackCause
from coordinator.engine.ports import Append, SagaFilter, StoredSaga
from tests.builders import at, failure
from tests.journals import OpenJournal, Told, World, first, new_id, new_ids, step_done, then

COMPLETED, FAILED, RUNNING = SagaStatus.COMPLETED, SagaStatus.FAILED, SagaStatus.RUNNING
HOOK_DONE = step_done("on_success")
PAUSED = SagaPaused(actor="ann", reason="the warehouse is closed")
RESUMED = SagaResumed(actor="ann", reason="it is open again")
TERMINATED = SagaTerminated(actor="bob", reason="settled by phone")
RETRIED = StepRetried(step_id=StepId("a"), direction=Direction.EXECUTE, round=1, input=None, actor="bob", reason="it is well again")
TURNED_BACK = SagaTurnedBack(cause=TurnBackCause.CANCELLED, step_id=None, failure=failure(1), quiet_at=at(9))


async def write(journal: OpenJournal, told: Told, *appends: Append) -> StoredSaga:
    """Commits the appends one by one; returns the saga as it is stored then."""
    for append in appends:
        journal.append((append,))
        await told.until(len(told.results) + 1)
    stored = await journal.find_saga(appends[0].saga_id)
    assert stored is not None
    return stored


async def unfinished(journal: OpenJournal) -> list[SagaId]:
    return [saga.saga_id for saga in await journal.load_awake(None, 100)]


def hook_moves(saga: SagaId) -> Append:
    return then(saga, 2, step_done(), SagaCompleted(output=None), status=COMPLETED, unfinished=True, when=at(5))


async def test_saga_whose_hook_moves_has_ended_and_is_taken_up_again(world: World) -> None:  # R16
    saga, told = new_id(), Told()
    async with await world.open(told) as journal:
        stored = await write(journal, told, first(saga), hook_moves(saga))
        assert (stored.status, stored.ended_at) == (COMPLETED, at(5))
    async with await world.open(Told()) as journal:
        assert await unfinished(journal) == [saga]


@pytest.mark.parametrize("at_once", [True, False], ids=["one batch", "one by one"])
async def test_hook_that_is_done_finishes_the_saga_and_leaves_its_end(journal: OpenJournal, told: Told, at_once: bool) -> None:  # R16
    saga = new_id()
    appends = [first(saga), hook_moves(saga), then(saga, 4, HOOK_DONE, status=COMPLETED, when=at(8))]
    if at_once:
        journal.append(appends)
        await told.until(3)
        appends = [then(saga, 5, HOOK_DONE, status=COMPLETED, when=at(9))]
    stored = await write(journal, told, *appends)
    assert (stored.status, stored.ended_at) == (COMPLETED, at(5))
    assert await unfinished(journal) == []


async def test_saga_that_ends_with_its_start_keeps_that_end(journal: OpenJournal, told: Told) -> None:  # R16
    saga = new_id()
    start = first(saga, SagaCompleted(output=None), status=COMPLETED, unfinished=True, created_at=at(3))
    stored = await write(journal, told, start, then(saga, 3, HOOK_DONE, status=COMPLETED, when=at(8)))
    assert (stored.created_at, stored.ended_at) == (at(3), at(3))
    assert await unfinished(journal) == []


async def test_hook_that_a_person_retries_is_taken_up_again(journal: OpenJournal, told: Told) -> None:  # R16
    saga = new_id()
    given_up = then(saga, 4, status=COMPLETED, when=at(6))
    retried = then(saga, 5, RETRIED, status=COMPLETED, unfinished=True, when=at(7))
    stored = await write(journal, told, first(saga), hook_moves(saga), given_up, retried)
    assert stored.ended_at == at(5)
    assert await unfinished(journal) == [saga]


async def test_terminated_saga_has_ended_though_it_is_failed(journal: OpenJournal, told: Told) -> None:  # R15
    saga = new_id()
    failed = then(saga, 2, SagaFailed(), status=FAILED, when=at(4))
    terminated = then(saga, 3, TERMINATED, status=FAILED, ended=True, when=at(6))
    stored = await write(journal, told, first(saga), failed)
    assert (stored.status, stored.ended_at) == (FAILED, None)
    stored = await write(journal, told, terminated)
    assert (stored.status, stored.ended_at) == (FAILED, at(6))


async def test_failed_saga_that_goes_on_is_taken_up_again(journal: OpenJournal, told: Told) -> None:  # R15
    again, back, failed = new_ids(3)
    for saga in (again, back, failed):
        await write(journal, told, first(saga), then(saga, 2, SagaFailed(), status=FAILED))
    assert await unfinished(journal) == []
    stored = await write(journal, told, then(again, 3, RETRIED, status=RUNNING))
    assert stored.status is RUNNING
    await write(journal, told, then(back, 3, TURNED_BACK, status=SagaStatus.COMPENSATING))
    assert await unfinished(journal) == [again, back]


async def test_pause_is_stored_until_it_is_resumed(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    stored = await write(journal, told, first(saga), then(saga, 2, PAUSED, paused=True), then(saga, 3, paused=True))
    assert (stored.is_paused, stored.status) == (True, RUNNING)
    assert await unfinished(journal) == [saga]
    assert [found.is_paused for found in await journal.list_sagas(SagaFilter(), None, 10)] == [True]
    stored = await write(journal, told, then(saga, 4, RESUMED))
    assert stored.is_paused is False


async def test_saga_that_starts_paused_is_paused(journal: OpenJournal, told: Told) -> None:
    stored = await write(journal, told, first(new_id(), PAUSED, paused=True))
    assert stored.is_paused


async def test_pause_and_resumption_in_one_batch_leave_nothing(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    journal.append((first(saga), then(saga, 2, PAUSED, paused=True), then(saga, 3, RESUMED)))
    await told.until(3)
    stored = await journal.find_saga(saga)
    assert stored is not None
    assert stored.is_paused is False


async def test_status_does_not_decide_who_is_taken_up(journal: OpenJournal, told: Told) -> None:
    moving, stuck = new_ids(2)
    await write(journal, told, first(moving, status=FAILED, unfinished=True))
    await write(journal, told, first(stuck, status=RUNNING, unfinished=False))
    assert await unfinished(journal) == [moving]


async def test_quarantined_saga_is_not_taken_up_though_its_hook_moves(journal: OpenJournal, told: Told) -> None:  # P5
    saga = new_id()
    await write(journal, told, first(saga), hook_moves(saga))
    await journal.quarantine(saga, Failure(13, "cannot be advanced"))
    assert await unfinished(journal) == []


async def test_next_journal_goes_on_with_the_row_as_it_is(world: World) -> None:  # P1
    saga, told = new_id(), Told()
    async with await world.open(told) as journal:
        await write(journal, told, first(saga), then(saga, 2, PAUSED, paused=True))
    told = Told()
    async with await world.open(told) as journal:
        stored = await write(journal, told, then(saga, 3, paused=True))
        assert (stored.is_paused, stored.status) == (True, RUNNING)
        stored = await write(journal, told, then(saga, 4, SagaCompleted(output=None), status=COMPLETED, when=at(9)))
        assert (stored.is_paused, stored.status, stored.ended_at) == (False, COMPLETED, at(9))
        assert await unfinished(journal) == []
