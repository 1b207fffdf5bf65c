"""One flight per key in this process: concurrent duplicates wait for the first and answer what it answers (R22)."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

AnswerT = TypeVar("AnswerT")


class _Flight(Generic[AnswerT]):
    __slots__ = ("answer", "landed", "request")

    def __init__(self, request: Hashable) -> None:
        self.request = request
        self.landed = asyncio.Event()
        self.answer: AnswerT | None = None
        """None until it has landed, and for ever if it was cancelled."""


class Flights(Generic[AnswerT]):
    """The calls under way, by key. Holds one small value per call under way, so the server's limit of calls bounds it."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Flight[AnswerT]] = {}

    async def join(self, key: str, request: Hashable, *, wait_s: float, start: Callable[[], Awaitable[AnswerT]]) -> AnswerT | None:
        """Answers by `start`, or by the answer of the same `request` for that key that is under way already.

        Calls for the same key with another request wait and then start themselves; so does one of the waiting if the first was
        cancelled. Returns None if `wait_s` was not enough to get a turn. What `start` raises, only its own caller gets.
        """
        if key in self._under_way:  # A timer for each call would cost more than all the rest of this.
            try:
                async with asyncio.timeout(wait_s):
                    while (flight := self._under_way.get(key)) is not None:
                        await flight.landed.wait()
                        if flight.answer is not None and flight.request == request:
                            return flight.answer
            except TimeoutError:
                return None
        return await self._lead(key, _Flight(request), start)

    async def _lead(self, key: str, flight: _Flight[AnswerT], start: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        self._under_way[key] = flight
        try:
            flight.answer = await start()
            return flight.answer
        finally:
            del self._under_way[key]
            flight.landed.set()
