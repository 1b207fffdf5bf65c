"""What nobody needs any more is deleted, a few at a time; everything else stays."""

from coordinator.core.events import IncidentClosed, IncidentOpened
from coordinator.core.values import Failure, IncidentKind, SagaId, SagaStatus, StepId
from coordinator.engine.ports import IncidentFilter, SagaFilter
from tests.builders import DEFINITION, at
from tests.journals import OpenJournal, Told, World, first, new_id, new_ids, start_key, then

COMPLETED, FAILED = SagaStatus.COMPLETED, SagaStatus.FAILED
OPENED = IncidentOpened(id=1, kind=IncidentKind.STEP_REJECTED, step_id=StepId("a"), failure=Failure(9, "no"))


async def ended(journal: OpenJournal, told: Told, ids: list[SagaId], *, first_s: float = 100, labels: bool = False) -> None:
    """Sagas that ended one second after the other."""
    before = len(told.results)
    journal.append([first(saga_id, labels=[("lot", "7")] if labels else []) for saga_id in ids])
    journal.append([then(saga_id, 2, status=COMPLETED, when=at(first_s + n)) for n, saga_id in enumerate(ids)])
    await told.until(before + 2 * len(ids))


async def there(journal: OpenJournal) -> set[SagaId]:
    return {saga.saga_id for saga in await journal.list_sagas(SagaFilter(), None, 1_000)}


async def test_oldest_ends_are_forgotten_first_with_all_that_belongs_to_them(journal: OpenJournal, told: Told, world: World) -> None:
    ids = new_ids(10)
    await ended(journal, told, ids, labels=True)
    assert await journal.forget(at(106), at(0), 4) == (4, 0, 0)
    assert await there(journal) == set(ids[4:])
    assert await journal.forget(at(106), at(0), 4) == (2, 0, 0)
    assert await journal.forget(at(106), at(0), 4) == (0, 0, 0)
    assert await there(journal) == set(ids[6:])
    assert [world.sequences(saga_id) for saga_id in ids] == [[]] * 6 + [[1, 2]] * 4
    assert await journal.find_saga(ids[0]) is None
    assert {saga.saga_id for saga in await journal.list_sagas(SagaFilter(labels=(("lot", "7"),)), None, 100)} == set(ids[6:])


async def test_what_may_still_move_or_waits_for_a_person_stays(journal: OpenJournal, told: Told) -> None:
    running, asking, hooked, set_aside, answered = ids = new_ids(5)
    journal.append([first(saga_id) for saga_id in ids])
    journal.append(
        [
            then(asking, 2, OPENED, status=FAILED, when=at(50), ended=True),
            then(hooked, 2, status=COMPLETED, when=at(50), unfinished=True),
            then(set_aside, 2, status=COMPLETED, when=at(50)),
            then(answered, 2, OPENED, status=FAILED, when=at(50), ended=True),
            then(answered, 3, IncidentClosed(id=1), status=FAILED, when=at(51), ended=True),
        ]
    )
    await told.until(10)
    await journal.quarantine(set_aside, Failure(13, "torn"))
    assert await journal.forget(at(10_000), at(0), 100) == (1, 0, 0)
    assert await there(journal) == {running, asking, hooked, set_aside}
    assert [each.saga_id for each in await journal.list_incidents(IncidentFilter(include_closed=True, saga_id=answered), None, 10)] == []


async def test_keys_are_forgotten_when_they_have_expired(journal: OpenJournal, told: Told) -> None:  # R4
    old, young = new_ids(2)
    journal.append([first(old, key=start_key("old", expires_at=at(50))), first(young, key=start_key("young", expires_at=at(500)))])
    await told.until(2)
    assert await journal.forget(at(0), at(100), 10) == (0, 1, 0)
    assert await journal.find_by_key(DEFINITION.name, "old", at(1)) is None
    found = await journal.find_by_key(DEFINITION.name, "young", at(1))
    assert found is not None
    assert found.saga_id == young


async def test_saga_goes_on_beside_it(journal: OpenJournal, told: Told) -> None:
    await ended(journal, told, new_ids(3))
    saga = new_id()
    journal.append([first(saga)])
    assert (await journal.forget(at(10_000), at(0), 100)).sagas == 3
    journal.append([then(saga, 2)])
    await told.until(8)
    assert await there(journal) == {saga}
