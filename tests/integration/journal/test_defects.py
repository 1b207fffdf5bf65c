"""Rows that the database itself refuses are found, and their saga set aside, while the others go on (R28)."""

from dataclasses import replace

import pytest

from coordinator.core.events import SagaCompleted
from coordinator.core.values import Instant, SagaId, SagaStatus
from coordinator.engine.ports import Append, Committed, Refused
from coordinator.journal import SqlJournal
from coordinator.journal.commit_loop import BATCH_BYTES_MAX
from tests.builders import INPUT, attempt
from tests.journals import SqlWorld, Told, eventually, first, new_id, new_ids, step_done, then
from tests.sqlite_faults import CommitGate, Faults


def sleeping_beyond_64_bits(saga: SagaId) -> Append:
    """Passes every check but that of the driver."""
    return replace(then(saga, 2), wake_at=Instant(2**70))


@pytest.mark.parametrize("place", [0, 1, 7, 8, 14])
async def test_row_that_the_driver_refuses_is_refused_alone(journal: SqlJournal, told: Told, world: SqlWorld, place: int) -> None:  # R28
    ids = new_ids(15)
    journal.append([first(saga) for saga in ids])
    await told.until(15)
    journal.append([sleeping_beyond_64_bits(saga) if saga == ids[place] else then(saga, 2) for saga in ids])
    results = (await told.until(30))[15:]
    assert [result.append.saga_id for result in results if isinstance(result, Refused)] == [ids[place]]
    assert [world.sequences(saga) for saga in ids] == [[1] if saga == ids[place] else [1, 2] for saga in ids]
    assert [saga.saga_id for saga in await journal.load_awake(None, 100)] == [saga for saga in ids if saga != ids[place]]
    (incident,) = world.incidents(ids[place])
    assert "OverflowError" in incident.message


async def test_row_that_a_constraint_refuses_is_refused_alone(journal: SqlJournal, told: Told, world: SqlWorld) -> None:  # R28
    ids = new_ids(9)
    world.execute(f"CREATE TRIGGER no BEFORE INSERT ON event WHEN NEW.saga_id = '{ids[4]}' BEGIN SELECT RAISE(ABORT, 'not this one'); END")
    journal.append([first(saga) for saga in ids])
    results = await told.until(9)
    assert [result.append.saga_id for result in results if isinstance(result, Refused)] == [ids[4]]
    assert await journal.find_saga(ids[4]) is None


async def test_saga_without_its_row_is_refused_alone(journal: SqlJournal, told: Told, world: SqlWorld) -> None:  # R28
    ids = new_ids(5)
    journal.append([first(saga) for saga in ids])
    await told.until(5)
    world.execute("DELETE FROM saga WHERE saga_id = ?", ids[2])
    journal.append([then(saga, 2, SagaCompleted(output=None), status=SagaStatus.COMPLETED) for saga in ids])
    results = (await told.until(10))[5:]
    assert [result.append.saga_id for result in results if isinstance(result, Refused)] == [ids[2]]


async def test_culprit_costs_few_database_transactions(journal: SqlJournal, told: Told, faults: Faults) -> None:  # R28
    ids = new_ids(512)
    journal.append([first(saga) for saga in ids])
    await told.until(512)
    told.batches.clear()
    journal.append([sleeping_beyond_64_bits(saga) if saga == ids[300] else then(saga, 2) for saga in ids])
    await told.until(1024)
    assert len(told.batches) <= 12  # the halves that went through, the culprit, and the rest


async def test_batch_is_bounded_in_bytes(journal: SqlJournal, told: Told, faults: Faults) -> None:
    big = INPUT._replace(value=bytes(1024 * 1024))
    saga = new_id()
    gate = CommitGate(faults)
    journal.append((first(saga),))
    await eventually(gate.reached.is_set)
    for sequence in range(2, 22):
        fact = step_done("a", sequence)
        journal.append((then(saga, sequence, type(fact)(attempt=attempt("a", sequence), sent_at=None, output=big)),))
    gate.let_through()
    results = await told.until(21)
    assert all(isinstance(result, Committed) for result in results)
    assert told.batches == [1, 7, 7, 6]
    assert 7 * len(big.value) < BATCH_BYTES_MAX
    payloads = await journal.read_events(saga, 1, 100)
    assert [len(payload) > len(big.value) for payload in payloads] == [True] * 20
