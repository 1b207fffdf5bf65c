"""The warehouse as a process: `python -m tests.integration.services.warehouse_process DIRECTORY ADDRESS [reflection]`.

Plain grpcio, idempotent by the key in the metadata, as its team wrote it before anybody thought of sagas. What a sku says it does:
"refuse", "fail" (nothing takes effect), "lose" (takes effect; the first reply is lost), "mute" (takes effect; every reply is lost),
"garbage" (so is what it returns), "busy" (asks once to be called later), "hold" (waits until there is a file `go`).
"""

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.rpc import code_pb2, error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from participant_sdk.rpc_errors import status_with
from tests.warehouse import SERVICE, TYPES, message, message_class

TABLES: Final = """
    CREATE TABLE IF NOT EXISTS reservation (key TEXT PRIMARY KEY, id TEXT, order_id TEXT, sku TEXT, is_held INTEGER);
    CREATE TABLE IF NOT EXISTS call (position INTEGER PRIMARY KEY, method TEXT, metadata TEXT, request BLOB);
"""
Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Context], Coroutine[Any, Any, Any]]


class Warehouse:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._database = sqlite3.connect(directory / "warehouse.db", isolation_level=None, timeout=30)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(TABLES)

    async def reserve(self, request: Any, context: Context) -> Any:
        key = self._note("Reserve", request, context)
        match request.sku:
            case "refuse":
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "none left")
            case "fail":
                raise RuntimeError("the warehouse has stumbled")
            case "busy" if self._count_calls(key) == 1:
                delay = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000))
                await context.abort_with_status(rpc_status.to_status(status_with(code_pb2.UNAVAILABLE, "later", delay)))
            case "hold":
                while not (self._directory / "go").exists():
                    await asyncio.sleep(0.01)
        # The second time nothing changes: that is what the key is for.
        self._database.execute(
            "INSERT OR IGNORE INTO reservation SELECT ?, 'r-' || (SELECT count(*) + 1 FROM reservation), ?, ?, 1",
            (key, request.order_id, request.sku),
        )
        if request.sku == "mute" or (request.sku == "lose" and self._count_calls(key) == 1):
            await context.abort(grpc.StatusCode.INTERNAL, "the reply is lost")
        if request.sku == "garbage":
            return None
        (reservation_id,) = self._database.execute("SELECT id FROM reservation WHERE key = ?", (key,)).fetchone()
        return message("ReserveReply", reservation_id=reservation_id)

    async def release(self, request: Any, context: Context) -> Any:
        self._note("Release", request, context)
        released = self._database.execute(
            "UPDATE reservation SET is_held = 0 WHERE id = ? OR key = ?", (request.reservation_id, request.reserve_key)
        )
        if not released.rowcount:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such reservation")
        return Empty()

    def _note(self, method: str, request: Any, context: Context) -> str:
        metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        shown = "\n".join(f"{name}={value}" for name, value in sorted(metadata.items()))
        self._database.execute(
            "INSERT INTO call (method, metadata, request) VALUES (?, ?, ?)", (method, shown, request.SerializeToString())
        )
        return str(metadata["idempotency-key"])

    def _count_calls(self, key: str) -> int:
        query = "SELECT count(*) FROM call WHERE metadata LIKE ?"
        (count,) = self._database.execute(query, (f"%idempotency-key={key}%",)).fetchone()
        return int(count)


def _encoded(reply: Any) -> bytes:
    encoded: bytes = b"\xff\xff" if reply is None else reply.SerializeToString()
    return encoded


async def main(directory: Path, address: str, *options: str) -> None:
    warehouse = Warehouse(directory)
    methods: dict[str, tuple[Method, str]] = {
        "Reserve": (warehouse.reserve, "ReserveRequest"),
        "Release": (warehouse.release, "ReleaseRequest"),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            method, request_deserializer=message_class(request).FromString, response_serializer=_encoded
        )
        for name, (method, request) in methods.items()
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if "reflection" in options:
        reflection.enable_server_reflection((SERVICE,), server, pool=TYPES.pool)
    server.add_insecure_port(address)
    await server.start()
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
