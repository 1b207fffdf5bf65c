"""One channel over several: each call goes to the node that answered last, and to another one when it does not answer any more."""

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import grpc

from participant_sdk.client.channel import Patience, open_channel

_IS_GONE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
"""What a node that cannot do its work is answered for with. Whatever else comes, came from a node that works."""
_STREAM_IS_GONE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL})
"""The same of a stream: its deadline is the caller's own, and gRPC says INTERNAL when it cannot write to a connection that breaks."""


class Turn:
    """Which of several places is asked now: the same one until it fails, then the one whose failure is longest ago."""

    def __init__(self, places: int, *, first: int, now: Callable[[], float] = time.monotonic) -> None:
        """`first`: who is asked first. `now`: seconds of a clock that never goes back."""
        self.current = first
        self._failed_at = [float("-inf")] * places
        """By place; without an end in the past: it has not failed since it last answered."""
        self._now = now

    def note_answer(self, place: int) -> None:
        """It works."""
        self._failed_at[place] = float("-inf")

    def note_failure(self, place: int) -> None:
        """It does not. Many calls that fail together move on once."""
        self._failed_at[place] = self._now()
        if place == self.current:
            count = len(self._failed_at)
            self.current = min(((place + step) % count for step in range(1, count + 1)), key=self._failed_at.__getitem__)


class FailoverChannel:
    """Stands in for `grpc.aio.Channel`, with as much of it as the generated stubs and the client ask for. Repeats nothing by itself:
    whoever repeats a call finds it going elsewhere.

    It begins with any node, so that many clients spread over all of them. A node that is back gets calls when another one fails.
    """

    def __init__(self, targets: Sequence[str], credentials: grpc.ChannelCredentials | None) -> None:
        self._channels: Final = [open_channel(target, credentials, Patience.AMONG_MANY) for target in targets]
        self._turn: Final = Turn(len(targets), first=random.randrange(len(targets)))  # noqa: S311 - spreads load, guards nothing

    async def close(self, grace: float | None = None) -> None:
        """Closes all of them; calls under way are cut off."""
        for channel in self._channels:
            await channel.close(grace)

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: object) -> Callable[..., Awaitable[Any]]:
        methods = [channel.unary_unary(method, request_serializer, response_deserializer) for channel in self._channels]

        async def call(request: Any, **how: Any) -> Any:
            place = self._turn.current
            try:
                response = await methods[place](request, **how)
            except grpc.aio.AioRpcError as error:
                self._note(place, error, _IS_GONE)
                raise
            self._turn.note_answer(place)
            return response

        return call

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: object) -> "Callable[..., _Stream]":
        return self._streaming([channel.unary_stream(method, request_serializer, response_deserializer) for channel in self._channels])

    def stream_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: object) -> "Callable[..., _Stream]":
        return self._streaming([channel.stream_stream(method, request_serializer, response_deserializer) for channel in self._channels])

    def stream_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: object) -> Callable[..., Any]:
        """The coordinator has no such method."""
        raise NotImplementedError(f"{method}: a stream with a single answer cannot be called at several addresses")

    def _streaming(self, methods: Sequence[Callable[..., Any]]) -> "Callable[..., _Stream]":
        def call(*arguments: Any, **how: Any) -> _Stream:
            place = self._turn.current
            return _Stream(methods[place](*arguments, **how), note=lambda error: self._note(place, error, _STREAM_IS_GONE))

        return call

    def _note(self, place: int, error: grpc.aio.AioRpcError, is_gone: frozenset[grpc.StatusCode]) -> None:
        if error.code() in is_gone:
            self._turn.note_failure(place)
        else:
            self._turn.note_answer(place)


class _Stream:
    """A call whose answer is a stream; tells how it failed."""

    def __init__(self, call: Any, *, note: Callable[[grpc.aio.AioRpcError], None]) -> None:
        self._call = call
        self._note = note
        self._messages: AsyncIterator[Any] | None = None

    def __aiter__(self) -> "_Stream":
        return self

    async def __anext__(self) -> Any:
        if self._messages is None:
            self._messages = aiter(self._call)
        return await self._noting(anext(self._messages))

    async def initial_metadata(self) -> Any:
        return await self._noting(self._call.initial_metadata())

    async def write(self, message: Any) -> None:
        await self._noting(self._call.write(message))

    async def done_writing(self) -> None:
        await self._noting(self._call.done_writing())

    def done(self) -> bool:
        return bool(self._call.done())

    def cancel(self) -> bool:
        return bool(self._call.cancel())

    async def _noting(self, asked: Awaitable[Any]) -> Any:
        try:
            return await asked
        except grpc.aio.AioRpcError as error:
            self._note(error)
            raise
