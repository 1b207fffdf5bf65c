"""What persons are needed for: opened, closed, listed, and the sagas that are found by it."""

from collections.abc import Sequence
from typing import Final

import pytest

from coordinator.core.events import IncidentClosed, SagaFailed
from coordinator.core.values import DefinitionKey, Failure, IncidentKind, Instant, SagaId, SagaStatus, StepId
from coordinator.engine.ports import Committed, IncidentFilter, Refused, SagaFilter, StoredIncident
from tests.builders import DEFINITION, at
from tests.journals import OpenJournal, Told, World, first, incident, new_id, new_ids, then

CANCEL_ORDER: Final = DefinitionKey("cancel-order", 3)
FAILED = SagaStatus.FAILED
REJECTED, EXHAUSTED, LATE = IncidentKind.STEP_REJECTED, IncidentKind.COMPENSATION_EXHAUSTED, IncidentKind.LATE_OUTCOME

Place = tuple[SagaId, int]


def places(found: Sequence[StoredIncident]) -> list[Place]:
    return [(one.saga_id, one.id) for one in found]


async def needy(journal: OpenJournal, needs_person: bool | None = True, *kinds: IncidentKind) -> set[SagaId]:
    """The sagas that need a person, or those that do not."""
    where = SagaFilter(needs_person=needs_person, incident_kinds=frozenset(kinds))
    return {saga.saga_id for saga in await journal.list_sagas(where, None, 100)}


