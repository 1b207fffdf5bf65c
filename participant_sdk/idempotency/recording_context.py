"""The context that a guarded handler is given: how it ends the call is written down, and done only after it is stored."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

import grpc

from participant_sdk.idempotency.verdict import Headers

_BINARY_SUFFIX: Final = "-bin"


class EndedCallError(grpc.aio.AbortError):
    """Raised by `abort`, as grpc.aio does it."""


class RecordingContext(grpc.aio.ServicerContext[Any, Any]):
    """A ServicerContext that ends nothing. Whether the caller is still there it does not tell: the answer is for the store, too."""

    def __init__(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        self._context = context
        self._code = grpc.StatusCode.OK
        self._message = ""
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()
        self.was_used = False
        """Whether a handler ran with it."""
        self.response: bytes | None = None
        """What the handler returned, encoded; None of a call that ended otherwise."""

    @property
    def end_code(self) -> grpc.StatusCode:
        """How the call ends."""
        return self._code

    @property
    def end_message(self) -> str:
        return self._message

    @property
    def trailing(self) -> Headers:
        """The trailing metadata."""
        return tuple((name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in self._trailing)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        if code is grpc.StatusCode.OK:
            raise ValueError("expected an error code to abort with, found OK: return the response")
        self._code = code
        self._message = details
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        raise EndedCallError(f"{code.name}: {details}")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._message = details

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailing = tuple((str(name), value) for name, value in trailing_metadata or ())

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._message

    def trailing_metadata(self) -> Any:
        return self._trailing

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """To the first caller at once; it is not stored."""
        if not self._context.done():
            await self._context.send_initial_metadata(initial_metadata)

    async def read(self) -> Any:
        raise NotImplementedError("a method with one request has nothing to read")

    async def write(self, message: Any) -> None:
        raise NotImplementedError("a method with one response returns it")

    def invocation_metadata(self) -> Any:
        return self._context.invocation_metadata()

    def set_compression(self, compression: grpc.Compression) -> None:
        self._context.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        self._context.disable_next_message_compression()

    def peer(self) -> str:
        return self._context.peer()

    def peer_identities(self) -> Iterable[bytes] | None:
        return self._context.peer_identities()

    def peer_identity_key(self) -> str | None:
        return self._context.peer_identity_key()

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._context.auth_context()

    def time_remaining(self) -> Any:
        return self._context.time_remaining()

    def add_done_callback(self, callback: Any) -> None:
        self._context.add_done_callback(callback)

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return False


def metadata_of(headers: Headers) -> tuple[tuple[str, str | bytes], ...]:
    """Stored headers as metadata."""
    named = ((name.decode(), value) for name, value in headers)
    return tuple((name, value if name.endswith(_BINARY_SUFFIX) else value.decode()) for name, value in named)
