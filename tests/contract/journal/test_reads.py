"""What can be asked of a journal."""

import pytest

from coordinator.core.events import IncidentClosed, SagaCompleted, SagaFailed, SagaPaused
from coordinator.core.values import DefinitionKey, IncidentKind, Instant, SagaId, SagaStatus
from coordinator.engine.ports import SagaFilter, StoredSaga
from tests.builders import DEFINITION, at
from tests.journals import OpenJournal, Told, first, incident, new_id, new_ids, then

CANCEL_ORDER = DefinitionKey("cancel-order", 3)
RUNNING, COMPLETED, FAILED = SagaStatus.RUNNING, SagaStatus.COMPLETED, SagaStatus.FAILED
STEP_REJECTED, HOOK_FAILED = IncidentKind.STEP_REJECTED, IncidentKind.HOOK_FAILED
LATE_OUTCOME, PIVOT_UNKNOWN = IncidentKind.LATE_OUTCOME, IncidentKind.PIVOT_UNKNOWN


async def test_unknown_saga_is_none(journal: OpenJournal) -> None:
    assert await journal.find_saga(new_id()) is None


async def test_saga_is_found_as_it_was_stored(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    start = first(saga, labels=[("customer", "7"), ("region", "eu")], created_at=at(3), definition=CANCEL_ORDER)
    journal.append((start, then(saga, 2)))
    await told.until(2)
    assert start.start is not None
    assert await journal.find_saga(saga) == StoredSaga(
        saga_id=saga,
        definition=CANCEL_ORDER,
        fingerprint=start.start.fingerprint,
        status=RUNNING,
        created_at=at(3),
        ended_at=None,
        is_paused=False,
        needs_person=False,
        events=(*start.events, *then(saga, 2).events),
        labels=(("customer", "7"), ("region", "eu")),
        quarantined=None,
        in_doubt=False,
    )


async def test_text_of_every_script_survives(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    labels = [("город", "Мир 🌍"), ("quote", "'; DROP TABLE saga; --"), ("empty", "")]
    journal.append((first(saga, labels=labels),))
    await told.until(1)
    assert [found.saga_id for found in await journal.list_sagas(SagaFilter(labels=tuple(labels)), None, 10)] == [saga]


@pytest.fixture
async def sagas(journal: OpenJournal, told: Told) -> list[SagaId]:
    """Ten sagas: created at 0 to 9 s; even ones in Europe; every third of another definition; 4 completed, 5 failed; 1, 2 and 5 paused;
    2, 4 and 5 with open incidents, 7 with a closed one."""
    ids = new_ids(10)
    for place, saga in enumerate(ids):
        labels = [("place", str(place)), ("region", "eu" if place % 2 == 0 else "us")]
        definition = CANCEL_ORDER if place % 3 == 0 else DEFINITION
        journal.append((first(saga, labels=labels, created_at=at(place), definition=definition),))
    journal.append(
        (
            then(ids[1], 2, SagaPaused(reason="", actor=""), paused=True),
            then(ids[2], 2, SagaPaused(reason="", actor=""), incident(1, STEP_REJECTED), paused=True),
            then(ids[4], 2, SagaCompleted(output=None), incident(1, HOOK_FAILED), status=COMPLETED),
            then(ids[5], 2, SagaFailed(), incident(1, STEP_REJECTED), incident(2, LATE_OUTCOME), status=FAILED, paused=True),
            then(ids[7], 2, incident(1, STEP_REJECTED), IncidentClosed(id=1)),
        )
    )
    await told.until(15)
    return ids


FILTERS = {
    "nothing": (SagaFilter(), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    "one status": (SagaFilter(statuses=frozenset({RUNNING})), [9, 8, 7, 6, 3, 2, 1, 0]),
    "several statuses": (SagaFilter(statuses=frozenset({COMPLETED, FAILED})), [5, 4]),
    "a status that nobody has": (SagaFilter(statuses=frozenset({SagaStatus.PENDING})), []),
    "a definition": (SagaFilter(definition_name=CANCEL_ORDER.name), [9, 6, 3, 0]),
    "an unknown definition": (SagaFilter(definition_name="nothing"), []),
    "a label": (SagaFilter(labels=(("region", "eu"),)), [8, 6, 4, 2, 0]),
    "two labels": (SagaFilter(labels=(("region", "eu"), ("place", "6"))), [6]),
    "labels that contradict": (SagaFilter(labels=(("region", "eu"), ("place", "7"))), []),
    "a value of another label": (SagaFilter(labels=(("place", "eu"),)), []),
    "from an instant": (SagaFilter(created_from=at(7)), [9, 8, 7]),
    "before an instant": (SagaFilter(created_before=at(2)), [1, 0]),
    "a span": (SagaFilter(created_from=at(3), created_before=at(6)), [5, 4, 3]),
    "paused": (SagaFilter(is_paused=True), [5, 2, 1]),
    "not paused": (SagaFilter(is_paused=False), [9, 8, 7, 6, 4, 3, 0]),
    "needs a person": (SagaFilter(needs_person=True), [5, 4, 2]),
    "needs nobody": (SagaFilter(needs_person=False), [9, 8, 7, 6, 3, 1, 0]),
    "an incident": (SagaFilter(incident_kinds=frozenset({STEP_REJECTED})), [5, 2]),
    "several incidents": (SagaFilter(incident_kinds=frozenset({LATE_OUTCOME, HOOK_FAILED})), [5, 4]),
    "an incident that nobody has": (SagaFilter(incident_kinds=frozenset({PIVOT_UNKNOWN})), []),
    "an incident, and needs nobody": (SagaFilter(incident_kinds=frozenset({STEP_REJECTED}), needs_person=False), []),
    "paused, and needs nobody": (SagaFilter(is_paused=True, needs_person=False), [1]),
    "needs a person, and not paused": (SagaFilter(is_paused=False, needs_person=True), [4]),
    "needs a person, in several statuses": (SagaFilter(needs_person=True, statuses=frozenset({FAILED, COMPLETED})), [5, 4]),
    "needs a person, of a definition": (SagaFilter(needs_person=True, definition_name=DEFINITION.name), [5, 4, 2]),
    "needs a person, with labels": (SagaFilter(needs_person=True, labels=(("region", "eu"), ("place", "4"))), [4]),
    "needs a person, in a span": (SagaFilter(needs_person=True, created_from=at(3), created_before=at(5)), [4]),
    "paused, with a label": (SagaFilter(is_paused=True, labels=(("region", "us"),)), [5, 1]),
    "not paused, needs nobody, of a label": (SagaFilter(is_paused=False, needs_person=False, labels=(("region", "eu"),)), [8, 6, 0]),
    "everything": (
        SagaFilter(
            statuses=frozenset({RUNNING, FAILED}),
            definition_name=DEFINITION.name,
            labels=(("region", "us"),),
            created_from=at(2),
            created_before=at(8),
        ),
        [7, 5],
    ),
    "everything, and a person": (
        SagaFilter(
            statuses=frozenset({RUNNING, FAILED}),
            definition_name=DEFINITION.name,
            labels=(("region", "us"),),
            created_from=at(2),
            created_before=at(8),
            is_paused=True,
            needs_person=True,
            incident_kinds=frozenset({LATE_OUTCOME}),
        ),
        [5],
    ),
}


async def test_every_filter_finds_what_fits_newest_first(journal: OpenJournal, sagas: list[SagaId]) -> None:
    for name, (where, places) in FILTERS.items():
        assert [saga.saga_id for saga in await journal.list_sagas(where, None, 100)] == [sagas[place] for place in places], name


@pytest.mark.parametrize("limit", [1, 3])
async def test_pages_of_every_filter_join_without_seam(journal: OpenJournal, sagas: list[SagaId], limit: int) -> None:
    for name, (where, places) in FILTERS.items():
        found: list[SagaId] = []
        cursor: tuple[Instant, SagaId] | None = None
        while page := await journal.list_sagas(where, cursor, limit):
            assert len(page) <= limit
            found += [saga.saga_id for saga in page]
            cursor = (page[-1].created_at, page[-1].saga_id)
        assert found == [sagas[place] for place in places], name


async def test_sagas_of_one_instant_are_paged_by_id(journal: OpenJournal, told: Told) -> None:
    ids = new_ids(7)
    journal.append([first(saga, created_at=at(5), labels=[("all", "yes")]) for saga in ids])
    await told.until(7)
    for where in (SagaFilter(), SagaFilter(labels=(("all", "yes"),)), SagaFilter(statuses=frozenset({RUNNING, FAILED}))):
        top = await journal.list_sagas(where, None, 3)
        rest = await journal.list_sagas(where, (at(5), top[-1].saga_id), 10)
        assert [saga.saga_id for saga in (*top, *rest)] == sorted(ids, reverse=True)


async def test_lists_carry_labels_and_no_events(journal: OpenJournal, sagas: list[SagaId]) -> None:
    newest, *_ = await journal.list_sagas(SagaFilter(), None, 1)
    assert (newest.saga_id, newest.labels, newest.events) == (sagas[9], (("place", "9"), ("region", "us")), ())


async def test_reads_go_on_while_batches_are_written(journal: OpenJournal, told: Told) -> None:
    ids = new_ids(400)
    found = 0
    for place, saga in enumerate(ids):
        journal.append((first(saga), then(saga, 2)))
        if place % 40 == 0:
            page = await journal.list_sagas(SagaFilter(), None, 1_000)
            assert found <= len(page) <= place + 1
            found = len(page)
    await told.until(800)
    assert len(await journal.list_sagas(SagaFilter(), None, 1_000)) == 400
