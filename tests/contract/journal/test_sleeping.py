"""Sagas that sleep are found by when they wake, and only then (D9); and who wrote of them last is told (R29)."""

from dataclasses import replace

import pytest

from coordinator.core.events import SagaBegan, SagaCompleted
from coordinator.core.values import Failure, Instant, SagaId, SagaStatus
from coordinator.engine.slot import NEVER
from tests.builders import at
from tests.journals import OpenJournal, Told, World, first, new_id, new_ids, then

PENDING = SagaStatus.PENDING


async def asleep(journal: OpenJournal, since: Instant, until: Instant, limit: int = 100) -> list[tuple[Instant, SagaId]]:
    """All of them, read in pages."""
    found: list[tuple[Instant, SagaId]] = []
    while page := await journal.find_asleep(since, until, found[-1] if found else None, limit):
        found += page
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_sleepers_are_found_by_when_they_wake(journal: OpenJournal, told: Told, limit: int) -> None:
    ids = new_ids(5)
    instants = [at(50), at(20), at(50), at(90), NEVER]
    journal.append([first(saga, status=PENDING, wake_at=instant) for saga, instant in zip(ids, instants, strict=True)])
    await told.until(5)
    everyone = sorted(zip(instants, ids, strict=True))
    assert await asleep(journal, Instant(0), NEVER, limit) == everyone[:-1]
    assert await asleep(journal, at(50), at(90), limit) == everyone[1:3]
    assert await asleep(journal, at(20) + 1, at(50), limit) == []  # type: ignore[arg-type]


async def test_saga_that_wakes_is_asleep_no_more(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    journal.append((first(saga, status=PENDING, wake_at=at(50)), then(saga, 2, SagaBegan(), when=at(50))))
    await told.until(2)
    assert await asleep(journal, Instant(0), NEVER) == []
    assert [stored.saga_id for stored in await journal.load_awake(None, 10)] == [saga]


async def test_saga_that_is_put_to_sleep_without_another_change_is_asleep(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    journal.append((first(saga), replace(then(saga, 2), wake_at=at(70))))
    await told.until(2)
    assert (await asleep(journal, Instant(0), NEVER), await journal.load_awake(None, 10)) == ([(at(70), saga)], [])
    journal.append((replace(then(saga, 3), wake_at=at(80)),))
    await told.until(3)
    assert await asleep(journal, Instant(0), NEVER) == [(at(80), saga)]
    journal.append((then(saga, 4, SagaCompleted(output=None), status=SagaStatus.COMPLETED),))
    await told.until(4)
    assert (await asleep(journal, Instant(0), NEVER), await journal.load_awake(None, 10)) == ([], [])


async def test_sleeper_that_is_set_aside_is_not_woken(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    journal.append((first(saga, status=PENDING, wake_at=at(50)),))
    await told.until(1)
    await journal.quarantine(saga, Failure(13, "cannot be advanced"))
    assert (await asleep(journal, Instant(0), NEVER), await journal.load([saga])) == ([], [])


async def test_sagas_are_loaded_by_their_ids(journal: OpenJournal, told: Told) -> None:
    ids = new_ids(3)
    journal.append([first(saga, status=PENDING, wake_at=at(50), labels=[("n", str(n))]) for n, saga in enumerate(ids)])
    await told.until(3)
    loaded = await journal.load([ids[2], new_id(), ids[0]])
    assert [(saga.saga_id, saga.labels, len(saga.events), saga.asleep_until) for saga in loaded] == [
        (ids[0], (("n", "0"),), 1, at(50)),
        (ids[2], (("n", "2"),), 1, at(50)),
    ]
    assert await journal.load([]) == []


async def test_what_an_earlier_owner_wrote_last_is_in_doubt(world: World, told: Told) -> None:  # R29
    """Its calls may be under way, whatever the clock says: it may have woken the saga, and died before it wrote of that."""
    old, new = new_ids(2)
    async with await world.open(told) as journal:
        journal.append((first(old, status=PENDING, wake_at=at(50)),))
        await told.until(1)
        assert [saga.in_doubt for saga in await journal.load([old])] == [False]
    told_next = Told()
    async with await world.open(told_next) as journal:
        journal.append((first(new, status=PENDING, wake_at=at(50)),))
        await told_next.until(1)
        assert [saga.in_doubt for saga in await journal.load([old, new])] == [True, False]
        found = await journal.find_saga(old)
        assert found is not None
        assert found.in_doubt
        journal.append((replace(then(old, 2), wake_at=at(60)),))
        await told_next.until(2)
        assert [saga.in_doubt for saga in await journal.load([old])] == [False]
