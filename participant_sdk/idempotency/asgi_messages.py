"""The messages of ASGI around one guarded call: its body read and given again, its answer held back until it is stored."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from participant_sdk.idempotency.outcomes import Ran
from participant_sdk.idempotency.policy import Meaning

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

Judge: TypeAlias = Callable[[int, list[tuple[bytes, bytes]], bytes | None], Ran]
"""Of status, headers and body; the body is None if it is not kept."""

_EVENT_STREAM: Final = b"text/event-stream"


class BodyTooLargeError(Exception):
    """More came than may be held."""


class ClientGoneError(Exception):
    """The client went away before its request was complete."""


class ApplicationError(RuntimeError):
    """The application does not keep to ASGI."""


async def read_body(scope: Scope, receive: Receive, bytes_max: int) -> bytes:
    """The whole body. Raises BodyTooLargeError and ClientGoneError."""
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if announced.isdigit() and int(announced) > bytes_max:
        raise BodyTooLargeError
    chunks: list[bytes] = []
    total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        total += len(chunk)
        if total > bytes_max:
            raise BodyTooLargeError
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


class AnswerCapture:
    """Holds an answer back, until the guard has stored it and it is released, or discarded in favour of a refusal.

    An answer that is too large is known as soon as that is seen, and its rest waits. One that is not to be stored is not held at all from
    there on.
    """

    def __init__(self, send: Send, *, bytes_max: int, judge: Judge) -> None:
        self._send = send
        self._bytes_max = bytes_max
        self._judge = judge
        self._held: list[Message] = []
        self._bytes = 0
        self._start: Message | None = None
        self._is_released = False
        self._may_go_on = asyncio.Event()
        self.ran: Final[asyncio.Future[Ran]] = asyncio.get_running_loop().create_future()
        """What the guard is told of the answer, as soon as it is known."""
        self.has_ended = False
        """Whether the answer is complete, or nobody is to get it."""
        self.at_rest: Final = asyncio.Event()
        """Set once nothing more of the answer is for the store."""

    async def send(self, message: Message) -> None:
        """What the application sends through."""
        kind = message["type"]
        if self.has_ended:
            return
        if kind == "http.response.start":
            self._begin(message)
        elif kind == "http.response.body":
            await self._body(message)
        elif kind != "http.response.debug":
            raise ApplicationError(f"expected http.response.start or http.response.body, found {kind}")

    async def release(self) -> None:
        """The client may have it."""
        held, self._held = self._held, []
        for message in held:
            await self._send(message)
        self._is_released = True
        self._may_go_on.set()
        self.at_rest.set()

    def discard(self) -> None:
        """What has not been released is for nobody. Does nothing to an answer that was released."""
        if not self._is_released:
            self._held.clear()
            self._end()
        self._may_go_on.set()

    def _begin(self, message: Message) -> None:
        if self._start is not None:
            raise ApplicationError("http.response.start came twice")
        self._start = message
        self._held.append(message)

    async def _body(self, message: Message) -> None:
        if self._start is None:
            raise ApplicationError("http.response.body came before http.response.start")
        is_last = not message.get("more_body", False)
        if not self._is_released:
            self._held.append(message)
            self._bytes += len(message.get("body", b""))
            if self._bytes > self._bytes_max or (not is_last and self._is_event_stream()):
                await self._overflow(is_last=is_last)
            elif is_last:
                self._conclude(self._joined())
        else:
            await self._send(message)
        if is_last:
            if self._is_released and not self.ran.done():
                self._conclude(None)
            self._end()

    async def _overflow(self, *, is_last: bool) -> None:
        """It will not be kept. A final answer is marked in the store before its first byte is given."""
        if self._judged(None).meaning is not Meaning.FINAL:
            await self.release()  # Nothing is stored of it; the key is given back when it has ended.
            return
        self._conclude(None)
        if not is_last:
            await self._may_go_on.wait()

    def _end(self) -> None:
        self.has_ended = True
        self.at_rest.set()

    def _conclude(self, body: bytes | None) -> None:
        if not self.ran.done():
            self.ran.set_result(self._judged(body))

    def _judged(self, body: bytes | None) -> Ran:
        assert self._start is not None
        return self._judge(self._start["status"], self._headers(), body)

    def _joined(self) -> bytes:
        return b"".join(each.get("body", b"") for each in self._held if each["type"] == "http.response.body")

    def _headers(self) -> list[tuple[bytes, bytes]]:
        assert self._start is not None
        return [(bytes(name), bytes(value)) for name, value in self._start.get("headers", ())]

    def _is_event_stream(self) -> bool:
        return any(name.lower() == b"content-type" and value.startswith(_EVENT_STREAM) for name, value in self._headers())


def replayed_body(body: bytes, receive: Receive, capture: AnswerCapture) -> Receive:
    """A `receive` that gives the body once more. While the answer is wanted for the store it tells of no client that goes away."""
    is_given = False

    async def receive_again() -> Message:
        nonlocal is_given
        if not is_given:
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await capture.at_rest.wait()
        return {"type": "http.disconnect"} if capture.has_ended else await receive()

    return receive_again
