"""Many calls on one stream: the answering end of `Exchange` and of `StartSagas`.

A gRPC message costs more than what it carries, so calls and replies travel in frames. What a call means is the same as by itself.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Final, Generic, Protocol, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.frames import fitting
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with

_PUT_OFF_MS: Final = 100

_logger = logging.getLogger(__name__)

CallT = TypeVar("CallT")
_CallT_co = TypeVar("_CallT_co", covariant=True)
ReplyT = TypeVar("ReplyT", bound=Message)
FrameT = TypeVar("FrameT")


class Calls(Protocol[_CallT_co]):
    """A frame of calls."""

    @property
    def calls(self) -> Iterable[_CallT_co]:
        """Those that begin."""

    @property
    def forsaken(self) -> Iterable[int]:
        """Ids of those for which nobody waits any more."""


class FramedReplies(ABC, Generic[CallT, ReplyT, FrameT]):
    """One stream, from its beginning to its end."""

    def __init__(self) -> None:
        self._replies: list[ReplyT] = []
        self._ready = asyncio.Event()
        self._is_draining = False
        self._has_ended = False
        """Whether the caller sends no more calls."""

    @abstractmethod
    def _begin(self, call: CallT) -> None:
        """A call has come."""

    @abstractmethod
    def _forsake(self, number: int) -> None:
        """Nobody waits for a call any more, if it is open."""

    @property
    @abstractmethod
    def _is_idle(self) -> bool:
        """Whether no call is open."""

    @abstractmethod
    async def _abandon(self) -> None:
        """The caller has gone, or every call is answered."""

    @abstractmethod
    def _frame(self, replies: Sequence[ReplyT], *, draining: bool) -> FrameT:
        """What is sent."""

    def drain(self) -> None:
        """Asks the caller to send no more calls. Those under way are answered."""
        self._is_draining = True
        self._ready.set()

    async def run(self, frames: AsyncIterator[Calls[CallT]]) -> AsyncIterator[FrameT]:
        """Answers calls as they come, until the caller has ended the stream and every call is answered."""
        reading = asyncio.get_running_loop().create_task(self._read(frames))
        has_told = False
        try:
            while not (self._has_ended and self._is_idle and not self._replies):
                await self._ready.wait()
                self._ready.clear()
                if self._is_draining and not has_told:
                    has_told = True
                    yield self._frame((), draining=True)
                for replies in self._take_replies():
                    yield self._frame(replies, draining=False)
        finally:
            reading.cancel()
            await self._abandon()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, frames: AsyncIterator[Calls[CallT]]) -> None:
        try:
            async for frame in frames:
                for number in frame.forsaken:
                    self._forsake(number)
                for call in frame.calls:
                    self._begin(call)
        except Exception:  # the stream ends with it, and its open calls are unknown to their caller; but somebody must be told why
            _logger.exception("a stream of calls could not be read on")
        finally:
            self._has_ended = True
            self._ready.set()

    def _reply(self, reply: ReplyT) -> None:
        """Sends it with what else is there at this turn of the loop. Nothing waits for company."""
        self._replies.append(reply)
        self._ready.set()

    def _take_replies(self) -> Iterator[Sequence[ReplyT]]:
        while self._replies:
            count = fitting(self._replies)
            some, self._replies = self._replies[:count], self._replies[count:]
            yield some


def not_understood(expected: str) -> status_pb2.Status:
    """The status of a call that is none."""
    return status_with(grpc.StatusCode.INVALID_ARGUMENT, f"expected a call with an id of its own, {expected}", _REQUEST_INVALID)


def put_off(open_max: int) -> status_pb2.Status:
    """The status of a call that is one too many."""
    later = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=_PUT_OFF_MS * 1_000_000))
    message = f"{open_max} calls are under way on this stream already"
    return status_with(grpc.StatusCode.RESOURCE_EXHAUSTED, message, error_details(ErrorReason.OVERLOADED), later)


_REQUEST_INVALID: Final = error_details(ErrorReason.REQUEST_INVALID)
