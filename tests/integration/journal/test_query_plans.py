"""What a question costs must not grow with the sagas that it is not about: every one walks an index. And it sees one state."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, event

from coordinator.core.values import IncidentKind, Instant, SagaId, SagaStatus
from coordinator.engine.ports import IncidentFilter, SagaFilter
from coordinator.journal import forgetting, listings, queries
from coordinator.journal.database_file import DatabaseFile
from coordinator.journal.sqlite import connect, reading_engine
from coordinator.journal.statements import Statements
from tests.builders import at
from tests.journals import SqlWorld, Told, definition, empty_database

SAGA = SagaId("01900000-0000-7000-8000-000000000001")
CURSOR = (at(5), SAGA)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    database = tmp_path / "saga.db"
    database.write_bytes(empty_database())
    engine = create_engine(f"sqlite:///{database}")
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def plans_of(connection: Connection, ask: Callable[[Connection], object]) -> list[str]:
    """How SQLite goes about each statement of a question."""
    asked: list[tuple[str, tuple[object, ...]]] = []

    def note(*given: object) -> None:
        assert isinstance(given[3], tuple)
        asked.append((str(given[2]), given[3]))

    event.listen(connection, "before_cursor_execute", note)
    ask(connection)
    event.remove(connection, "before_cursor_execute", note)
    raw = connection.connection.cursor()
    lines: list[str] = []
    for statement, parameters in asked:
        raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        lines += [str(row[3]) for row in raw.fetchall()]
    return lines


def incidents(where: IncidentFilter, after: tuple[Instant, SagaId, int] | None = None) -> Callable[[Connection], object]:
    return lambda connection: listings.list_incidents(connection, where, after, 100)


def listing(where: SagaFilter, before: tuple[Instant, SagaId] | None) -> Callable[[Connection], object]:
    return lambda connection: listings.list_sagas(connection, where, before, 100)


def _nobody_wrote(_shard: int, _position: int) -> bool:
    return False


QUESTIONS: dict[str, Callable[[Connection], object]] = {
    "awake, first page": lambda connection: queries.load_awake(connection, 0, None, 100, _nobody_wrote),
    "awake, next page": lambda connection: queries.load_awake(connection, 0, SAGA, 100, _nobody_wrote),
    "asleep, first page": lambda connection: queries.find_asleep(connection, 0, at(1), at(2), None, 100),
    "asleep, next page": lambda connection: queries.find_asleep(connection, 0, at(1), at(2), CURSOR, 100),
    "some sagas": lambda connection: queries.load(connection, [SAGA, SAGA], _nobody_wrote),
    "one saga": lambda connection: queries.find_saga(connection, SAGA, _nobody_wrote),
    "by key": lambda connection: queries.find_by_key(connection, "d", "k", at(1)),
    "events": lambda connection: queries.read_events(connection, SAGA, 3, 100),
    "what is to be forgotten": lambda connection: forgetting.forget(
        connection, shards=frozenset({0}), ended_before=at(1), now=at(1), limit=100
    ),
    "definition": lambda connection: queries.find_definition(connection, "d", 0),
    "definitions": lambda connection: queries.list_definitions(connection, "d", None, 100),
    "all sagas": listing(SagaFilter(), None),
    "all sagas, next page": listing(SagaFilter(), CURSOR),
    "a status": listing(SagaFilter(statuses=frozenset({SagaStatus.FAILED})), CURSOR),
    "several statuses": listing(SagaFilter(statuses=frozenset({SagaStatus.FAILED, SagaStatus.RUNNING})), None),
    "a definition's": listing(SagaFilter(definition_name="d"), CURSOR),
    "a label's": listing(SagaFilter(labels=(("a", "b"), ("c", "d"))), CURSOR),
    "a time's": listing(SagaFilter(created_from=at(1), created_before=at(9)), None),
    "not paused, needs nobody": listing(SagaFilter(is_paused=False, needs_person=False), CURSOR),
    "not paused, of a status": listing(SagaFilter(is_paused=False, statuses=frozenset({SagaStatus.FAILED})), CURSOR),
    "needs nobody, of a definition": listing(SagaFilter(needs_person=False, definition_name="d"), CURSOR),
}
WRITES: dict[str, Callable[[Statements, Connection], object]] = {
    "keys": lambda statements, connection: statements.find_keys.fetch(connection, [("d", "k"), ("d", "l")]),
    "ids": lambda statements, connection: statements.find_sagas.fetch(connection, [(SAGA,), (SAGA,)]),
    "predecessors": lambda statements, connection: statements.count_events.total(connection, [(SAGA, 1), (SAGA, 2)]),
    "rows": lambda statements, connection: statements.update_sagas.count(connection, [(SAGA, 1, 1, 1, None, None, True, False)] * 2),
    "incidents": lambda statements, connection: statements.close_incidents.count(connection, [(SAGA, 1, 1), (SAGA, 2, 1)]),
    "needs": lambda statements, connection: statements.update_needs.count(connection, [(SAGA,), (SAGA,)]),
}


def assert_indexed(plans: list[str]) -> None:
    assert plans
    ours = ("saga", "saga_label", "event", "start_key", "definition", "incident")
    whole = [line for line in plans if line.startswith("SCAN") and line.split()[1] in ours and "USING" not in line]
    assert whole == []
    assert [line for line in plans if "TEMP B-TREE" in line] == []


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_walks_an_index_in_order(connection: Connection, question: str) -> None:
    assert_indexed(plans_of(connection, QUESTIONS[question]))


SOMETHING_ELSE = {
    "nothing": SagaFilter(),
    "a status": SagaFilter(statuses=frozenset({SagaStatus.COMPLETED})),
    "several statuses": SagaFilter(statuses=frozenset({SagaStatus.COMPLETED, SagaStatus.RUNNING})),
    "a definition": SagaFilter(definition_name="d"),
    "labels": SagaFilter(labels=(("a", "b"), ("c", "d"))),
    "a time": SagaFilter(created_from=at(1), created_before=at(9)),
    "all of it": SagaFilter(
        statuses=frozenset({SagaStatus.FAILED}), definition_name="d", labels=(("a", "b"),), created_from=at(1), created_before=at(9)
    ),
}
PAUSED, NEEDY = "ix_saga_paused", "ix_saga_needs_person"
FEW: dict[str, tuple[Callable[[SagaFilter], SagaFilter], set[str]]] = {
    "paused": (lambda also: replace(also, is_paused=True), {PAUSED}),
    "needs a person": (lambda also: replace(also, needs_person=True), {NEEDY}),
    "a kind of incident": (lambda also: replace(also, incident_kinds=frozenset({IncidentKind.LATE_OUTCOME})), {NEEDY}),
    "paused and needs a person": (lambda also: replace(also, is_paused=True, needs_person=True), {PAUSED, NEEDY}),
    "paused and needs nobody": (lambda also: replace(also, is_paused=True, needs_person=False), {PAUSED}),
}


@pytest.mark.parametrize("also", SOMETHING_ELSE)
@pytest.mark.parametrize("before", [None, CURSOR], ids=["first page", "next page"])
@pytest.mark.parametrize("few", FEW)
def test_index_of_the_few_leads_whatever_else_is_asked(
    connection: Connection, few: str, also: str, before: tuple[Instant, SagaId] | None
) -> None:
    asked_for, indexes = FEW[few]
    plans = plans_of(connection, listing(asked_for(SOMETHING_ELSE[also]), before))
    assert_indexed(plans)
    assert plans[0].split()[1] == "saga"
    assert indexes & set(plans[0].split()), plans


OPEN, BY_AGE = "ix_incident_open", "ix_incident_opened_at_saga_id_id"
INCIDENTS = {
    "open": (IncidentFilter(), OPEN),
    "all": (IncidentFilter(include_closed=True), BY_AGE),
    "open, of kinds": (IncidentFilter(kinds=frozenset({IncidentKind.KEY_EXPIRED, IncidentKind.QUARANTINED})), OPEN),
    "all, of a kind": (IncidentFilter(include_closed=True, kinds=frozenset({IncidentKind.KEY_EXPIRED})), BY_AGE),
    "open, of a definition": (IncidentFilter(definition_name="d"), OPEN),
    "all, of a definition": (IncidentFilter(include_closed=True, definition_name="d"), BY_AGE),
}


@pytest.mark.parametrize("after", [None, (at(5), SAGA, 2)], ids=["first page", "next page"])
@pytest.mark.parametrize("question", INCIDENTS)
def test_list_of_incidents_walks_its_index_in_order(
    connection: Connection, question: str, after: tuple[Instant, SagaId, int] | None
) -> None:
    where, index = INCIDENTS[question]
    plans = plans_of(connection, incidents(where, after))
    assert_indexed(plans)
    assert plans[0].split()[1] == "incident"
    assert index in plans[0].split(), plans


@pytest.mark.parametrize("include_closed", [False, True])
def test_incidents_of_one_saga_are_found_by_it_alone(connection: Connection, include_closed: bool) -> None:
    where = IncidentFilter(saga_id=SAGA, include_closed=include_closed, definition_name="d")
    plans = plans_of(connection, incidents(where, (at(5), SAGA, 2)))
    assert [line for line in plans if "SCAN" in line] == []
    assert any(line.startswith("SEARCH incident") and "(saga_id=?)" in line for line in plans), plans


@pytest.mark.parametrize("write", WRITES)
def test_write_finds_its_rows_by_index(connection: Connection, write: str) -> None:
    statements = Statements(connection.dialect)
    assert_indexed(plans_of(connection, lambda connection: WRITES[write](statements, connection)))


async def test_question_sees_one_state_throughout(world: SqlWorld) -> None:
    async with await world.open(Told()) as journal:
        file = DatabaseFile(world.path)
        file.remember()
        engine = reading_engine(file, connect)
        with engine.connect() as reading:
            assert queries.list_definitions(reading, "", None, 10) == []
            await journal.put_definition(definition("a", 1))
            assert queries.list_definitions(reading, "", None, 10) == []
        with engine.connect() as reading:
            assert queries.list_definitions(reading, "", None, 10) == [definition("a", 1)]
        engine.dispose()
