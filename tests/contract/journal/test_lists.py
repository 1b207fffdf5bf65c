"""A list shows what fits, whatever condition the journal finds it by."""

import random
from itertools import product

import pytest

from coordinator.core.values import DefinitionKey, IncidentKind, SagaId, SagaStatus
from coordinator.engine.ports import SagaFilter, StoredSaga
from tests.builders import DEFINITION, at
from tests.journals import OpenJournal, Told, first, incident, new_ids

SAGAS = 60
ASKED = 60
"""Of 864 combinations in each case, drawn anew at each run."""
SPAN_S = 20
"""In which they are created, some at the same time."""
RARE = DefinitionKey("rare", 1)
KINDS = (IncidentKind.STEP_REJECTED, IncidentKind.LATE_OUTCOME)
FEW, MANY = ("customer", "0"), ("region", "eu")
"""Labels: of few, and of many."""

STATUSES = [(), (SagaStatus.FAILED,), (SagaStatus.RUNNING, SagaStatus.COMPLETED)]
DEFINITIONS = ["", DEFINITION.name, RARE.name]
LABELS = [(), (FEW,), (MANY,), (FEW, MANY)]
SPANS = [(None, None), (at(4), None), (None, at(15)), (at(4), at(15))]
FLAGS = [None, True, False]
INCIDENTS = [(), (KINDS[1],)]


@pytest.fixture
async def kinds(journal: OpenJournal, told: Told) -> dict[SagaId, IncidentKind | None]:
    """Sagas of which each condition holds for some and not for others; of each, what it needs a person for."""
    chance = random.Random(7)
    kinds: dict[SagaId, IncidentKind | None] = {}
    for saga in new_ids(SAGAS):
        labels = [("customer", str(chance.randrange(12)))] + [MANY] * (chance.random() < 0.7)
        kinds[saga] = chance.choice([None, None, *KINDS])
        opened = [incident(1, kind)] if (kind := kinds[saga]) is not None else []
        journal.append(
            (
                first(
                    saga,
                    *opened,
                    labels=labels,
                    created_at=at(chance.randrange(SPAN_S)),
                    definition=RARE if chance.random() < 0.2 else DEFINITION,
                    status=chance.choice([*STATUSES[1], *STATUSES[2], SagaStatus.COMPLETED]),
                    paused=chance.random() < 0.3,
                ),
            )
        )
    await told.until(SAGAS)
    return kinds


def fits(saga: StoredSaga, kind: IncidentKind | None, where: SagaFilter) -> bool:
    """Said as plainly as can be."""
    return (
        saga.status in (where.statuses or SagaStatus)
        and where.definition_name in ("", saga.definition.name)
        and all(label in saga.labels for label in where.labels)
        and (where.created_from is None or where.created_from <= saga.created_at)
        and (where.created_before is None or saga.created_at < where.created_before)
        and where.is_paused in (None, saga.is_paused)
        and where.needs_person in (None, kind is not None)
        and (not where.incident_kinds or kind in where.incident_kinds)
    )


@pytest.mark.parametrize("statuses", STATUSES, ids=["any status", "a status", "several"])
async def test_every_combination_of_conditions_finds_what_fits(
    journal: OpenJournal, kinds: dict[SagaId, IncidentKind | None], statuses: tuple[SagaStatus, ...]
) -> None:
    chance = random.Random()
    every = await journal.list_sagas(SagaFilter(), None, SAGAS)
    assert {saga.saga_id for saga in every} == set(kinds)
    assert every == sorted(every, key=lambda saga: (saga.created_at, saga.saga_id), reverse=True)
    combinations = list(product(DEFINITIONS, LABELS, SPANS, FLAGS, FLAGS, INCIDENTS))
    for name, labels, span, is_paused, needs_person, incident_kinds in chance.sample(combinations, ASKED):
        where = SagaFilter(
            statuses=frozenset(statuses),
            definition_name=name,
            labels=labels,
            created_from=span[0],
            created_before=span[1],
            is_paused=is_paused,
            needs_person=needs_person,
            incident_kinds=frozenset(incident_kinds),
        )
        start, limit = chance.randrange(SAGAS), chance.choice([2, SAGAS])
        cursor = (every[start - 1].created_at, every[start - 1].saga_id) if start > SAGAS // 3 else None
        fitting = [saga for saga in every[start if cursor else 0 :] if fits(saga, kinds[saga.saga_id], where)]
        assert await journal.list_sagas(where, cursor, limit) == fitting[:limit], (where, cursor, limit)
