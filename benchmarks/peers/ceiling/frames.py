"""What all three processes of the ceiling share: how frames leave, and what is in them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Generic, TypeVar

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.api_pb2 import Mixin

from benchmarks.measured_run import TEXTS
from benchmarks.peers.books import STEP_NAMES

ACTIONS: Final = tuple(f"bench.{step}" for step in STEP_NAMES)
OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)
"""Of every server and channel. Each channel has a connection of its own, as those of different clients have."""
NUMBER_DIGITS: Final = 12
"""The last part of a saga's id."""

FrameT = TypeVar("FrameT")


def message() -> Any:
    """What every step carries and returns, about 200 bytes."""
    packed = Any()
    packed.Pack(Mixin(name=TEXTS[0], root=TEXTS[1]))
    return packed


def number_of(saga_id: str) -> int:
    """Of the saga in the run."""
    return int(saga_id[-NUMBER_DIGITS:], 16)


class Outgoing(Generic[FrameT]):
    """A frame that is being filled, and leaves at the next turn of the loop; what comes while it is on its way goes into the next one."""

    def __init__(self, new: Callable[[], FrameT], write: Callable[[FrameT], Awaitable[object]]) -> None:
        self._new = new
        self._write = write
        self._frame = new()
        self._filled = asyncio.Event()

    def open(self) -> FrameT:
        """The frame to put something into, now."""
        self._filled.set()
        return self._frame

    async def write_forever(self) -> None:
        """Ends with the stream."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            frame, self._frame = self._frame, self._new()
            await self._write(frame)


async def frames(read: Callable[[], Awaitable[object]], kind: type[FrameT]) -> AsyncIterator[FrameT]:
    """What comes on a stream, until it ends or breaks."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while isinstance(frame := await read(), kind):
            yield frame


def server() -> grpc.aio.Server:
    return grpc.aio.server(options=OPTIONS)


def channel(target: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target, options=OPTIONS)
