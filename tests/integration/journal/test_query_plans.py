"""What a question costs must not grow with the sagas that it is not about: every one walks an index. And it sees one state."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, event

from coordinator.core.values import Instant, SagaId, SagaStatus
from coordinator.engine.ports import SagaFilter
from coordinator.journal import queries
from coordinator.journal.database_file import DatabaseFile
from coordinator.journal.schema import bring_up_to_date
from coordinator.journal.sqlite import connect, reading_engine
from coordinator.journal.statements import Statements
from tests.builders import at
from tests.journals import SqlWorld, Told, definition

SAGA = SagaId("01900000-0000-7000-8000-000000000001")
CURSOR = (at(5), SAGA)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path / 'saga.db'}")
    with engine.connect() as opened:
        bring_up_to_date(opened, "here")
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


def listing(where: SagaFilter, before: tuple[Instant, SagaId] | None) -> Callable[[Connection], object]:
    return lambda connection: queries.list_sagas(connection, where, before, 100)


QUESTIONS: dict[str, Callable[[Connection], object]] = {
    "unfinished, first page": lambda connection: queries.load_unfinished(connection, 0, None, 100),
    "unfinished, next page": lambda connection: queries.load_unfinished(connection, 0, SAGA, 100),
    "one saga": lambda connection: queries.find_saga(connection, SAGA),
    "by key": lambda connection: queries.find_by_key(connection, "d", "k", at(1)),
    "events": lambda connection: queries.read_events(connection, SAGA, 3, 100),
    "definition": lambda connection: queries.find_definition(connection, "d", 0),
    "definitions": lambda connection: queries.list_definitions(connection, "d", None, 100),
    "all sagas": listing(SagaFilter(), None),
    "all sagas, next page": listing(SagaFilter(), CURSOR),
    "a status": listing(SagaFilter(statuses=frozenset({SagaStatus.FAILED})), CURSOR),
    "several statuses": listing(SagaFilter(statuses=frozenset({SagaStatus.FAILED, SagaStatus.RUNNING})), None),
    "a definition's": listing(SagaFilter(definition_name="d"), CURSOR),
    "a label's": listing(SagaFilter(labels=(("a", "b"), ("c", "d"))), CURSOR),
    "a time's": listing(SagaFilter(created_from=at(1), created_before=at(9)), None),
}
WRITES: dict[str, Callable[[Statements, Connection], object]] = {
    "keys": lambda statements, connection: statements.find_keys.fetch(connection, [("d", "k"), ("d", "l")]),
    "ids": lambda statements, connection: statements.find_sagas.fetch(connection, [(SAGA,), (SAGA,)]),
    "predecessors": lambda statements, connection: statements.count_events.total(connection, [(SAGA, 1), (SAGA, 2)]),
    "rows": lambda statements, connection: statements.update_sagas.count(connection, [(SAGA, 1, 1, 1, None, None)] * 2),
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
