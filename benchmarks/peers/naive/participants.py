"""Three participants on one port: unary gRPC methods that take and return bytes, and count in memory what they have done and undone."""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any, Final

import grpc

from benchmarks.peers.books import STEP_NAMES, Books

SERVICE: Final = "bench.Participant"
Context = grpc.aio.ServicerContext[bytes, bytes]


def method(step: str, *, is_undoing: bool = False) -> str:
    """The name of the call that does or undoes a step."""
    return f"{'Undo' if is_undoing else 'Do'}{step.capitalize()}"


class Participants(grpc.GenericRpcHandler):
    """Serves a method for each step and direction."""

    def __init__(self, books: Books, *, is_refusing: bool) -> None:
        self._books = books
        self._refuses = STEP_NAMES[-1] if is_refusing else ""
        self._handlers: dict[str, Any] = {}
        for step in STEP_NAMES:
            self._handlers[f"/{SERVICE}/{method(step)}"] = grpc.unary_unary_rpc_method_handler(self._doing(step))
            self._handlers[f"/{SERVICE}/{method(step, is_undoing=True)}"] = grpc.unary_unary_rpc_method_handler(self._undoing(step))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)

    def _doing(self, step: str) -> Any:
        async def do(request: bytes, context: Context) -> bytes:
            if step == self._refuses:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "refused")
            self._books.do(step, int(json.loads(request)["number"]))
            return request

        return do

    def _undoing(self, step: str) -> Any:
        async def undo(request: bytes, _: Context) -> bytes:
            self._books.undo(step, int(json.loads(request)["number"]))
            return b""

        return undo


async def main(given: argparse.Namespace) -> None:
    books = Books()
    books.end_when_asked(given.books)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Participants(books, is_refusing=given.refusing)])
    server.add_insecure_port(f"127.0.0.1:{given.port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--books", type=Path, required=True, help="file that is written at the end")
    parser.add_argument("--refusing", action="store_true", help="whether the last step refuses")
    asyncio.run(main(parser.parse_args()))
