"""Many starts under way at once, answered in the order of their messages."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from participant_sdk.client.errors import CoordinatorError
from participant_sdk.client.starting import Start

WINDOW_DEFAULT: Final = 256
"""Starts under way at once: enough for full frames."""
WINDOW_MAX: Final = 4_096
"""So that messages of the greatest size do not fill the memory."""

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")
HandleT_co = TypeVar("HandleT_co", covariant=True)
"""`SagaHandle[…]`, or that of the sync face."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Generic[HandleT_co]):
    """The coordinator has committed to end this saga (P1)."""

    position: int
    """Of the message, from 0."""
    handle: HandleT_co
    """Of its saga."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStarted:
    """A start that failed. The others are not touched by it."""

    position: int
    """Of the message, from 0."""
    start: Start[Any]
    """What to give to `start_many` to try it again, with the id that its saga has: repeated, it starts nothing twice (R2)."""
    error: CoordinatorError
    """InvalidRequest: there is something wrong with the message or its options, so that nothing was sent. CoordinatorUnavailable: nobody
    knows whether the saga was started; repeat it. Any other: see its class."""


def checked_window(window: int) -> int:
    """How many starts may be under way. Raises ValueError."""
    if not 1 <= window <= WINDOW_MAX:
        raise ValueError(f"expected a window of 1 to {WINDOW_MAX} starts, found {window}")
    return window


async def in_window(
    items: Iterable[ItemT] | AsyncIterable[ItemT], answer: Callable[[int, ItemT], Coroutine[Any, Any, AnswerT]], window: int
) -> AsyncGenerator[AnswerT]:
    """Answers each item with its position, in their order, with at most `window` of them under way or not yet taken.

    Items are taken only when there is room for them. What they raise when they are taken is raised after the answers to those before.
    Whoever stops listening cancels the answers under way.
    """
    room, asked = asyncio.Semaphore(checked_window(window)), _Asked[AnswerT]()
    feeding = asyncio.create_task(_feed(items, answer, room, asked))
    try:
        while (task := await asked.get()) is not None:
            result = await task
            room.release()
            yield result
        await feeding
    finally:
        open_tasks = [feeding, *asked.rest()]
        for each in open_tasks:
            each.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)


class _Asked(Generic[AnswerT]):
    """Answers under way, in the order of their items."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[asyncio.Task[AnswerT] | None] = asyncio.Queue()
        """As long as the window at most. None: there are no more."""
        self._taken: asyncio.Task[AnswerT] | None = None

    def put(self, task: "asyncio.Task[AnswerT] | None") -> None:
        self._queue.put_nowait(task)

    async def get(self) -> "asyncio.Task[AnswerT] | None":
        self._taken = await self._queue.get()
        return self._taken

    def rest(self) -> "list[asyncio.Task[AnswerT]]":
        """Those that nobody has waited for to the end."""
        tasks = [self._taken] if self._taken is not None else []
        while not self._queue.empty():
            task = self._queue.get_nowait()
            if task is not None:
                tasks.append(task)
        return tasks


async def _feed(
    items: Iterable[ItemT] | AsyncIterable[ItemT],
    answer: Callable[[int, ItemT], Coroutine[Any, Any, AnswerT]],
    room: asyncio.Semaphore,
    asked: _Asked[AnswerT],
) -> None:
    take, position = _taking(items), 0
    try:
        while True:
            await room.acquire()  # BEFORE THE NEXT ITEM IS TAKEN: who makes them is not asked for more than there is room for
            try:
                item = await take()
            except StopAsyncIteration:
                return
            asked.put(asyncio.create_task(answer(position, item)))
            position += 1
    finally:
        asked.put(None)


def _taking(items: Iterable[ItemT] | AsyncIterable[ItemT]) -> Callable[[], Awaitable[ItemT]]:
    """Takes the next one. Raises StopAsyncIteration after the last."""
    if isinstance(items, AsyncIterable):
        return aiter(items).__anext__
    iterator = iter(items)

    async def take() -> ItemT:
        for item in iterator:
            return item
        raise StopAsyncIteration

    return take