async def test_incident_is_listed_with_its_saga(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    journal.append((first(saga, definition=CANCEL_ORDER), then(saga, 2, incident(), SagaFailed(), status=FAILED, when=at(7))))
    await told.until(2)
    assert await journal.list_incidents(IncidentFilter(), None, 10) == [
        StoredIncident(
            saga_id=saga,
            definition=CANCEL_ORDER,
            status=FAILED,
            id=1,
            kind=REJECTED,
            step_id=StepId("a"),
            failure=Failure(9, "stock is gone"),
            opened_at=at(7),
            closed_at=None,
        )
    ]


async def test_closed_incident_is_kept_and_no_longer_open(journal: OpenJournal, told: Told, world: World) -> None:
    saga = new_id()
    journal.append((first(saga), then(saga, 2, incident(1), incident(2, step_id=None), when=at(3))))
    journal.append((then(saga, 4, IncidentClosed(id=1), when=at(5)),))
    await told.until(3)
    assert places(await journal.list_incidents(IncidentFilter(), None, 10)) == [(saga, 2)]
    assert [one.id for one in world.incidents(saga)] == [2]
    every = await journal.list_incidents(IncidentFilter(include_closed=True), None, 10)
    assert [(one.id, one.step_id, one.opened_at, one.closed_at) for one in every] == [(1, "a", at(3), at(5)), (2, None, at(3), None)]


async def test_saga_needs_a_person_until_the_last_incident_is_closed(journal: OpenJournal, told: Told) -> None:
    saga, other = new_ids(2)
    journal.append((first(saga), first(other), then(saga, 2, incident(1), incident(2, LATE))))
    await told.until(3)
    assert await needy(journal) == {saga}
    assert await needy(journal, False) == {other}
    assert await needy(journal, None, REJECTED) == {saga}
    journal.append((then(saga, 4, IncidentClosed(id=1)),))
    await told.until(4)
    assert await needy(journal) == {saga}
    assert await needy(journal, None, REJECTED) == set()
    assert await needy(journal, None, REJECTED, LATE) == {saga}
    journal.append((then(saga, 5, IncidentClosed(id=2)),))
    await told.until(5)
    assert await needy(journal) == set()
    assert await needy(journal, False) == {saga, other}


async def test_incident_that_is_opened_and_closed_at_once_needs_nobody(journal: OpenJournal, told: Told) -> None:
    one_append, one_batch = new_ids(2)
    journal.append((first(one_append, incident(1), IncidentClosed(id=1)), first(one_batch, incident(1))))
    journal.append((then(one_batch, 3, IncidentClosed(id=1)),))
    await told.until(3)
    assert await needy(journal) == set()
    assert len(await journal.list_incidents(IncidentFilter(include_closed=True), None, 10)) == 2


async def test_saga_set_aside_has_an_incident_with_the_id_zero(journal: OpenJournal, told: Told) -> None:  # P5
    saga, other = new_ids(2)
    journal.append((first(saga, incident(1), created_at=at(1)), first(other)))
    await journal.quarantine(saga, Failure(13, "cannot be advanced"))
    kinds = {(one.id, one.kind, one.failure.message) for one in await journal.list_incidents(IncidentFilter(), None, 10)}
    assert kinds == {(1, REJECTED, "stock is gone"), (0, IncidentKind.QUARANTINED, "cannot be advanced")}
    assert await needy(journal) == await needy(journal, None, IncidentKind.QUARANTINED) == {saga}


async def test_saga_set_aside_needs_a_person_though_nothing_else_is_open(journal: OpenJournal, told: Told) -> None:  # P5
    saga = new_id()
    journal.append((first(saga),))
    await journal.quarantine(saga, Failure(13, "cannot be advanced"))
    assert await needy(journal) == {saga}
    assert await needy(journal, False) == set()


async def test_closing_what_the_saga_itself_opened_leaves_it_set_aside(journal: OpenJournal, told: Told) -> None:  # P5
    saga = new_id()
    journal.append((first(saga, incident(1)),))
    await journal.quarantine(saga, Failure(13, "cannot be advanced"))
    journal.append((then(saga, 3, IncidentClosed(id=1)),))
    await told.until(2)
    assert await needy(journal) == {saga}


@pytest.mark.parametrize("facts", [(incident(1),), (IncidentClosed(id=2),)], ids=["opened twice", "closed but never opened"])
async def test_incident_that_contradicts_the_journal_is_refused_alone(
    journal: OpenJournal, told: Told, world: World, facts: tuple[IncidentClosed]
) -> None:  # R28
    broken, sound = new_ids(2)
    journal.append((first(broken, incident(1)), first(sound, incident(1))))
    await told.until(2)
    journal.append((then(broken, 3, *facts), then(sound, 3, IncidentClosed(id=1))))
    results = (await told.until(4))[2:]
    assert {result.append.saga_id: type(result) for result in results} == {broken: Refused, sound: Committed}
    assert [one.id for one in world.incidents(broken)] == [0, 1]
    assert world.incidents(sound) == []


@pytest.fixture
async def incidents(journal: OpenJournal, told: Told) -> list[Place]:
    """Eight incidents at 1 to 4 s, two at a time, of two sagas of two definitions; those at 2 s are closed. Oldest first."""
    one, two = new_ids(2)
    for saga, definition in ((one, DEFINITION), (two, CANCEL_ORDER)):
        journal.append((first(saga, definition=definition),))
        for number, kind in enumerate((REJECTED, EXHAUSTED, LATE, REJECTED), 1):
            journal.append((then(saga, number + 1, incident(number, kind), when=at(number)),))
        journal.append((then(saga, 6, IncidentClosed(id=2), when=at(9)),))
    await told.until(12)
    return [(saga, number) for number in range(1, 5) for saga in (one, two)]


FILTERS: dict[str, tuple[IncidentFilter, list[int]]] = {
    "open": (IncidentFilter(), [0, 1, 4, 5, 6, 7]),
    "all": (IncidentFilter(include_closed=True), [0, 1, 2, 3, 4, 5, 6, 7]),
    "a kind": (IncidentFilter(kinds=frozenset({REJECTED})), [0, 1, 6, 7]),
    "a kind of which all are closed": (IncidentFilter(kinds=frozenset({EXHAUSTED})), []),
    "kinds, all": (IncidentFilter(kinds=frozenset({EXHAUSTED, LATE}), include_closed=True), [2, 3, 4, 5]),
    "a definition": (IncidentFilter(definition_name=CANCEL_ORDER.name), [1, 5, 7]),
    "an unknown definition": (IncidentFilter(definition_name="nothing", include_closed=True), []),
    "everything": (IncidentFilter(include_closed=True, kinds=frozenset({EXHAUSTED}), definition_name=DEFINITION.name), [2]),
}


async def test_pages_of_incidents_join_without_seam(journal: OpenJournal, incidents: list[Place]) -> None:
    for name, (where, expected) in FILTERS.items():
        for limit in (1, 3, 100):
            assert await read_in_pages(journal, where, limit) == [incidents[place] for place in expected], (name, limit)


@pytest.mark.parametrize("limit", [1, 100])
async def test_incidents_of_one_saga_are_listed(journal: OpenJournal, incidents: list[Place], limit: int) -> None:
    saga = incidents[1][0]
    assert await read_in_pages(journal, IncidentFilter(saga_id=saga), limit) == [(saga, 1), (saga, 3), (saga, 4)]
    assert await read_in_pages(journal, IncidentFilter(saga_id=new_id(), include_closed=True), limit) == []


async def read_in_pages(journal: OpenJournal, where: IncidentFilter, limit: int) -> list[Place]:
    found: list[Place] = []
    cursor: tuple[Instant, SagaId, int] | None = None
    while page := await journal.list_incidents(where, cursor, limit):
        assert len(page) <= limit
        found += places(page)
        cursor = (page[-1].opened_at, page[-1].saga_id, page[-1].id)
    return found


async def test_incidents_outlive_the_journal(world: World) -> None:
    saga, told = new_id(), Told()
    async with await world.open(told) as journal:
        journal.append((first(saga, incident(1)),))
        await told.until(1)
    told = Told()
    async with await world.open(told) as journal:
        assert await needy(journal) == {saga}
        journal.append((then(saga, 3, IncidentClosed(id=1)),))
        await told.until(1)
        assert await needy(journal) == set()
