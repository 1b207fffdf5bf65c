"""The six services of the agency, each with a database of its own. Here one process serves them all; it could be six.

python -m examples.travel.services

Told by environment variables: TRAVEL_FOLDER (where the databases are), TRAVEL_ADDRESS (where the services listen), SAGA_ADDRESS
(where the coordinator is).
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Executable, MetaData
from sqlalchemy.ext.asyncio import AsyncEngine

from examples.travel import approvals, card_network, flights, hotels, insurance, messages, payments
from examples.travel.approvals import ANSWER_TIME_LIMIT, Approvals
from examples.travel.card_network import CardNetwork
from examples.travel.database import create_tables, open_database
from participant_sdk import Participant, SqlBarrier, configure_otlp, serve


@asynccontextmanager
async def open_services(folder: Path, *, answer_time_limit: timedelta = ANSWER_TIME_LIMIT) -> AsyncIterator[Sequence[Participant]]:
    """All six, ready to be served. `answer_time_limit`: how long a manager may think."""
    async with AsyncExitStack() as opened:

        async def database(name: str, tables: MetaData, seed: Sequence[Executable] = ()) -> AsyncEngine:
            engine = open_database(folder / f"{name}.db")
            opened.push_async_callback(engine.dispose)
            await create_tables(engine, tables, seed)
            return engine

        async def barrier(name: str, tables: MetaData, seed: Sequence[Executable] = ()) -> SqlBarrier:
            guarded = SqlBarrier(await database(name, tables, seed))
            await guarded.create_table()
            return guarded

        network = CardNetwork(await database("cards", card_network.Base.metadata, card_network.SEED))
        yield [
            flights.Flights(barrier=await barrier("flights", flights.Base.metadata, flights.SEED)),
            hotels.Hotels(barrier=await barrier("hotels", hotels.Base.metadata, hotels.SEED)),
            insurance.Insurance(barrier=await barrier("insurance", insurance.Base.metadata)),
            payments.Payments(barrier=await barrier("payments", payments.Base.metadata), network=network),
            Approvals(barrier=await barrier("approvals", approvals.Base.metadata), answer_time_limit=answer_time_limit),
            messages.Messages(barrier=await barrier("messages", messages.Base.metadata)),
        ]


async def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stop_telemetry = configure_otlp("travel")  # does nothing unless OTEL_EXPORTER_OTLP_ENDPOINT is set
    try:
        async with open_services(Path(os.environ.get("TRAVEL_FOLDER", "."))) as participants:
            await serve(
                *participants,
                address=os.environ.get("TRAVEL_ADDRESS", "127.0.0.1:7721"),
                coordinator=os.environ.get("SAGA_ADDRESS", "127.0.0.1:7700"),
            )
    finally:
        stop_telemetry()


if __name__ == "__main__":
    asyncio.run(main())
