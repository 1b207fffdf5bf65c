"""The servers of a process whose gRPC has no sockets, and the calls that they have."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import grpc

from participant_sdk.testing.suspension import Suspension
from participant_sdk.testing.weather import CallOnItsWay

if TYPE_CHECKING:
    from participant_sdk.testing.in_process import Network

Handler: TypeAlias = Any
"""What generated code registers: functions to run, to read and to write with, which gRPC types as optional."""
Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
_PEER: Final = "unix:in-process"
INITIAL_METADATA: Final = bytes(bytearray(b"initial metadata"))
"""Stands among the messages of a stream, as itself and not as what is in it, for the metadata that came before them."""
_RESPONSES_MAX: Final = 16
"""Messages of a stream that may be on their way to the client at the same time; further ones wait at the server."""


class InProcessServer:
    """Stands in for `grpc.aio.Server`. Every call is a task of its own, which ends with the server."""

    def __init__(self, network: "Network", suspension: Suspension) -> None:
        self._network = network
        self._suspension = suspension
        self._handlers: dict[str, Handler] = {}
        self._addresses: list[str] = []
        self._tasks: dict[asyncio.Task[None], None] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """What generated code calls."""
        self._handlers.update({f"/{service}/{method}": handler for method, handler in handlers.items()})

    def add_generic_rpc_handlers(self, handlers: Iterable[object]) -> None:
        """What generated code calls too; the registered handlers are the same."""

    def add_insecure_port(self, address: str) -> int:
        """Listens there when it is started."""
        self._addresses.append(address)
        port = address.rpartition(":")[2]
        return int(port) if port.isdigit() else 1

    async def start(self) -> None:
        """Begins to listen. Raises RuntimeError if somebody does already."""
        for address in self._addresses:
            self._network.listen(address, self)

    async def stop(self, grace: float | None) -> None:
        """Takes no more calls, and cuts those that are not done after `grace` seconds."""
        self._network.leave(self)
        if self._tasks and grace:
            await asyncio.wait(self._tasks, timeout=grace)
        self.crash()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def crash(self) -> None:
        """Is gone at once, with every call that it has."""
        self._network.leave(self)
        for task in self._tasks:
            task.cancel()

    def begin(self, call: CallOnItsWay, metadata: Metadata, time_left_s: float | None) -> "ServedCall":
        """Serves a call that has arrived."""
        served = ServedCall(metadata, time_left_s, self._suspension)
        handler = self._handlers.get(call.method)
        if handler is None:
            served.end(grpc.StatusCode.UNIMPLEMENTED, f"nobody serves {call.method} at {call.target}")
            return served
        served.task = task = asyncio.get_running_loop().create_task(served.run(handler, call.request))
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return served


class ServedCall:
    """One call at its server, which is also the context that its handler is given."""

    def __init__(self, metadata: Metadata, time_left_s: float | None, suspension: Suspension) -> None:
        self._metadata = metadata
        self._suspension = suspension
        self._ends_at = None if time_left_s is None else asyncio.get_running_loop().time() + time_left_s
        self._is_aborted = False
        self.task: asyncio.Task[None] | None = None
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_RESPONSES_MAX)
        self.code: grpc.StatusCode | None = None
        """None: it has not ended."""
        self.details: str = ""
        self.trailing_metadata: Metadata = ()

    async def run(self, handler: Handler, request: bytes) -> None:
        """Runs the handler to its end, and never longer than the call may take."""
        try:
            async with asyncio.timeout_at(self._ends_at):
                await self._suspension.passed()
                await self._run(handler, request)
        except TimeoutError:
            self.end(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        except asyncio.CancelledError:
            self.end(grpc.StatusCode.UNAVAILABLE, "the connection was cut")
            raise
        except Exception as error:
            if not self._is_aborted:
                self.end(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")
        else:
            self.end(grpc.StatusCode.OK, "")

    async def _run(self, handler: Handler, request: bytes) -> None:
        if handler.stream_stream is not None:
            answer = handler.stream_stream(self._read_requests(handler), self)
        else:
            answer = (handler.unary_unary or handler.unary_stream)(handler.request_deserializer(request), self)
        if not handler.response_streaming:
            self._messages.put_nowait(handler.response_serializer(await answer if inspect.isawaitable(answer) else answer))
        elif inspect.isawaitable(answer):
            await answer  # it writes nothing, as one that aborts
        else:
            await self._send_all(handler, answer)

    async def _read_requests(self, handler: Handler) -> AsyncIterator[Any]:
        while (request := await self._requests.get()) is not None:
            await self._suspension.passed()
            yield handler.request_deserializer(request)

    async def _send_all(self, handler: Handler, messages: AsyncGenerator[Any, None]) -> None:
        async with aclosing(messages) as sent:
            async for message in sent:
                await self._room.acquire()
                self._messages.put_nowait(handler.response_serializer(message))

    def take(self, request: bytes | None) -> None:
        """A message of its client's stream has arrived; None: that was all."""
        self._requests.put_nowait(request)

    async def next_message(self) -> bytes | None:
        """What the handler answers next; None: that was all."""
        message = await self._messages.get()
        await self._suspension.passed()
        self._room.release()
        return message

    def end(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> None:
        """Says how it ended. The first word counts."""
        if self.code is None:
            self.code, self.details, self.trailing_metadata = code, details, trailing_metadata
            self._messages.put_nowait(None)

    def forsake(self) -> None:
        """Nobody waits for it any more."""
        if self.task is not None:
            self.task.cancel()

    # ── What handlers ask of their context ──────────────────────────────────────────────────────────────────────────────────────

    def peer(self) -> str:
        return _PEER

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def time_remaining(self) -> float | None:
        return None if self._ends_at is None else max(0.0, self._ends_at - asyncio.get_running_loop().time())

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        assert not metadata, "metadata of an answer is not carried in process"
        await self._room.acquire()
        self._messages.put_nowait(INITIAL_METADATA)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        self._is_aborted = True
        self.end(code, details, tuple(trailing_metadata))
        raise grpc.aio.AbortError(f"{code}: {details}")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        self._is_aborted = True
        self.end(status.code, status.details, tuple(status.trailing_metadata or ()))
        raise grpc.aio.AbortError(f"{status.code}: {status.details}")
