"""Calls with streams in both directions, without sockets: the client's end."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

import grpc

from participant_sdk.testing.in_process_server import Metadata, ServedCall
from participant_sdk.testing.weather import SMOOTH, CallOnItsWay, Fate, MessageOnItsWay

if TYPE_CHECKING:
    from participant_sdk.testing.in_process import Network

_REQUESTS_MAX: Final = 2
"""Messages of a client that may be on their way; whoever writes one more waits until the first has arrived."""


class TwoWayCall:
    """Stands in for `grpc.aio.StreamStreamCall`.

    What goes one way arrives in its order: a message that is late holds up those behind it. When one is lost, nothing more gets through.
    """

    def __init__(
        self,
        network: "Network",
        call: CallOnItsWay,
        *,
        serialize: Callable[[Any], bytes],
        deserialize: Callable[[bytes], Any],
        metadata: Metadata,
        timeout_s: float | None,
        ended: "Callable[[TwoWayCall], None]",
    ) -> None:
        """`ended`: told once when it is over, however that came."""
        self._network = network
        self._call = call
        self._serialize = serialize
        self._deserialize = deserialize
        self._ended = ended
        self._room = asyncio.Semaphore(_REQUESTS_MAX)
        self._there = _Way(self._request_arrives)
        self._back = _Way(self._response_arrives)
        self._served: ServedCall | None = None
        self._sending: asyncio.Task[None] | None = None
        """Lets go, at the server, what is there for the client."""
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._is_broken = False
        self._is_cancelled = False
        self._end: grpc.aio.AioRpcError | None = None
        """With its status, OK too. None: it has not ended."""
        asyncio.get_running_loop().call_soon(self._begin, metadata, timeout_s)

    @property
    def is_unreachable(self) -> bool:
        """Whether it ended because nobody could be reached."""
        return self._end is not None and self._served is None and not self._is_cancelled

    # ── What clients ask of it ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def write(self, message: Any) -> None:
        """Sends a message, and returns when there is room for another. Raises AioRpcError or InvalidStateError if the call is over."""
        if self._end is None:
            content = self._serialize(message)
            fate = self._fate_of(content, self._there, is_reply=False)
            self._there.send(content, fate, fate.request_delay_s)
            await self._room.acquire()
            await self._network.until_awake(self._call.source)
        if self._end is not None:
            self._room.release()  # so that others who wait are told too
            raise self._why_over()

    async def done_writing(self) -> None:
        """Sends no more."""
        self._there.send(None, SMOOTH, 0.0)

    async def read(self) -> Any:
        """The next message, or `grpc.aio.EOF`. Raises AioRpcError, or CancelledError if it was cancelled here."""
        content = await self._arrived.get()
        await self._network.until_awake(self._call.source)
        if content is not None:
            return self._deserialize(content)
        self._arrived.put_nowait(None)  # whoever reads on is told the same
        assert self._end is not None, "nothing else ends what is read"
        if self._end.code() is grpc.StatusCode.OK:
            return grpc.aio.EOF
        raise self._why_over()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    def cancel(self) -> bool:
        """Gives it up. False: it is over already."""
        if self._end is not None:
            return False
        self._is_cancelled = True
        if self._served is not None and not self._is_broken and not self._is_parted():
            self._served.forsake()
        self._finish(grpc.StatusCode.CANCELLED, "cancelled by its caller")
        return True

    # ── On the way ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, metadata: Metadata, timeout_s: float | None) -> None:
        if self._end is not None:
            return
        server = self._network.find_server(self._call)
        if server is None:
            self._finish(grpc.StatusCode.UNAVAILABLE, f"failed to connect to {self._call.target}")
            return
        self._served = served = server.begin(self._call, metadata, timeout_s)
        self._sending = asyncio.get_running_loop().create_task(self._send_responses(served))

    async def _send_responses(self, served: ServedCall) -> None:
        while (content := await served.next_message()) is not None:
            fate = self._fate_of(content, self._back, is_reply=True)
            self._back.send(content, fate, fate.reply_delay_s)
        self._back.send(None, SMOOTH, 0.0)

    def _request_arrives(self, content: bytes | None, fate: Fate) -> None:
        if self._served is None:
            return
        if content is not None and fate.repeated_after_s is not None:
            asyncio.get_running_loop().call_later(fate.repeated_after_s, self._arrive_again, content)
        if self._is_broken or self._end is not None:
            return
        if fate.is_request_lost or self._is_parted():
            self._break(self._served, fate)
            return
        self._served.take(content)
        if content is not None:
            self._room.release()

    def _response_arrives(self, content: bytes | None, fate: Fate) -> None:
        assert self._served is not None, "there is somebody who has answered"
        if self._is_broken or self._end is not None:
            return
        if fate.is_reply_lost or self._is_parted():
            self._break(self._served, fate)
        elif content is None:
            assert self._served.code is not None, "what says no more has ended"
            self._finish(self._served.code, self._served.details, self._served.trailing_metadata)
        else:
            self._arrived.put_nowait(content)

    def _arrive_again(self, content: bytes) -> None:
        """By itself, as from a connection that was held up; nobody hears what is answered."""
        server = self._network.find_server(self._call)
        if server is not None:
            served = server.begin(self._call, (), None)
            served.take(content)
            served.take(None)

    def _break(self, served: ServedCall, fate: Fate) -> None:
        self._is_broken = True
        if fate.is_cancelled_at_server:
            served.forsake()
        else:
            served.take(None)
        if fate.notices_loss_after_s is not None:
            words = grpc.StatusCode.UNAVAILABLE, "the connection broke"
            asyncio.get_running_loop().call_later(fate.notices_loss_after_s, self._finish, *words)

    def _finish(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> None:
        if self._end is not None:
            return
        self._end = rpc_error(code, details, trailing_metadata)
        self._arrived.put_nowait(None)
        self._room.release()
        if self._sending is not None:
            self._sending.cancel()
        self._ended(self)

    def _why_over(self) -> BaseException:
        assert self._end is not None, "asked of what is over"
        if self._is_cancelled:
            return asyncio.CancelledError()
        return asyncio.InvalidStateError("the call has ended") if self._end.code() is grpc.StatusCode.OK else self._end

    def _fate_of(self, content: bytes, way: "_Way", *, is_reply: bool) -> Fate:
        message = MessageOnItsWay(call=self._call, is_reply=is_reply, number=way.sent, content=content)
        return self._network.weather.fate_of_message(message)

    def _is_parted(self) -> bool:
        return self._network.weather.is_parted(self._call.source, self._call.target)


class _Way:
    """One direction."""

    def __init__(self, arrives: Callable[[bytes | None, Fate], None]) -> None:
        self._arrives = arrives
        self._under_way: deque[tuple[bytes | None, Fate]] = deque()
        self._last_at_s = 0.0
        self.sent = 0
        """Messages so far."""

    def send(self, content: bytes | None, fate: Fate, delay_s: float) -> None:
        """Arrives so much later, and after everything that was sent before."""
        loop = asyncio.get_running_loop()
        self.sent += 1
        self._under_way.append((content, fate))
        self._last_at_s = max(self._last_at_s, loop.time() + delay_s)
        loop.call_at(self._last_at_s, self._next_arrives)

    def _next_arrives(self) -> None:
        self._arrives(*self._under_way.popleft())


def rpc_error(code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> grpc.aio.AioRpcError:
    """As a call of grpc.aio ends."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing_metadata), details=details)
