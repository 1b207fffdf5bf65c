"""What the three services share: opening their database and serving. None of it is particular to sagas but the barrier.

Told by environment variables: SHOP_DATABASE (path of the service's own SQLite file), SHOP_ADDRESS (where it listens),
SAGA_ADDRESS (where the coordinator is), SHOP_DELAY_MS (how long its work takes, to have time for pulling plugs).
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Executable, MetaData, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from participant_sdk import Participant, SqlBarrier, StepContext, configure_otlp, serve

logger = logging.getLogger(__name__)


def run_service(participant_class: type[Participant], *, tables: MetaData, seed: Sequence[Executable], port: int) -> None:
    """Serves one participant until SIGTERM or Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(_serve(participant_class, tables, seed, port))


async def work(step: StepContext) -> None:
    """Stands for work that takes its time."""
    logger.info("working on %s of saga %s, attempt %d", step.step_id, step.saga_id, step.attempt)
    await asyncio.sleep(int(os.environ.get("SHOP_DELAY_MS", "0")) / 1000)


async def _serve(participant_class: type[Participant], tables: MetaData, seed: Sequence[Executable], port: int) -> None:
    name = participant_class.participant_name
    stop_telemetry = configure_otlp(f"shop-{name}")  # does nothing unless OTEL_EXPORTER_OTLP_ENDPOINT is set
    engine = _open_database(os.environ.get("SHOP_DATABASE", f"{name}.db"))
    try:
        await _create_tables(engine, tables, seed)
        barrier = SqlBarrier(engine)
        await barrier.create_table()
        await serve(
            participant_class(barrier=barrier),
            address=os.environ.get("SHOP_ADDRESS", f"127.0.0.1:{port}"),
            coordinator=os.environ.get("SAGA_ADDRESS", "127.0.0.1:7700"),
        )
    finally:
        await engine.dispose()
        stop_telemetry()


def _open_database(path: str) -> AsyncEngine:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # what was committed survives a loss of power
        connection.execute("PRAGMA busy_timeout = 5000")

    return engine


async def _create_tables(engine: AsyncEngine, tables: MetaData, seed: Sequence[Executable]) -> None:
    """Creates and fills the tables on the first day; every later day leaves them as they are."""
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
        for statement in seed:
            await connection.execute(statement)
