"""The books of the participant in TypeScript: a database of its own, in which tests look, and stop it where they like."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import asyncpg
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message
from sqlalchemy import URL

from participant_sdk.definitions.message_types import MessageTypes
from tests.typescript import SOURCES

POINTS: Final = 1_000
"""What customers begin with."""
FOUND_WITHIN_S: Final = 30.0
_GATE: Final = 7
"""Number of the lock that the gate is."""
_GATES: Final = {
    "redeem": "CREATE TRIGGER gate BEFORE INSERT ON redemption FOR EACH ROW EXECUTE FUNCTION wait_at_gate()",
    "give back": "CREATE TRIGGER gate BEFORE UPDATE ON redemption FOR EACH ROW EXECUTE FUNCTION wait_at_gate()",
    "commit": "CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON redemption DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION wait_at_gate()",
}
_TYPES: Final = MessageTypes(FileDescriptorSet.FromString((SOURCES / "order_with_points.binpb").read_bytes()))


def message(name: str, **fields: object) -> Message:
    """A message of the service, which has no Python code: "RedeemPoints"."""
    return _TYPES.get(f"loyalty.v1.{name}")(**fields)


@dataclass(frozen=True, slots=True)
class Books:
    """The database, with a connection of the test's own."""

    url: str
    connection: "asyncpg.Connection[asyncpg.Record]"

    async def open_account(self, customer: str) -> None:
        await self.connection.execute("INSERT INTO account VALUES ($1, $2)", customer, POINTS)

    async def points(self, customer: str) -> int:
        return int(await self.connection.fetchval("SELECT points FROM account WHERE customer_id = $1", customer))

    async def redemptions(self) -> list[tuple[int, bool]]:
        """How many points each took, and whether they were given back."""
        rows = await self.connection.fetch("SELECT points, is_returned FROM redemption ORDER BY id")
        return [(row["points"], row["is_returned"]) for row in rows]

    @asynccontextmanager
    async def gate(self, place: str) -> AsyncIterator["Gate"]:
        """Nobody gets past that place of the service until it is opened: "redeem", "give back" or "commit"."""
        await self.connection.execute(
            f"CREATE OR REPLACE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN PERFORM pg_advisory_xact_lock({_GATE}); RETURN NEW; END $$"
        )
        await self.connection.execute(_GATES[place])
        await self.connection.execute("SELECT pg_advisory_lock($1)", _GATE)
        gate = Gate(self.connection)
        yield gate
        await gate.open()
        await self.connection.execute("DROP TRIGGER gate ON redemption")


class Gate:
    """Shut when it is made."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        self._is_open = False

    async def wait_for_somebody(self) -> int:
        """Returns when somebody stands before it, with the process id of the connection."""
        async with asyncio.timeout(FOUND_WITHIN_S):
            while True:
                waiting = await self._connection.fetchval(
                    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                    _GATE,
                )
                if waiting is not None:
                    return int(waiting)
                await asyncio.sleep(0.02)

    async def open(self) -> None:
        if not self._is_open:
            self._is_open = True
            await self._connection.execute("SELECT pg_advisory_unlock($1)", _GATE)


@asynccontextmanager
async def open_books(server: URL) -> AsyncIterator[Books]:
    """A database without tables, since the service makes them at its start; gone at the end."""
    name = f"loyalty_{uuid4().hex}"
    root = await asyncpg.connect(_text(server))
    try:
        await root.execute(f"CREATE DATABASE {name}")
        url = _text(server.set(database=name))
        connection = await asyncpg.connect(url)
        try:
            yield Books(url, connection)
        finally:
            await connection.close()
            await root.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await root.close()


def _text(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
