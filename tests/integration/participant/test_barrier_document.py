"""The document on the barrier in a team's own database: its snippets do what it says."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import create_engine, inspect, select
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk import ParticipantServer, new_saga_id
from participant_sdk.barrier.migrations import main
from saga.v1 import participant_pb2, participant_pb2_grpc
from tests.documents import ROOT

DOCUMENT = ROOT / "docs" / "how-to" / "barrier-in-your-database.md"


def documented(name: str) -> Any:
    """The snippet of that name in the document, as a module."""
    (code,) = re.findall(rf"<!-- the test-suite runs this: {name} -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    module = ModuleType(name)
    exec(compile(code, f"{DOCUMENT.name}:{name}", "exec"), vars(module))
    return module


def test_documented_migration_makes_and_drops_the_table(tmp_path: Path) -> None:
    migration = documented("migration")
    engine = create_engine(f"sqlite:///{tmp_path / 'participant.db'}")
    for step, tables in ((migration.upgrade, ["saga_barrier"]), (migration.upgrade, ["saga_barrier"]), (migration.downgrade, [])):
        with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
            step()
        assert inspect(engine).get_table_names() == tables
    engine.dispose()


def test_documented_command_writes_sql(capsys: pytest.CaptureFixture[str]) -> None:
    (arguments,) = re.findall(r"python -m participant_sdk\.barrier\.migrations (\w+) >", DOCUMENT.read_text())
    main([arguments])
    assert capsys.readouterr().out.startswith("CREATE TABLE IF NOT EXISTS saga_barrier")
    assert "participant_sdk.barrier.migrations" in sys.modules


async def test_documented_participant_takes_a_seat_once_and_gives_it_back(tmp_path: Path) -> None:
    shop = documented("shop")
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'participant.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(shop.Base.metadata.create_all)
    theatre = shop.theatre(engine)
    await theatre.barrier.create_table()
    saga_id = new_saga_id()
    first = participant_pb2.ExecuteRequest(
        saga_id=saga_id, step_id="reserve", action="theatre.reserve", key=f"{saga_id}/reserve/execute/1", attempt=1
    )
    first.first_attempt_at.GetCurrentTime()
    first.input.Pack(StringValue(value="B7"))
    other = participant_pb2.ExecuteRequest()
    other.CopyFrom(first)
    other.key = f"{saga_id}/other/execute/1"
    undo = participant_pb2.CompensateRequest(
        saga_id=saga_id,
        step_id="reserve",
        action="theatre.reserve",
        key=f"{saga_id}/reserve/compensate/1",
        execute_key=first.key,
        attempt=1,
        first_attempt_at=first.first_attempt_at,
        input=first.input,
    )
    undo.unknown.SetInParent()
    async with ParticipantServer(theatre, coordinator=None) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub = participant_pb2_grpc.ParticipantServiceStub(channel)
        taken = await stub.Execute(first, timeout=10)
        assert await stub.Execute(first, timeout=10) == taken
        assert (await stub.Execute(other, timeout=10)).rejected.sealed
        assert (await stub.Compensate(undo, timeout=10)).compensated.handler_ran
    async with engine.connect() as connection:
        assert (await connection.execute(select(shop.Seat.number, shop.Seat.taken_by))).all() == [("B7", "")]
    await engine.dispose()
