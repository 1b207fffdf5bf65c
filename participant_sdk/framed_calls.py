"""Many calls on few streams: the caller's end of `Exchange` and of `StartSagas`.

What is there at one turn of the loop goes as one frame; nothing waits for company. When a stream breaks, nobody knows what became of the
calls that had left on it; those that had not, and those on a stream that was never accepted, were not carried out.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import grpc

from participant_sdk import frames

CALLS_PER_STREAM: Final = 32
"""Open on every stream before one more is opened."""
RECYCLE_S: Final = 300.0
"""How long a stream gets new calls: a replica that came later gets some too, then."""
REFUSED_FOR_S: Final = 60.0
"""How long it is not asked again whether the other side knows the stream."""
STALE_LIMITS_MAX: Final = 1_000
"""Time limits of calls that have ended may outnumber those of open ones by this many before they are swept out."""

_logger = logging.getLogger(__name__)


class _Reply(Protocol):
    @property
    def id(self) -> int: ...


CallT = TypeVar("CallT")
ReplyT = TypeVar("ReplyT", bound=_Reply)
_ReplyT_co = TypeVar("_ReplyT_co", bound=_Reply, covariant=True)


class _Replies(Protocol[_ReplyT_co]):
    """A frame of replies."""

    @property
    def replies(self) -> Iterable[_ReplyT_co]: ...
    @property
    def draining(self) -> bool: ...


class NotCarriedOutError(Exception):
    """The call was not carried out: nobody there knows such a stream, or takes more calls on it."""


Unanswered: TypeAlias = grpc.aio.AioRpcError | NotCarriedOutError
"""Why there is no reply; AioRpcError as a call by itself would have failed."""
Answered = Callable[[ReplyT | Unanswered], None]
"""Told once what became of a call, unless it is forsaken."""
Open = Callable[[], "grpc.aio.StreamStreamCall[Any, Any]"]
NewFrame = Callable[[], Any]
"""Makes an empty frame: a message with `calls`, and `forsaken`, the ids of those that nobody waits for any more."""
Write = Callable[[CallT], None]
"""Fills the message of a call in its frame, but for its id."""


class FramedCalls(Generic[CallT, ReplyT]):
    """The streams to one place. They end with its channel."""

    def __init__(self, open_stream: Open, new_frame: NewFrame, *, streams_max: int) -> None:
        """`streams_max`: several, so that several replicas behind one address all get work."""
        self._open_stream = open_stream
        self._new_frame = new_frame
        self._streams_max = streams_max
        self._streams: list[_Stream[CallT, ReplyT]] = []
        self._refused_until_s = 0.0
        self._loop = asyncio.get_running_loop()

    @property
    def is_refused(self) -> bool:
        """Whether the other side has said lately that it knows no such stream."""
        return self._loop.time() < self._refused_until_s

    @property
    def open_calls(self) -> int:
        """Calls that wait for an answer."""
        return sum(map(len, self._streams))

    def send(self, write: Write[CallT], size: int, timeout_s: float, answered: Answered[ReplyT]) -> "OpenCall[CallT, ReplyT]":
        """Makes a call: `write` fills it when it leaves, with `size` bytes at most. After `timeout_s` it is answered DEADLINE_EXCEEDED, and
        what has not left by then never does.
        """
        return self._stream().send(write, size, timeout_s, answered)

    def _stream(self) -> "_Stream[CallT, ReplyT]":
        now_s = self._loop.time()
        least: _Stream[CallT, ReplyT] | None = None
        taking = 0
        for stream in self._streams:
            if stream.takes_calls(now_s):
                taking += 1
                if least is None or len(stream) < len(least):
                    least = stream
        if least is None or (len(least) >= CALLS_PER_STREAM and taking < self._streams_max):
            self._streams = [stream for stream in self._streams if not stream.has_ended]
            least = _Stream(self._open_stream, self._new_frame, self._note_refusal, self._loop)
            self._streams.append(least)
        return least

    def _note_refusal(self) -> None:
        self._refused_until_s = self._loop.time() + REFUSED_FOR_S


class OpenCall(Generic[CallT, ReplyT]):
    """A call that was made."""

    __slots__ = ("_number", "_stream")

    def __init__(self, stream: "_Stream[CallT, ReplyT]", number: int) -> None:
        self._stream = stream
        self._number = number

    def forsake(self) -> None:
        """Nobody waits for it any more. Harmless if it was answered."""
        self._stream.forsake(self._number)


class _Stream(Generic[CallT, ReplyT]):
    """One stream, from its first call until it has ended."""

    def __init__(self, open_stream: Open, new_frame: NewFrame, refused: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self._call = open_stream()
        self._new_frame = new_frame
        self._refused = refused
        self._loop = loop
        self._retires_at_s = loop.time() + RECYCLE_S
        self._open: dict[int, Answered[ReplyT]] = {}
        self._unsent: dict[int, tuple[Write[CallT], int]] = {}
        self._forsaken: list[int] = []
        self._limits: list[tuple[float, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._asked = 0
        self._work = asyncio.Event()
        self._is_retired = False
        self._was_heard = False
        self.has_ended = False
        self._tasks = (loop.create_task(self._write()), loop.create_task(self._read()))

    def __len__(self) -> int:
        return len(self._open)

    def takes_calls(self, now_s: float) -> bool:
        """Whether new calls may go on it. One that is too old ends when its last call has."""
        if now_s >= self._retires_at_s:
            self._retire()
        return not self._is_retired

    def send(self, write: Write[CallT], size: int, timeout_s: float, answered: Answered[ReplyT]) -> OpenCall[CallT, ReplyT]:
        """See `FramedCalls.send`."""
        self._asked += 1
        number = self._asked
        self._open[number] = answered
        self._unsent[number] = (write, size)
        limit_s = self._loop.time() + timeout_s
        heappush(self._limits, (limit_s, number))
        if self._timer is None or limit_s < self._timer.when():
            self._arm(limit_s)
        if len(self._limits) > 2 * len(self._open) + STALE_LIMITS_MAX:
            self._limits = [limit for limit in self._limits if limit[1] in self._open]
            heapify(self._limits)
        self._work.set()
        return OpenCall(self, number)

    def forsake(self, number: int) -> None:
        """See `OpenCall.forsake`. What has not left by now must not leave any more: nobody reckons with it."""
        if self._open.pop(number, None) is not None:
            if self._unsent.pop(number, None) is None:
                self._forsaken.append(number)
            self._work.set()

    # ── Time ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _arm(self, at_s: float) -> None:
        """One timer for all. It is never moved back: coming early costs less."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at_s, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        while self._limits and (self._limits[0][0] <= now_s or self._limits[0][1] not in self._open):
            _, number = heappop(self._limits)
            answered = self._open.get(number)
            if answered is not None:
                self.forsake(number)
                self._tell(answered, _error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        if self._limits:
            self._arm(self._limits[0][0])

    # ── The stream ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

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

    def _take_frame(self) -> Any:
        """The next one, made when the one before has left; None: there is nothing to send."""
        if self._limits and self._limits[0][0] <= self._loop.time():
            self._expire()  # its timer may come later in this turn, when the process was stopped for a while
        if not self._unsent and not self._forsaken:
            return None
        frame, size = self._new_frame(), 0
        for number, (write, bytes_max) in tuple(islice(self._unsent.items(), frames.MESSAGES_MAX)):
            size += bytes_max
            if size > frames.BYTES_MAX and frame.calls:
                break
            del self._unsent[number]
            self._write_call(frame, number, write)
        frame.forsaken.extend(self._forsaken)
        self._forsaken = []
        return frame

    def _write_call(self, frame: Any, number: int, write: Write[CallT]) -> None:
        call = frame.calls.add()
        try:
            write(call)
        except Exception:
            _logger.exception("a call could not be written")
            del frame.calls[-1]
            self._tell(self._open.pop(number), NotCarriedOutError())
        else:
            call.id = number

    async def _read(self) -> None:
        try:
            async for frame in self._call:
                self._hear(frame)
            self._end(_error(grpc.StatusCode.UNAVAILABLE, "the stream was ended before the call was answered"))
        except grpc.aio.AioRpcError as error:
            self._end(error)
        except asyncio.CancelledError:
            self._end(_error(grpc.StatusCode.CANCELLED, "the connection was closed"))
            raise

    def _hear(self, frame: _Replies[ReplyT]) -> None:
        self._was_heard = True
        if frame.draining:
            self._retire()
        for reply in frame.replies:
            answered = self._open.pop(reply.id, None)
            if answered is not None:
                self._tell(answered, reply)
        if self._is_retired:
            self._work.set()  # it may have been the last one

    def _end(self, error: grpc.aio.AioRpcError) -> None:
        self.has_ended = self._is_retired = True
        self._work.set()
        if self._timer is not None:
            self._timer.cancel()
        is_refused = error.code() is grpc.StatusCode.UNIMPLEMENTED and not self._was_heard
        if is_refused:
            self._refused()
        waiting, self._open = self._open, {}
        for number, answered in waiting.items():
            self._tell(answered, NotCarriedOutError() if is_refused or number in self._unsent else error)

    @staticmethod
    def _tell(answered: Answered[ReplyT], answer: ReplyT | Unanswered) -> None:
        try:
            answered(answer)
        except Exception:  # one that cannot take its answer must not leave the others without theirs
            _logger.exception("the answer to a call could not be taken")


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)
