"""What a question costs must not grow with the sagas that it is not about: every one walks an index. And it sees one state."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine

from coordinator.core.values import IncidentKind, Instant, SagaId, SagaStatus
from coordinator.engine.ports import IncidentFilter, SagaFilter
from coordinator.journal import forgetting, listings, queries
from coordinator.journal.database_file import DatabaseFile
from coordinator.journal.sqlite import connect, reading_engine
from coordinator.journal.statements import Statements
from tests.builders import at
from tests.journals import SqlWorld, Told, definition, empty_database, new_ids

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


def plans_of(connection: Connection, ask: Callable[[Connection], object], *, of: str = "") -> list[str]:
    """How SQLite goes about each statement of a question that contains this text."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    asked: list[str] = []
    driver.set_trace_callback(asked.append)  # also what goes to the driver without SQLAlchemy between
    ask(connection)
    driver.set_trace_callback(None)
    lines: list[str] = []
    for statement in asked:
        if of in statement and not statement.startswith(("BEGIN", "--")):
            lines += [str(row[3]) for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}")]
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


COUNTS, WALKS = "count(*)", "saga.fingerprint"
"""What only the statements contain that look for the rarest condition, and only those that read sagas by it."""
CREATED, STATUS, STANDING = "created_at_saga_id", "status_created_at_saga_id", "definition_name_status_created_at_saga_id"
PAUSED, NEEDY, LABEL = "paused", "needs_person", "key_value_created_at_saga_id"
FAILED, COMPLETED = frozenset({SagaStatus.FAILED}), frozenset({SagaStatus.COMPLETED})
COMMON, UNCOMMON, RARE = (("of", "most"),), (("of", "some"),), (("of", "few"),)
LEADING = {
    "nothing": (SagaFilter(), CREATED),
    "a time": (SagaFilter(created_from=at(1), created_before=at(900)), CREATED),
    "not paused": (SagaFilter(is_paused=False), CREATED),
    "paused": (SagaFilter(is_paused=True), PAUSED),
    "needs a person": (SagaFilter(needs_person=True), NEEDY),
    "a kind of incident": (SagaFilter(incident_kinds=frozenset({IncidentKind.LATE_OUTCOME})), NEEDY),
    "a definition": (SagaFilter(definition_name="d"), STANDING),
    "a status": (SagaFilter(statuses=FAILED), STATUS),
    "a rare status of a common label": (SagaFilter(statuses=FAILED, labels=COMMON), STATUS),
    "a common status of a rare label": (SagaFilter(statuses=COMPLETED, labels=RARE), LABEL),
    "several statuses of a rare label": (SagaFilter(statuses=frozenset(SagaStatus), labels=RARE), LABEL),
    "several labels": (SagaFilter(labels=(*COMMON, *RARE)), LABEL),
    "a common definition of a rare label": (SagaFilter(definition_name="d", labels=RARE), LABEL),
    "a rare definition of a common label": (SagaFilter(definition_name="e", labels=COMMON), STANDING),
    "a rare status of a common definition": (SagaFilter(definition_name="d", statuses=FAILED, labels=UNCOMMON), STANDING),
    "paused, of a rare label": (SagaFilter(is_paused=True, labels=RARE), LABEL),
    "paused, of a common label": (SagaFilter(is_paused=True, labels=COMMON), PAUSED),
    "paused, of a rare status": (SagaFilter(is_paused=True, statuses=FAILED), STATUS),
    "paused and needs a person": (SagaFilter(is_paused=True, needs_person=True), NEEDY),
    "paused and needs nobody": (SagaFilter(is_paused=True, needs_person=False), PAUSED),
    "all of it": (SagaFilter(is_paused=True, needs_person=True, definition_name="d", statuses=COMPLETED, labels=RARE), LABEL),
}


@pytest.fixture
def written(connection: Connection) -> Connection:
    """A hundred sagas: of nearly all, of some, of few and of hardly any holds what may be asked."""
    for number, saga in enumerate(new_ids(100)):
        status = SagaStatus.FAILED if number % 30 == 0 else SagaStatus.COMPLETED
        flags = (number % 8 == 0, number % 10 == 0)
        connection.exec_driver_sql(
            "INSERT INTO saga (saga_id, shard, definition_name, definition_version, fingerprint, status, sequence, created_at, updated_at,"
            " paused, needs_person) VALUES (?, 0, ?, 1, x'00', ?, 1, ?, 0, ?, ?)",
            (saga, "e" if number % 25 == 0 else "d", int(status), at(number), *flags),
        )
        how_many = "few" if number % 50 == 0 else "some" if number % 5 == 0 else "most"
        connection.exec_driver_sql("INSERT INTO saga_label VALUES (?, 'of', ?, ?)", (saga, how_many, at(number)))
    return connection


@pytest.mark.parametrize("before", [None, (at(99), SAGA)], ids=["first page", "next page"])
@pytest.mark.parametrize("question", LEADING)
def test_rarest_condition_leads(written: Connection, question: str, before: tuple[Instant, SagaId] | None) -> None:
    where, index = LEADING[question]
    plans = plans_of(written, listing(where, before), of=WALKS)
    assert_indexed(plans)
    table = "saga" if index is not LABEL else "saga_label"
    assert f"ix_{table}_{index}" in plans[0].split(), plans
    assert f" ix_{table}_{index} " not in " ".join(plans[1:]) or len(where.statuses) > 1 or where.definition_name, plans


@pytest.mark.parametrize("question", LEADING)
def test_rarest_condition_is_found_by_indexes(written: Connection, question: str) -> None:
    """Without a look at the sagas, but for the indexes of flags: SQLite looks at the flag although all of them have it."""
    where, _ = LEADING[question]
    plans = plans_of(written, listing(where, (at(99), SAGA)), of=COUNTS)
    asked = [line for line in plans if line.split()[1] in ("saga", "saga_label")]
    assert all("COVERING INDEX" in line or "ix_saga_paused" in line or "ix_saga_needs_person" in line for line in asked), plans


def test_one_condition_is_not_counted(written: Connection) -> None:
    assert plans_of(written, listing(SagaFilter(statuses=COMPLETED, definition_name="d"), None), of=COUNTS) == []


def test_page_far_down_begins_at_its_cursor(written: Connection) -> None:
    plans = plans_of(written, listing(SagaFilter(created_before=at(90)), (at(50), SAGA)), of=WALKS)
    assert plans == ["SEARCH saga USING INDEX ix_saga_created_at_saga_id ((created_at,saga_id)<(?,?))"]


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
