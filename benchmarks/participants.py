"""The participant of the benchmarks: three actions that do next to nothing, with or without the SQL barrier."""

import argparse
import asyncio
from pathlib import Path

from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk import Barrier, NoBarrier, Participant, Saga, SqlBarrier, StepContext, action, serve

TEXT = StringValue(value="x" * 180)
"""About 200 bytes on the wire, as a small business message has."""


class Bench(Participant, name="bench"):
    @action
    async def one(self, request: StringValue, step: StepContext) -> StringValue:
        return TEXT

    @one.compensation
    async def undo_one(self, request: StringValue, output: StringValue, step: StepContext) -> None: ...

    @action
    async def two(self, request: StringValue, step: StepContext) -> StringValue:
        return TEXT

    @two.compensation
    async def undo_two(self, request: StringValue, output: StringValue, step: StepContext) -> None: ...

    @action
    async def three(self, request: StringValue, step: StepContext) -> StringValue:
        return TEXT

    @three.compensation
    async def undo_three(self, request: StringValue, output: StringValue, step: StepContext) -> None: ...


def bench_saga() -> Saga[StringValue]:
    """Three steps, one after the other."""
    saga = Saga("bench", input=StringValue)
    for step in (Bench.one, Bench.two, Bench.three):
        saga.step(step)
    return saga


async def main(coordinator: str, address: str, database: Path | None) -> None:
    barrier: Barrier = NoBarrier()
    if database is not None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{database}", connect_args={"timeout": 30})
        async with engine.begin() as connection:
            await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        barrier = SqlBarrier(engine)
        await barrier.create_table()
    await serve(Bench(barrier=barrier), coordinator=coordinator, address=address)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coordinator", required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--database", type=Path, help="with the SQL barrier, in this SQLite file")
    given = parser.parse_args()
    asyncio.run(main(given.coordinator, given.address, given.database))
