"""Many calls to one participant on few streams: the coordinator's end of `Exchange`.

What is there at one turn of the loop goes as one frame; nothing waits for company. A stream that breaks leaves its open calls unknown: they
are made again with the same key (R6). One that was never accepted has carried nothing, and its calls go by themselves.
"""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Final, TypeAlias

import grpc

from participant_sdk.frames import fitting
from saga.v1 import participant_pb2, participant_pb2_grpc

STREAMS_MAX: Final = 4
"""To one target, so that several replicas behind it all get work."""
CALLS_PER_STREAM: Final = 32
"""Open on every stream before one more is opened."""
RECYCLE_S: Final = 300.0
"""How long a stream gets new calls: a replica that came later gets some too, then."""
REFUSED_FOR_S: Final = 60.0
"""How long a target that knows no Exchange is not asked for it again."""

Stub: TypeAlias = "participant_pb2_grpc.ParticipantServiceAsyncStub"
_Call: TypeAlias = "grpc.aio.StreamStreamCall[participant_pb2.ExchangeRequest, participant_pb2.ExchangeResponse]"


class NotExchangedError(Exception):
    """The call was not carried out: nobody there knows Exchange, or takes more calls on a stream."""


class Exchange:
    """The streams on one connection. They end with it."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._streams: list[_Stream] = []
        self._refused_until_s = 0.0

    @property
    def is_refused(self) -> bool:
        """Whether the other side has said lately that it knows no Exchange."""
        return asyncio.get_running_loop().time() < self._refused_until_s

    async def ask(self, call: participant_pb2.ExchangeCall, timeout_s: float) -> participant_pb2.ExchangeReply:
        """The reply. Raises NotExchangedError if the call was not carried out; AioRpcError if nobody knows, as a call by itself would."""
        return await self._stream().ask(call, timeout_s)

    def _stream(self) -> "_Stream":
        now_s = asyncio.get_running_loop().time()
        self._streams = [stream for stream in self._streams if not stream.has_ended]
        young = [stream for stream in self._streams if stream.takes_calls(now_s)]
        least = min(young, key=len, default=None)
        if least is None or (len(least) >= CALLS_PER_STREAM and len(young) < STREAMS_MAX):
            least = _Stream(self._stub, now_s, self._refused)
            self._streams.append(least)
        return least

    def _refused(self) -> None:
        self._refused_until_s = asyncio.get_running_loop().time() + REFUSED_FOR_S


class _Stream:
    """One stream, from its first call until it has ended."""

    def __init__(self, stub: Stub, now_s: float, refused: Callable[[], None]) -> None:
        self._call: _Call = stub.Exchange()
        self._retires_at_s = now_s + RECYCLE_S
        self._refused = refused
        self._open: dict[int, asyncio.Future[participant_pb2.ExchangeReply]] = {}
        self._unsent: dict[int, participant_pb2.ExchangeCall] = {}
        self._forsaken: list[int] = []
        self._asked = 0
        self._work = asyncio.Event()
        self._is_retired = False
        self._was_heard = False
        self.has_ended = False
        loop = asyncio.get_running_loop()
        self._tasks = (loop.create_task(self._write()), loop.create_task(self._read()))

    def __len__(self) -> int:
        return len(self._open)

    def takes_calls(self, now_s: float) -> bool:
        """Whether new calls may go on it. One that is too old ends when its last call has."""
        if now_s >= self._retires_at_s:
            self._retire()
        return not self._is_retired

    async def ask(self, call: participant_pb2.ExchangeCall, timeout_s: float) -> participant_pb2.ExchangeReply:
        """See `Exchange.ask`."""
        self._asked += 1
        call.id = self._asked
        reply: asyncio.Future[participant_pb2.ExchangeReply] = asyncio.get_running_loop().create_future()
        self._open[call.id] = reply
        self._unsent[call.id] = call
        self._work.set()
        try:
            async with asyncio.timeout(timeout_s):
                return await reply
        except TimeoutError as error:
            raise _error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from error
        finally:
            is_unanswered = self._open.pop(call.id, None) is not None
            # What has not left by now must not leave any more: nobody waits for it, and its saga may have turned back (R12).
            if self._unsent.pop(call.id, None) is None and is_unanswered:
                self._forsaken.append(call.id)
            self._work.set()

    def _retire(self) -> None:
        self._is_retired = True
        self._work.set()

    async def _write(self) -> None:
        try:
            while not self.has_ended:
                await self._work.wait()
                self._work.clear()
                while (frame := self._take_frame()) is not None:
                    await self._call.write(frame)
                if self._is_retired and not self._open and not self._unsent:
                    await self._call.done_writing()
                    return
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # it has ended, and how is told where it is read

    async def _read(self) -> None:
        try:
            async for frame in self._call:
                self._was_heard = True
                if frame.draining:
                    self._retire()
                for reply in frame.replies:
                    asked = self._open.pop(reply.id, None)
                    if asked is not None and not asked.done():
                        asked.set_result(reply)
            self._end(_error(grpc.StatusCode.UNAVAILABLE, "the stream was ended before the call was answered"))
        except grpc.aio.AioRpcError as error:
            self._end(error)
        except asyncio.CancelledError:
            self._end(_error(grpc.StatusCode.CANCELLED, "the connection was closed"))
            raise

    def _end(self, error: grpc.aio.AioRpcError) -> None:
        self.has_ended = self._is_retired = True
        self._work.set()
        is_refused = error.code() is grpc.StatusCode.UNIMPLEMENTED and not self._was_heard
        if is_refused:
            self._refused()
        waiting, self._open = self._open, {}
        for number, asked in waiting.items():
            if not asked.done():
                asked.set_exception(NotExchangedError() if is_refused or number in self._unsent else error)

    def _take_frame(self) -> participant_pb2.ExchangeRequest | None:
        """The next one, made when the one before has left; None: there is nothing to send."""
        forsaken, self._forsaken = self._forsaken, []
        numbers = list(islice(self._unsent, fitting(self._unsent.values())))
        if not numbers and not forsaken:
            return None
        return participant_pb2.ExchangeRequest(calls=[self._unsent.pop(number) for number in numbers], forsaken=forsaken)


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)
