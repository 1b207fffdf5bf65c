"""What is appended is committed in order, as a whole, and announced only then."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from coordinator.codec.events import decode_event
from coordinator.core.events import IncidentOpened, SagaCompensated, SagaCompleted, SagaFailed, SagaStarted, SagaTurnedBack, StepUnknown
from coordinator.core.values import IncidentKind, Instant, SagaStatus, StepId, TurnBackCause
from coordinator.engine.ports import Append, Appended, Committed, Refused
from tests.builders import at, attempt, failure
from tests.journals import OpenIncident, OpenJournal, Told, World, first, new_id, new_ids, step_done, then


async def test_appends_are_committed_in_their_order(journal: OpenJournal, told: Told, world: World) -> None:
    saga = new_id()
    appends = [first(saga), then(saga, 2, step_done("a"), step_done("b")), then(saga, 4)]
    for append in appends:
        journal.append((append,))
    assert await told.until(3) == [Committed(append=append) for append in appends]
    assert world.sequences(saga) == [1, 2, 3, 4]
    stored = await journal.find_saga(saga)
    assert stored is not None
    assert stored.events == tuple(event for append in appends for event in append.events)


async def test_nothing_is_told_before_append_returns(journal: OpenJournal, told: Told) -> None:
    journal.append((first(new_id()),))
    assert told.results == []
    await told.until(1)


async def test_what_is_announced_is_committed_at_that_moment(world: World) -> None:  # R25
    seen: list[tuple[str, list[int]]] = []

    def look(results: Sequence[Appended]) -> None:
        seen.extend((result.append.saga_id, world.sequences(result.append.saga_id)) for result in results)

    told = Told(look)
    sagas = new_ids(3)
    async with await world.open(told) as journal:
        journal.append([first(saga) for saga in sagas])
        await told.until(3)
        journal.append([then(saga, 2) for saga in sagas])
        await told.until(6)
    assert seen == [*((saga, [1]) for saga in sagas), *((saga, [1, 2]) for saga in sagas)]


async def test_append_from_within_the_announcement_is_taken(world: World) -> None:
    def go_on(results: Sequence[Appended]) -> None:
        for result in results:
            last = result.append.events[-1].sequence
            if last < 5:
                journal.append((then(result.append.saga_id, last + 1),))

    told, saga = Told(go_on), new_id()
    async with await world.open(told) as journal:
        journal.append((first(saga),))
        await told.until(5)
    assert world.sequences(saga) == [1, 2, 3, 4, 5]


async def test_batch_of_a_thousand_sagas_is_committed(journal: OpenJournal, told: Told) -> None:
    sagas = new_ids(1_000)
    journal.append([append for saga in sagas for append in (first(saga), then(saga, 2))])
    results = await told.until(2_000)
    assert all(isinstance(result, Committed) for result in results)
    assert len(await journal.load_awake(None, 2_000)) == 1_000


async def test_gap_is_refused_and_the_saga_set_aside(journal: OpenJournal, told: Told, world: World) -> None:
    broken, sound = new_ids(2)
    journal.append((first(broken), first(sound)))
    await told.until(2)
    gap = then(broken, 3)
    journal.append((gap, then(sound, 2)))
    results = await told.until(4)
    assert [type(result) for result in results if result.append.saga_id == broken] == [Committed, Refused]
    assert [type(result) for result in results if result.append.saga_id == sound] == [Committed, Committed]
    stored = await journal.find_saga(broken)
    assert stored is not None
    assert stored.quarantined is not None
    assert [saga.saga_id for saga in await journal.load_awake(None, 10)] == [sound]
    assert [(incident.id, incident.kind) for incident in world.incidents(broken)] == [(0, IncidentKind.QUARANTINED)]


async def test_append_to_an_unknown_saga_is_refused(journal: OpenJournal, told: Told, world: World) -> None:
    stranger = new_id()
    journal.append((then(stranger, 2),))
    assert isinstance((await told.until(1))[0], Refused)
    assert world.sequences(stranger) == []


def broken_appends() -> dict[str, Append]:
    saga = new_id()
    good = first(saga)
    return {
        "gap within": replace(good, events=(good.events[0], then(saga, 3).events[0])),
        "start that is not the first": replace(good, events=then(saga, 2).events),
        "first that is no start": replace(good, start=None),
        "no events": replace(good, events=()),
        "text that is no Unicode": first(saga, labels=[("customer", "\ud800")]),
        "two labels with one key": first(saga, labels=[("customer", "1"), ("customer", "2")]),
        "instant beyond the calendar": first(saga, created_at=Instant(2**70)),
    }


@pytest.mark.parametrize("name", broken_appends())
async def test_append_that_can_never_be_written_is_refused_alone(name: str, journal: OpenJournal, told: Told, world: World) -> None:  # R28
    broken, others = broken_appends()[name], new_ids(20)
    batch = [first(saga) for saga in others]
    journal.append([*batch[:13], broken, *batch[13:]])
    results = await told.until(21)
    assert [result.append for result in results if isinstance(result, Refused)] == [broken]
    assert {result.append.saga_id for result in results if isinstance(result, Committed)} == set(others)
    assert world.sequences(broken.saga_id) == []


async def test_several_culprits_in_one_batch_are_all_found(journal: OpenJournal, told: Told) -> None:  # R28
    sagas = new_ids(40)
    journal.append([first(saga) for saga in sagas])
    await told.until(40)
    culprits = {sagas[0], sagas[1], sagas[17], sagas[39]}
    journal.append([then(saga, 5 if saga in culprits else 2) for saga in sagas])
    results = (await told.until(80))[40:]
    assert {result.append.saga_id for result in results if isinstance(result, Refused)} == culprits
    assert {result.append.saga_id for result in results if isinstance(result, Committed)} == set(sagas) - culprits


async def test_what_was_queued_behind_a_refused_append_is_refused_too(journal: OpenJournal, told: Told, world: World) -> None:  # R28
    saga, other = new_ids(2)
    journal.append((first(saga), first(other)))
    await told.until(2)
    journal.append((then(saga, 3), then(saga, 4), then(other, 2)))
    journal.append((then(saga, 5), then(other, 3)))
    results = (await told.until(7))[2:]
    refused = [result for result in results if isinstance(result, Refused)]
    assert [result.append.events[0].sequence for result in refused] == [3, 4, 5]
    assert {result.failure for result in refused} == {refused[0].failure}
    assert world.sequences(saga) == [1]
    assert world.sequences(other) == [1, 2, 3]


async def test_events_that_are_there_already_mean_lost_ownership(journal: OpenJournal, told: Told, world: World) -> None:  # R27
    saga = new_id()
    journal.append((first(saga), then(saga, 2)))
    await told.until(2)
    journal.append((then(saga, 2),))
    await told.until_lost()
    journal.append((then(saga, 3),))
    assert len(told.results) == 2
    assert world.sequences(saga) == [1, 2]


ENDINGS = [
    (SagaCompleted(output=None), SagaStatus.COMPLETED, at(9)),
    (SagaCompensated(), SagaStatus.COMPENSATED, at(9)),
    (SagaFailed(), SagaStatus.FAILED, None),
    (
        SagaTurnedBack(cause=TurnBackCause.CANCELLED, step_id=None, failure=failure(1), quiet_at=at(9)),
        SagaStatus.COMPENSATING,
        None,
    ),
]


@pytest.mark.parametrize(("fact", "status", "ended_at"), ENDINGS, ids=[status.name for _, status, _ in ENDINGS])
async def test_status_of_the_row_follows_the_events(
    journal: OpenJournal, told: Told, fact: SagaCompleted, status: SagaStatus, ended_at: Instant | None
) -> None:
    saga = new_id()
    journal.append((first(saga), then(saga, 2), then(saga, 3, step_done("b"), fact, status=status, when=at(9))))
    await told.until(3)
    stored = await journal.find_saga(saga)
    assert stored is not None
    assert (stored.status, stored.ended_at, len(stored.events)) == (status, ended_at, 4)


async def test_saga_that_ends_with_its_start_is_ended(journal: OpenJournal, told: Told) -> None:
    saga = new_id()
    journal.append((first(saga, SagaCompleted(output=None), status=SagaStatus.COMPLETED, created_at=at(3)),))
    await told.until(1)
    stored = await journal.find_saga(saga)
    assert stored is not None
    assert (stored.status, stored.created_at, stored.ended_at) == (SagaStatus.COMPLETED, at(3), at(3))


async def test_opened_incident_is_stored_with_its_saga(journal: OpenJournal, told: Told, world: World) -> None:
    saga = new_id()
    unknown = StepUnknown(attempt=attempt("b", 1), sent_at=None, failure=failure())
    opened = IncidentOpened(id=1, kind=IncidentKind.COMPENSATION_EXHAUSTED, step_id=StepId("b"), failure=failure(14, "gave up"))
    journal.append((first(saga), then(saga, 2, unknown, opened, SagaFailed(), status=SagaStatus.FAILED)))
    await told.until(2)
    assert world.incidents(saga) == [OpenIncident(1, IncidentKind.COMPENSATION_EXHAUSTED, "b", "gave up")]


async def test_events_are_read_as_the_bytes_of_the_public_message(journal: OpenJournal, told: Told) -> None:  # R30
    saga = new_id()
    appends = [first(saga), *(then(saga, sequence) for sequence in range(2, 7))]
    journal.append(appends)
    await told.until(6)
    events = [decode_event(payload) for payload in await journal.read_events(saga, 0, 100)]
    assert events == [event for append in appends for event in append.events]
    assert isinstance(events[0].fact, SagaStarted)
    assert [decode_event(payload).sequence for payload in await journal.read_events(saga, 2, 3)] == [3, 4, 5]
    assert await journal.read_events(saga, 6, 3) == []
    assert await journal.read_events(new_id(), 0, 3) == []


async def test_after_close_appends_are_dropped(world: World, told: Told) -> None:
    saga = new_id()
    async with await world.open(told) as journal:
        journal.append((first(saga),))
    journal.append((then(saga, 2),))
    await journal.aclose()
    assert world.sequences(saga) == [1]
    assert len(told.results) == 1
