"""Many calls on few streams: the caller's end of `Exchange` and of `StartSagas`.

What is there at one turn of the loop goes as one frame; nothing waits for company. When a stream breaks, nobody knows what became of the
calls that had left on it; those that had not, and those on a stream that was never accepted, were not carried out.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import grpc

from participant_sdk import frames

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
_CallT_contra = TypeVar("_CallT_contra", contravariant=True)
_ReplyT_contra = TypeVar("_ReplyT_contra", bound=_Reply, contravariant=True)
_ReplyT_co = TypeVar("_ReplyT_co", bound=_Reply, covariant=True)


class _Replies(Protocol[_ReplyT_co]):
    """A frame of replies."""

    @property
    def replies(self) -> Iterable[_ReplyT_co]: ...
    @property
    def draining(self) -> bool: ...


class NotCarriedOutError(Exception):
    """The call was not carried out: nobody there knows such a stream, or takes more calls on it."""


class WithdrawnError(Exception):
    """The call had not left when it was withdrawn, and never will."""


Unanswered: TypeAlias = grpc.aio.AioRpcError | NotCarriedOutError | WithdrawnError
"""Why there is no reply; AioRpcError as a call by itself would have failed."""


class OpenCall(NamedTuple):
    """Names a call that was made."""

    stream: "_Stream[Any, Any]"
    number: int


Open = Callable[[], "grpc.aio.StreamStreamCall[Any, Any]"]
NewFrame = Callable[[], Any]
"""Makes an empty frame: a message with `calls`, and `forsaken`, the ids of those that nobody waits for any more."""


class Sender(Protocol[_CallT_contra, _ReplyT_contra]):
    """Who makes a call."""

    def write(self, message: _CallT_contra, /) -> None:
        """Fills the message of the call in its frame, but for its id, when it leaves."""

    def end(self, answer: _ReplyT_contra | Unanswered, /) -> None:
        """Is told once what became of the call, unless it is forsaken."""


class FramedCalls(Generic[CallT, ReplyT]):
    """The streams to one place. They end with its channel."""

    def __init__(self, open_stream: Open, new_frame: NewFrame, *, streams_max: int, may_leave: Callable[[], bool] = lambda: True) -> None:
        """`streams_max`: several, so that several replicas behind one address all get work. `may_leave`: whether calls may still be made
        when there is room for them on their stream; if not, they are not carried out.
        """
        self._may_leave = may_leave
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

    def send(self, sender: Sender[CallT, ReplyT], size: int, timeout_s: float) -> OpenCall:
        """Makes a call of `size` bytes at most. After `timeout_s` it ends DEADLINE_EXCEEDED, and what has not left by then never does."""
        stream = self._stream()
        return OpenCall(stream, stream.send(sender, size, timeout_s))

    def _stream(self) -> "_Stream[CallT, ReplyT]":
        """The one whose next frame is being filled; for a new frame, the next one in turn: so every replica gets its share."""
        now_s = self._loop.time()
        if self._streams and self._streams[-1].gathers(now_s):
            return self._streams[-1]
        self._streams = [stream for stream in self._streams if not stream.has_ended]
        taking = [stream for stream in self._streams if stream.takes_calls(now_s)]
        if len(taking) < self._streams_max:
            chosen: _Stream[CallT, ReplyT] = _Stream(self._open_stream, self._new_frame, self._may_leave, self._note_refusal, self._loop)
        else:
            chosen = taking[0]
            self._streams.remove(chosen)
        self._streams.append(chosen)
        return chosen

    @staticmethod
    def forsake(call: OpenCall) -> None:
        """Nobody waits for a call any more. Harmless if it has ended."""
        call.stream.forsake(call.number)

    @staticmethod
    def withdraw(call: OpenCall) -> None:
        """If the call has not left by now, it never will, and ends WithdrawnError; otherwise it goes on."""
        call.stream.withdraw(call.number)

    def _note_refusal(self) -> None:
        self._refused_until_s = self._loop.time() + REFUSED_FOR_S


class _Stream(Generic[CallT, ReplyT]):
    """One stream, from its first call until it has ended."""

    def __init__(
        self,
        open_stream: Open,
        new_frame: NewFrame,
        may_leave: Callable[[], bool],
        refused: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._call = open_stream()
        self._new_frame = new_frame
        self._may_leave = may_leave
        self._refused = refused
        self._loop = loop
        self._retires_at_s = loop.time() + RECYCLE_S
        self._open: dict[int, Sender[CallT, ReplyT]] = {}
        self._unsent: dict[int, int] = {}
        self._forsaken: list[int] = []
        self._limits: list[tuple[float, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._asked = 0
        self._work = asyncio.Event()
        self._is_retired = False
        self._was_heard = False
        self.has_ended: bool = False
        self._writing, self._reading = loop.create_task(self._write()), loop.create_task(self._read())

    def gathers(self, now_s: float) -> bool:
        """Whether its next frame has calls already, and room for more."""
        return 0 < len(self._unsent) < frames.MESSAGES_MAX and self.takes_calls(now_s)

    def takes_calls(self, now_s: float) -> bool:
        """Whether new calls may go on it. One that is too old ends when its last call has."""
        if now_s >= self._retires_at_s:
            self._retire()
        return not self._is_retired

    def send(self, sender: Sender[CallT, ReplyT], size: int, timeout_s: float) -> int:
        """See `FramedCalls.send`; returns the id of the call."""
        self._asked += 1
        number = self._asked
        self._open[number] = sender
        self._unsent[number] = size
        limit_s = self._loop.time() + timeout_s
        heappush(self._limits, (limit_s, number))
        if self._timer is None or limit_s < self._timer.when():
            self._arm(limit_s)
        if len(self._limits) > 2 * len(self._open) + STALE_LIMITS_MAX:
            self._limits = [limit for limit in self._limits if limit[1] in self._open]
            heapify(self._limits)
        self._work.set()
        return number

    def forsake(self, number: int) -> None:
        """See `FramedCalls.forsake`. What has not left by now must not leave any more: nobody reckons with it."""
        if self._open.pop(number, None) is not None:
            if self._unsent.pop(number, None) is None:
                self._forsaken.append(number)
            self._work.set()

    def withdraw(self, number: int) -> None:
        """See `FramedCalls.withdraw`."""
        if number in self._unsent:
            self._give_back(number, WithdrawnError())

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
            sender = self._open.get(number)
            if sender is not None:
                self.forsake(number)
                self._tell(sender, _error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        if self._limits:
            self._arm(self._limits[0][0])

    # ── The stream ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _retire(self) -> None:
        self._is_retired = True
        self._work.set()

    async def _write(self) -> None:
        try:
            while True:
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
        if self._unsent and not self._may_leave():
            for number in tuple(self._unsent):
                self._give_back(number, NotCarriedOutError())
        if not self._unsent and not self._forsaken:
            return None
        frame, size = self._new_frame(), 0
        for number, bytes_max in tuple(islice(self._unsent.items(), frames.MESSAGES_MAX)):
            size += bytes_max
            if size > frames.BYTES_MAX and frame.calls:
                break
            del self._unsent[number]
            self._write_call(frame, number)
        frame.forsaken.extend(self._forsaken)
        self._forsaken = []
        return frame

    def _write_call(self, frame: Any, number: int) -> None:
        call = frame.calls.add()
        try:
            self._open[number].write(call)
        except Exception:
            _logger.exception("a call could not be written")
            del frame.calls[-1]
            self._tell(self._open.pop(number), NotCarriedOutError())
        else:
            call.id = number

    def _give_back(self, number: int, why: Unanswered) -> None:
        """A call has not left, and is not to any more."""
        del self._unsent[number]
        self._work.set()
        self._tell(self._open.pop(number), why)

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
            sender = self._open.pop(reply.id, None)
            if sender is not None:
                self._tell(sender, reply)
        if self._is_retired:
            self._work.set()  # it may have been the last one

    def _end(self, error: grpc.aio.AioRpcError) -> None:
        self.has_ended = self._is_retired = True
        self._writing.cancel()  # a write on a connection that has broken may never come back
        if self._timer is not None:
            self._timer.cancel()
        if error.code() is grpc.StatusCode.INTERNAL:
            # gRPC says so when it cannot write to a connection that is breaking. Whoever answers ends no stream in that way.
            error = _error(grpc.StatusCode.UNAVAILABLE, f"the stream broke: {error.details()}")
        is_refused = error.code() is grpc.StatusCode.UNIMPLEMENTED and not self._was_heard
        if is_refused:
            self._refused()
        waiting, self._open = self._open, {}
        for number, sender in waiting.items():
            self._tell(sender, NotCarriedOutError() if is_refused or number in self._unsent else error)

    @staticmethod
    def _tell(sender: Sender[CallT, ReplyT], answer: ReplyT | Unanswered) -> None:
        try:
            sender.end(answer)
        except Exception:  # one that cannot take its answer must not leave the others without theirs
            _logger.exception("the answer to a call could not be taken")


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)
