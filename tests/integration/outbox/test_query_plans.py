"""What a relay asks again and again is answered by the small indexes, however much is kept of what was published."""

from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, text

from participant_sdk.outbox.rows import table_of
from participant_sdk.outbox.statements import Statements
from tests.outboxes import OutboxWorld, made_database

PUBLISHED, PENDING = 5_000, 40
STATEMENTS = Statements(table_of("saga_outbox"))
DUE = {"kind": "EVENT", "now_us": 1_000, "row_limit": 256}
ASKED: list[tuple[str, Any, dict[str, object], set[str]]] = [
    ("due", STATEMENTS.due, DUE, {"ix_saga_outbox_due", "ix_saga_outbox_lane"}),
    ("oldest published", STATEMENTS.oldest_published, {"published_before_us": 3, "row_limit": 10}, {"ix_saga_outbox_published_at_us"}),
    ("failed", STATEMENTS.read_failed, {"row_limit": 10}, {"ix_saga_outbox_due"}),
]


def _fill(connection: Connection) -> None:
    columns = "id, kind, topic, key, lane, message_type, content_type, payload, headers, traceparent, tracestate, status, attempts"
    insert = text(
        f"INSERT INTO saga_outbox ({columns}, next_attempt_at_us, locked_by, created_at_us, published_at_us, last_error) "
        "VALUES (:id, 'EVENT', 't', 'k', :lane, '', '', :payload, '{}', '', '', :status, 0, 0, '', 0, :published, '')"
    )
    rows = [
        {
            "published": number if number < PUBLISHED else None,
            "status": "PUBLISHED" if number < PUBLISHED else "PENDING",
            "id": str(number),
            "lane": number % 50,
            "payload": b"x" * 200,
        }
        for number in range(PUBLISHED + PENDING)
    ]
    connection.execute(insert, rows)


def _plan(connection: Connection, statement: Any, parameters: dict[str, object]) -> str:
    bound = statement.params(**parameters).compile(
        dialect=connection.dialect, compile_kwargs={"literal_binds": True, "render_postcompile": True}
    )
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    return "\n".join(" ".join(map(str, line)) for line in connection.exec_driver_sql(f"{explain} {bound}"))


async def _check(engine: Engine) -> None:
    world = OutboxWorld(engine)
    await world.open()
    try:
        with engine.begin() as connection:
            _fill(connection)
            connection.exec_driver_sql("ANALYZE")
            plans = {name: _plan(connection, statement, parameters) for name, statement, parameters, _ in ASKED}
    finally:
        await world.close()
    for name, _, _, indexes in ASKED:
        assert all(index in plans[name] for index in indexes), f"{name}: {plans[name]}"
        assert "Seq Scan" not in plans[name], f"{name}: {plans[name]}"


async def test_sqlite_reads_only_what_is_not_published(tmp_path: Path) -> None:
    await _check(create_engine(f"sqlite:///{tmp_path / 'service.db'}"))


async def test_postgresql_reads_only_what_is_not_published(postgres: tuple[URL, str]) -> None:
    await _check(create_engine(made_database(postgres[0]).set(drivername="postgresql+psycopg")))


async def test_all_that_is_due_is_found_among_what_is_kept(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'service.db'}")
    world = OutboxWorld(engine)
    await world.open()
    with engine.begin() as connection:
        _fill(connection)
        assert len(connection.execute(STATEMENTS.due, DUE).all()) == PENDING
    await world.close()
