"""What the next coordinator finds."""

import pytest

from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import SagaBegan, SagaCompensated, SagaCompleted, SagaFailed
from coordinator.core.values import Failure, IncidentKind, SagaId, SagaStatus
from coordinator.engine.ports import Committed, JournalUnavailableError, SagaFilter
from tests.builders import at
from tests.journals import OpenIncident, OpenJournal, Told, World, first, new_id, new_ids, then

REASON = Failure(13, "cannot be advanced")


async def unfinished(journal: OpenJournal, limit: int = 100) -> list[SagaId]:
    """Every unfinished saga, read in pages as a coordinator does at its start."""
    found: list[SagaId] = []
    while True:
        page = await journal.load_awake(found[-1] if found else None, limit)
        found += [saga.saga_id for saga in page]
        if len(page) < limit:
            return found


async def test_empty_journal_has_nothing_unfinished(journal: OpenJournal) -> None:
    assert await journal.load_awake(None, 10) == []


async def test_only_sagas_that_can_move_are_loaded(journal: OpenJournal, told: Told) -> None:
    asleep, running, completed, compensated, failed = new_ids(5)
    journal.append(
        (
            first(asleep, status=SagaStatus.PENDING, wake_at=at(50)),
            first(running),
            first(completed),
            first(compensated),
            first(failed),
            then(completed, 2, SagaCompleted(output=None), status=SagaStatus.COMPLETED),
            then(compensated, 2, SagaCompensated(), status=SagaStatus.COMPENSATED),
            then(failed, 2, SagaFailed(), status=SagaStatus.FAILED),
        )
    )
    await told.until(8)
    assert await unfinished(journal) == [running]


async def test_pending_saga_that_began_is_running(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    journal.append((first(saga, status=SagaStatus.PENDING, wake_at=at(50)), then(saga, 2, SagaBegan(), when=at(50))))
    await told.until(2)
    (stored,) = await journal.load_awake(None, 10)
    assert (stored.status, len(stored.events)) == (SagaStatus.RUNNING, 2)


@pytest.mark.parametrize("limit", [1, 3, 10, 11])
async def test_pages_of_unfinished_sagas_join_without_seam(journal: OpenJournal, told: Told, limit: int) -> None:
    ids = new_ids(10)
    journal.append([first(saga) for saga in reversed(ids)])
    await told.until(10)
    assert await unfinished(journal, limit) == ids


async def test_next_journal_finds_what_was_announced(world: World) -> None:  # P1
    ids = new_ids(20)
    told = Told()
    async with await world.open(told) as journal:
        journal.append([first(saga, labels=[("a", "b")]) for saga in ids])
        journal.append([then(saga, 2) for saga in ids])
        await told.until(40)
    async with await world.open(Told()) as journal:
        found = await journal.load_awake(None, 100)
        assert [saga.saga_id for saga in found] == ids
        assert {(saga.labels, len(saga.events)) for saga in found} == {((("a", "b"),), 2)}


async def test_next_journal_goes_on_where_the_last_one_ended(world: World) -> None:
    saga, told = new_id(), Told()
    async with await world.open(told) as journal:
        journal.append((first(saga),))
        await told.until(1)
    again = Told()
    async with await world.open(again) as journal:
        journal.append((then(saga, 2), first(new_id())))
        results = await again.until(2)
    assert all(isinstance(result, Committed) for result in results)
    assert world.sequences(saga) == [1, 2]


async def test_closing_commits_what_is_queued(world: World, told: Told) -> None:
    ids = new_ids(50)
    async with await world.open(told) as journal:
        journal.append([first(saga) for saga in ids])
    assert len(told.results) == 50
    assert all(world.sequences(saga) == [1] for saga in ids)


async def test_quarantined_saga_is_not_loaded_and_has_an_incident(journal: OpenJournal, told: Told, world: World) -> None:  # P5
    poison, sound = new_ids(2)
    journal.append((first(poison), first(sound)))
    await told.until(2)
    await journal.quarantine(poison, REASON)
    assert await unfinished(journal) == [sound]
    stored = await journal.find_saga(poison)
    assert stored is not None
    assert (stored.quarantined, stored.status) == (REASON, SagaStatus.RUNNING)
    listed = await journal.list_sagas(SagaFilter(), None, 10)
    assert {saga.saga_id: saga.quarantined for saga in listed} == {poison: REASON, sound: None}
    assert world.incidents(poison) == [OpenIncident(0, IncidentKind.QUARANTINED, None, "cannot be advanced")]


async def test_quarantine_comes_after_what_was_appended_before(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    journal.append([first(saga), *(then(saga, sequence) for sequence in range(2, 30))])
    await journal.quarantine(saga, REASON)
    assert len(told.results) == 29
    stored = await journal.find_saga(saga)
    assert stored is not None
    assert stored.quarantined == REASON


async def test_second_quarantine_keeps_one_incident_with_the_last_reason(journal: OpenJournal, told: Told, world: World) -> None:
    saga = new_id()
    journal.append((first(saga),))
    await told.until(1)
    await journal.quarantine(saga, REASON)
    await journal.quarantine(saga, Failure(13, "still not"))
    assert [incident.message for incident in world.incidents(saga)] == ["still not"]


async def test_quarantine_takes_any_words(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    journal.append((first(saga),))
    await told.until(1)
    await journal.quarantine(saga, Failure(13, "\ud800 \0 " + "x" * 10_000))
    stored = await journal.find_saga(saga)
    assert stored is not None
    assert stored.quarantined is not None
    assert stored.quarantined.message.startswith("\\ud800 \\0 xxx")
    assert len(stored.quarantined.message) < 3_000


async def test_quarantine_of_an_unknown_saga_changes_nothing(journal: OpenJournal, world: World) -> None:
    stranger = new_id()
    await journal.quarantine(stranger, REASON)
    assert await journal.find_saga(stranger) is None
    assert world.incidents(stranger) == []


@pytest.mark.parametrize("limit", [1, 2, 10])
async def test_unreadable_saga_is_set_aside_and_the_page_filled(world: World, limit: int) -> None:  # P5
    ids = new_ids(6)
    told = Told()
    async with await world.open(told) as journal:
        journal.append([append for saga in ids for append in (first(saga), then(saga, 2), then(saga, 3))])
        await told.until(18)
    for saga in (ids[0], ids[1], ids[4]):
        world.damage(saga, 2)
    async with await world.open(Told()) as journal:
        with pytest.raises(CorruptJournalError):
            await journal.find_saga(ids[0])
        assert await unfinished(journal, limit) == [ids[2], ids[3], ids[5]]
        aside = await journal.find_saga(ids[0])
        assert aside is not None
        assert aside.quarantined is not None
        assert [event.sequence for event in aside.events] == [1]
        assert [incident.kind for incident in world.incidents(ids[4])] == [IncidentKind.QUARANTINED]
        assert await unfinished(journal, limit) == [ids[2], ids[3], ids[5]]


async def test_closed_journal_cannot_be_read_or_written(world: World) -> None:
    journal = await world.open(Told())
    await journal.aclose()
    with pytest.raises(JournalUnavailableError):
        await journal.load_awake(None, 1)
    with pytest.raises(JournalUnavailableError):
        await journal.quarantine(new_id(), REASON)
    assert journal.stalled_for_us == 0
