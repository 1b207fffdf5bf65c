"""The laws by which a storm is judged are no formality: whatever is tampered with in its books is noticed."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest

from saga.v1 import saga_pb2
from tests.integration.crashes.fault_proxy import CALM
from tests.integration.crashes.laws import Evidence, violations_of
from tests.integration.crashes.plans import PLANS, UNDOABLE
from tests.integration.crashes.storm import Place, SqliteBooks, Storm
from tests.simulation.journal_of_world import Deed, Entry

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Of sagas to which nothing happened: of either end, undone ones among them."""
    storm = Storm(seed=7, sagas=40, clients=1, kills=0, stops=0, weather=CALM, time_limit_s=60)
    directory = tmp_path_factory.mktemp("calm")
    place = Place(storm, directory, SqliteBooks(directory / "saga.db"))
    asyncio.run(_live(place))
    return place.evidence()


async def _live(place: Place) -> None:
    async with place.running():
        await place.weather_the_storm()
        await place.end()


def a_saga_with(evidence: Evidence, deed: Deed) -> str:
    return next(saga_id for saga_id, entries in evidence.ledger.items() if any(entry.deed is deed for entry in entries))


def effect_doubled(evidence: Evidence) -> Evidence:
    saga_id = a_saga_with(evidence, Deed.DO)
    entries = evidence.ledger[saga_id]
    again = next(entry for entry in entries if entry.deed is Deed.DO)
    return replace(evidence, ledger={**evidence.ledger, saga_id: [*entries, again]})


def without(evidence: Evidence, saga_id: str, lost: Entry) -> Evidence:
    kept = [entry for entry in evidence.ledger[saga_id] if entry is not lost]
    return replace(evidence, ledger={**evidence.ledger, saga_id: kept})


def effect_lost(evidence: Evidence) -> Evidence:
    saga_id = a_saga_with(evidence, Deed.DO)
    return without(evidence, saga_id, next(entry for entry in evidence.ledger[saga_id] if entry.deed is Deed.DO))


def undo_lost(evidence: Evidence) -> Evidence:
    """Of an effect that was there, and must not stand: what is withdrawn before it was done leaves nothing that could be missed."""
    plans = {told.saga_id: PLANS[told.plan] for told in evidence.told}
    entries = [entry for entries in evidence.ledger.values() for entry in entries if entry.saga_id in plans]
    done = {(entry.saga_id, entry.step_id) for entry in entries if entry.deed is Deed.DO}
    undone = (entry for entry in entries if entry.deed is Deed.UNDO and (entry.saga_id, entry.step_id) in done)
    lost = next(entry for entry in undone if plans[entry.saga_id][entry.step_id].kind is UNDOABLE)
    return without(evidence, lost.saga_id, lost)


def undo_doubled(evidence: Evidence) -> Evidence:
    saga_id = a_saga_with(evidence, Deed.UNDO)
    entries = evidence.ledger[saga_id]
    again = next(entry for entry in entries if entry.deed is Deed.UNDO)
    return replace(evidence, ledger={**evidence.ledger, saga_id: [*entries, again]})


def saga_lost(evidence: Evidence) -> Evidence:
    lost = evidence.told[0].saga_id
    return replace(evidence, payloads={saga_id: payloads for saga_id, payloads in evidence.payloads.items() if saga_id != lost})


def saga_doubled(evidence: Evidence) -> Evidence:
    return replace(evidence, payloads={**evidence.payloads, "another": evidence.payloads[evidence.told[0].saga_id]})


def event_lost(evidence: Evidence) -> Evidence:
    saga_id = evidence.told[0].saga_id
    return replace(evidence, payloads={**evidence.payloads, saga_id: evidence.payloads[saga_id][:1] + evidence.payloads[saga_id][2:]})


def end_lost(evidence: Evidence) -> Evidence:
    saga_id = evidence.told[0].saga_id
    return replace(evidence, payloads={**evidence.payloads, saga_id: evidence.payloads[saga_id][:-1]})


def other_end_told(evidence: Evidence) -> Evidence:
    first, *others = evidence.told
    assert first.saga is not None
    saga = saga_pb2.Saga.FromString(first.saga)
    completed, compensated = saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED
    saga.status = compensated if saga.status == completed else completed
    return replace(evidence, told=[first._replace(saga=saga.SerializeToString()), *others])


def client_never_told(evidence: Evidence) -> Evidence:
    first, *others = evidence.told
    return replace(evidence, told=[first._replace(saga=None), *others])


def saga_not_at_rest(evidence: Evidence) -> Evidence:
    saga_id = evidence.told[0].saga_id
    return replace(evidence, rows={**evidence.rows, saga_id: evidence.rows[saga_id]._replace(unfinished=1)})


def saga_that_nobody_asked_for(evidence: Evidence) -> Evidence:
    return replace(evidence, told=evidence.told[1:])


TAMPERINGS: Final[tuple[Callable[[Evidence], Evidence], ...]] = (
    effect_doubled, effect_lost, undo_lost, undo_doubled, saga_lost, saga_doubled, event_lost, end_lost, other_end_told,
    client_never_told, saga_not_at_rest, saga_that_nobody_asked_for,
)  # fmt: skip


def test_calm_keeps_every_law(evidence: Evidence) -> None:
    assert violations_of(evidence) == []
    assert {entry.deed for entries in evidence.ledger.values() for entry in entries} >= {Deed.DO, Deed.UNDO}


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda tampering: tampering.__name__)
def test_whatever_is_tampered_with_is_noticed(evidence: Evidence, tampering: Callable[[Evidence], Evidence]) -> None:
    assert violations_of(tampering(evidence)) != []
