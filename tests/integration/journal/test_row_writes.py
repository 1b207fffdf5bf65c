"""The row of a saga is written when it tells something else, and not with every event: the column `sequence` says when that was last."""

from coordinator.core.events import IncidentClosed, SagaCompleted, SagaPaused, SagaRecovered, SagaTurnedBack, StepRetried
from coordinator.core.values import Direction, SagaStatus, StepId, TurnBackCause
from coordinator.engine.ports import Append
from coordinator.journal import SqlJournal
from tests.builders import at, failure
from tests.journals import SqlWorld, Told, first, incident, new_id, new_ids, step_done, then

COMPLETED = SagaStatus.COMPLETED
PAUSED = SagaPaused(actor="ann", reason="the warehouse is closed")


async def rows_after(journal: SqlJournal, told: Told, world: SqlWorld, *appends: Append) -> list[int]:
    """The sequence at which the row was last written, after each append."""
    found: list[int] = []
    for append in appends:
        journal.append((append,))
        await told.until(len(told.results) + 1)
        ((sequence,),) = world.execute("SELECT sequence FROM saga WHERE saga_id = ?", append.saga_id)
        found.append(int(str(sequence)))
    return found


async def test_row_of_a_saga_of_three_steps_is_written_twice(journal: SqlJournal, told: Told, world: SqlWorld) -> None:
    saga = new_id()
    ended = then(saga, 4, step_done("c"), SagaCompleted(output=None), status=COMPLETED)
    appends = [first(saga), then(saga, 2, step_done("a")), then(saga, 3, step_done("b")), ended]
    assert await rows_after(journal, told, world, *appends) == [1, 1, 1, 5]


async def test_sagas_of_one_batch_are_written_at_their_ends(journal: SqlJournal, told: Told, world: SqlWorld) -> None:
    done, going = new_ids(2)
    journal.append([append for saga in (done, going) for append in (first(saga), then(saga, 2), then(saga, 3))])
    journal.append((then(done, 4, SagaCompleted(output=None), status=COMPLETED),))
    await told.until(7)
    assert dict(world.execute("SELECT saga_id, sequence FROM saga")) == {done: 4, going: 1}  # type: ignore[arg-type]


async def test_paused_saga_is_written_when_that_changes(journal: SqlJournal, told: Told, world: SqlWorld) -> None:
    saga = new_id()
    appends = [first(saga), then(saga, 2, PAUSED, paused=True), then(saga, 3, paused=True), then(saga, 4), then(saga, 5)]
    assert await rows_after(journal, told, world, *appends) == [1, 2, 2, 4, 4]


async def test_turning_back_and_the_hook_are_written(journal: SqlJournal, told: Told, world: SqlWorld) -> None:
    saga = new_id()
    back = SagaTurnedBack(cause=TurnBackCause.CANCELLED, step_id=None, failure=failure(1), quiet_at=at(9))
    compensating, compensated = SagaStatus.COMPENSATING, SagaStatus.COMPENSATED
    appends = [
        first(saga),
        then(saga, 2, back, status=compensating),
        then(saga, 3, status=compensating),
        then(saga, 4, status=compensated, unfinished=True),
        then(saga, 5, status=compensated, unfinished=True),
        then(saga, 6, status=compensated),
    ]
    assert await rows_after(journal, told, world, *appends) == [1, 2, 2, 4, 4, 6]


async def test_saga_that_another_process_began_is_written_once(world: SqlWorld) -> None:
    saga, told = new_id(), Told()
    async with await world.open(told) as journal:
        assert await rows_after(journal, told, world, first(saga), then(saga, 2)) == [1, 1]
    told = Told()
    async with await world.open(told) as journal:
        appends = [then(saga, 3, SagaRecovered(in_doubt=())), then(saga, 4), then(saga, 5)]
        assert await rows_after(journal, told, world, *appends) == [3, 3, 3]


async def test_saga_that_was_at_rest_is_written_when_it_goes_on(journal: SqlJournal, told: Told, world: SqlWorld) -> None:
    saga = new_id()
    retried = StepRetried(step_id=StepId("a"), direction=Direction.EXECUTE, round=1, input=None, actor="bob", reason="it is well again")
    appends = [first(saga), then(saga, 2, status=SagaStatus.FAILED), then(saga, 3, retried), then(saga, 4)]
    assert await rows_after(journal, told, world, *appends) == [1, 2, 3, 3]


async def test_incidents_alone_say_only_that_a_person_is_needed(journal: SqlJournal, told: Told, world: SqlWorld) -> None:
    saga = new_id()
    assert await rows_after(journal, told, world, first(saga), then(saga, 2, incident(1))) == [1, 1]
    assert world.execute("SELECT needs_person FROM saga") == [(1,)]
    assert await rows_after(journal, told, world, then(saga, 3, IncidentClosed(id=1))) == [1]
    assert world.execute("SELECT needs_person FROM saga") == [(0,)]
