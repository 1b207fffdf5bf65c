"""The participant of the benchmarks: three actions that do next to nothing, with or without the SQL barrier."""

import argparse
import asyncio
from pathlib import Path

from google.protobuf.api_pb2 import Mixin
from sqlalchemy.ext.asyncio import create_async_engine

from participant_sdk import Barrier, NoBarrier, Participant, Saga, SqlBarrier, StepContext, action, serve

MESSAGE = Mixin(name="x" * 140, root="y" * 40)
"""About 200 bytes on the wire, as a small business message has. Any type with fields would do."""
MAPPINGS = (
    "Mixin{name: input.name, root: input.root}",
    "Mixin{name: input.name, root: one.root}",
    "Mixin{name: one.name + two.name, root: input.root}",
)
"""An expression for the input of each step."""


class Bench(Participant, name="bench"):
    @action
    async def one(self, request: Mixin, step: StepContext) -> Mixin:
        return MESSAGE

    @one.compensation
    async def undo_one(self, request: Mixin, output: Mixin, step: StepContext) -> None: ...

    @action
    async def two(self, request: Mixin, step: StepContext) -> Mixin:
        return MESSAGE

    @two.compensation
    async def undo_two(self, request: Mixin, output: Mixin, step: StepContext) -> None: ...

    @action
    async def three(self, request: Mixin, step: StepContext) -> Mixin:
        return MESSAGE

    @three.compensation
    async def undo_three(self, request: Mixin, output: Mixin, step: StepContext) -> None: ...


def bench_saga(*, mapped: bool) -> Saga[Mixin]:
    """Three steps, one after the other, called with the whole input of the saga or with what an expression makes."""
    saga = Saga("mapped" if mapped else "bench", input=Mixin)
    for step, mapping in zip((Bench.one, Bench.two, Bench.three), MAPPINGS, strict=True):
        saga.step(step, mapping if mapped else saga.input)
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
