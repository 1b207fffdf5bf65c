"""An event loop whose time stands still while anything can run, and jumps to the next timer when nothing can.

A week of backoff takes as long as what is done in it. Nothing that goes through the loop waits for real: `asyncio.sleep`, timeouts, timers.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

ResultT = TypeVar("ResultT")
Ts = TypeVarTuple("Ts")

STANDSTILL_S: Final = 30.0
"""Real seconds that a loop with nothing left to do waits for threads and sockets before it says so."""


class StandstillError(Exception):
    """Everything waits for something that cannot happen any more: there is no timer, and nothing outside of the loop to wait for."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Time in seconds since the loop was made.

    What happens outside of the loop, in threads and on sockets, happens in real time. While `outside` is entered, the loop gives it
    `patience_s` real seconds before it jumps; otherwise it jumps at once.
    """

    def __init__(self, *, patience_s: float = 0.0) -> None:
        self._selector_of_time = _JumpingSelector(patience_s)
        super().__init__(self._selector_of_time)

    def time(self) -> float:
        return self._selector_of_time.now_s

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Something of which the loop knows nothing is under way: a thread of a database driver, a socket."""
        self._selector_of_time.outside += 1
        try:
            yield
        finally:
            self._selector_of_time.outside -= 1

    def run_in_executor(self, executor: Executor | None, func: Callable[[Unpack[Ts]], ResultT], *args: *Ts) -> asyncio.Future[ResultT]:
        future = super().run_in_executor(executor, func, *args)
        self._selector_of_time.in_threads += 1
        future.add_done_callback(self._back_from_thread)
        return future

    async def shutdown_default_executor(self, *arguments: Any) -> None:
        with self.outside():  # it waits for a thread that it makes for that
            await super().shutdown_default_executor(*arguments)

    def _back_from_thread(self, _: "asyncio.Future[Any]") -> None:
        self._selector_of_time.in_threads -= 1


def run_in_virtual_time(main: Coroutine[Any, Any, ResultT], *, patience_s: float = 0.0) -> ResultT:
    """`asyncio.run`, in virtual time. Raises StandstillError too."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience_s=patience_s)) as runner:
        return runner.run(main)


class _JumpingSelector(selectors.BaseSelector):
    """Where the loop would sleep. It has real files too: the pipe by which threads wake the loop, at least."""

    def __init__(self, patience_s: float) -> None:
        self._real = selectors.DefaultSelector()
        self._patience_s = patience_s
        self.now_s = 0.0
        self.outside = 0
        """Reasons to be patient."""
        self.in_threads = 0
        """Calls in the loop's own threads: they end, so time stands still until they have."""

    def select(self, timeout: float | None = None) -> "list[tuple[selectors.SelectorKey, int]]":
        if timeout is not None and timeout <= 0:
            return self._real.select(0) if self.outside or self.in_threads else []
        if self.in_threads:
            return self._real.select()
        if ready := self._real.select(self._patience_s if self.outside else 0):
            return ready
        if timeout is not None:
            self.now_s += timeout
            return []
        if ready := self._real.select(STANDSTILL_S if self.outside else 0):
            return ready
        raise StandstillError("nothing will ever happen: no timer is set, and nothing outside of the loop is under way")

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()
