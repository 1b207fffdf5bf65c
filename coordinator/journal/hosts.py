"""Where the functions of the journal run that wait for a database."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from sqlalchemy.util.concurrency import greenlet_spawn

ResultT = TypeVar("ResultT")


class Host(Protocol):
    """Runs functions that are synchronous, without blocking the loop."""

    async def run(self, work: Callable[[], ResultT], /) -> ResultT:
        """Returns what it returns, and raises what it raises."""

    async def finish(self, last: Callable[[], None], /) -> None:
        """Takes no more work, waits for what is under way, and runs one last thing."""

    def abandon(self) -> None:
        """Takes no more work; what is under way and hangs goes with the process."""


class Threads:
    """For drivers that block. One thread for each piece of work that may be under way at once."""

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, work: Callable[[], ResultT], /) -> ResultT:
        """In a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def finish(self, last: Callable[[], None], /) -> None:
        """In another thread, when these have ended."""
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
        await asyncio.to_thread(last)

    def abandon(self) -> None:
        """The threads end with the process."""
        self._executor.shutdown(wait=False)


class Greenlets:
    """For drivers of asyncio, which SQLAlchemy lets synchronous functions wait for. Everything stays in the thread of the loop."""

    def __init__(self) -> None:
        self._under_way = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def run(self, work: Callable[[], ResultT], /) -> ResultT:
        """In a greenlet of the loop."""
        self._under_way += 1
        self._is_idle.clear()
        try:
            return await greenlet_spawn(work)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._is_idle.set()

    async def finish(self, last: Callable[[], None], /) -> None:
        """When the others have ended."""
        await self._is_idle.wait()
        await greenlet_spawn(last)

    def abandon(self) -> None:
        """Nothing holds the process."""
