"""An event loop whose time stands still while anything can run, and jumps to the next timer when nothing can.

A week of backoff takes as long as what is done in it. Nothing that goes through the loop waits for real: `asyncio.sleep`, timeouts, timers.
"""

import asyncio
import gc
import selectors
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final, TypeAlias, TypeVar, TypeVarTuple, Unpack

ResultT = TypeVar("ResultT")
Ts = TypeVarTuple("Ts")

STANDSTILL_S: Final = 30.0
"""Real seconds that a loop with nothing left to do waits for threads and sockets before it says so."""
TURNS_MAX: Final = 100_000
"""Turns of the loop at one instant, with nothing outside of it under way. More are for ever: what runs sets itself going again."""
PATIENCE_S: Final = 10.0
"""Real seconds that what is outside is given, unless said otherwise, before time jumps all the same."""
RESOLUTION_S: Final = 1e-6
"""Timers that are so near count as due. Finer than that, adding up floats after half a year might never reach the next timer."""
TASKS_SHOWN_MAX: Final = 5
"""Of those that wait, in the words of a standstill."""
DRIVERS: Final = frozenset({"aiomysql", "aiosqlite", "asyncmy", "asyncpg", "psycopg", "psycopg_pool", "sqlalchemy"})
"""Packages whose coroutines wait for something outside of the loop."""
_DEPTH_MAX: Final = 50
_ASYNCIO: Final = Path(asyncio.__file__).parent

Waiter: TypeAlias = Callable[[str], bool]
"""Told that nothing will ever happen, and where everything waits; whether it has something done about it."""


class StandstillError(Exception):
    """Time will never go on. Everything waits for something that cannot happen any more: there is no timer, and nothing outside of the
    loop to wait for. Or something sets itself going again and again at one instant.
    """


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Time in seconds since the loop was made.

    What happens outside of the loop, in threads and on sockets, happens in real time. While something awaits a database driver, or
    `outside` is entered, the loop gives that `patience_s` real seconds before it jumps; otherwise it jumps at once. Without patience
    it does not even look.
    """

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._selector_of_time = _JumpingSelector(patience_s, self)
        super().__init__(self._selector_of_time)
        self._clock_resolution = RESOLUTION_S  # as asyncio's own loops set it
        self._waiters: list[Waiter] = []

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

    @contextmanager
    def waiting(self, waiter: Waiter) -> Iterator[None]:
        """Whom to tell of a standstill, so that who waits can say what for. The one who came last is asked first; if nobody has anything
        done about it, the loop itself raises StandstillError.
        """
        self._waiters.append(waiter)
        try:
            yield
        finally:
            self._waiters.remove(waiter)

    def is_driver_awaited(self) -> bool:
        """Whether a task waits for a database: SQLAlchemy, or a driver itself."""
        return any(
            str(frame.f_globals.get("__name__", "")).partition(".")[0] in DRIVERS
            for task in asyncio.all_tasks(self)
            for frame in _frames_of(task.get_coro())
        )

    def tell_standstill(self) -> bool:
        """Has somebody say that nothing will ever happen, or raises StandstillError itself."""
        where = self._where_everything_waits()
        if any(waiter(where) for waiter in reversed(self._waiters)):
            return True
        raise StandstillError(f"nothing will ever happen: no timer is set, and nothing outside of the loop is under way\n{where}")

    def tell_endless(self) -> None:
        """Raises StandstillError: time does not go on although everything runs."""
        where = self._where_everything_waits()
        raise StandstillError(f"time does not go on: {TURNS_MAX} turns of the loop at {self.time():.6f} s\n{where}")

    def _where_everything_waits(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        shown = [f"  {task.get_name()} waits at {_place_of(task.get_coro())}" for task in tasks[:TASKS_SHOWN_MAX]]
        return "\n".join([*shown, *([f"  and {len(tasks) - len(shown)} more"] if len(tasks) > len(shown) else [])])

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


def run_in_virtual_time(main: Coroutine[Any, Any, ResultT], *, patience_s: float = PATIENCE_S) -> ResultT:
    """`asyncio.run`, in virtual time. Raises StandstillError too."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(patience_s=patience_s)) as runner:
        return runner.run(main)


def _place_of(awaited: Any) -> str:
    """The innermost place that a suspended coroutine has reached, outside of asyncio itself."""
    place = repr(awaited)
    for depth, frame in enumerate(_frames_of(awaited)):
        file = Path(frame.f_code.co_filename)
        if file.parent != _ASYNCIO or not depth:
            place = f"{file.name}:{frame.f_lineno} in {frame.f_code.co_qualname}"
    return place


def _frames_of(awaited: Any) -> Iterator[FrameType]:
    """The frames of a suspended coroutine, the outermost first."""
    for _ in range(_DEPTH_MAX):
        match awaited:
            case CoroutineType():
                frame, awaited = awaited.cr_frame, awaited.cr_await
            case AsyncGeneratorType():
                frame, awaited = awaited.ag_frame, awaited.ag_await
            case GeneratorType():
                frame, awaited = awaited.gi_frame, awaited.gi_yieldfrom
            case _:
                # What `anext` and `__await__` give says only to the garbage collector what it goes on with.
                inner = [each for each in gc.get_referents(awaited) if isinstance(each, (CoroutineType, AsyncGeneratorType))]
                if len(inner) != 1:
                    return
                awaited = inner[0]
                continue
        if frame is None:
            return
        yield frame


class _JumpingSelector(selectors.BaseSelector):
    """Where the loop would sleep. It has real files too: the pipe by which threads wake the loop, at least."""

    def __init__(self, patience_s: float, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()
        self._patience_s = patience_s
        self.now_s = 0.0
        self._is_outside = False
        """Whether something outside was awaited when the loop last had nothing to do."""
        self.outside = 0
        """Reasons to be patient."""
        self.in_threads = 0
        """Calls in the loop's own threads: they end, so time stands still until they have."""
        self._turns = 0
        """At this instant, with nothing outside under way."""

    def select(self, timeout: float | None = None) -> "list[tuple[selectors.SelectorKey, int]]":
        if timeout is not None and timeout <= 0:
            return self._real.select(0) if self._is_outside or self.in_threads else self._next_turn()
        self._turns = 0
        if self.in_threads:
            return self._real.select()
        self._is_outside = self.outside > 0 or (self._patience_s > 0 and self._loop.is_driver_awaited())
        if ready := self._real.select(self._patience_s if self._is_outside else 0):
            return ready
        if timeout is not None:
            self.now_s += timeout
            return []
        if ready := self._real.select(STANDSTILL_S if self._is_outside else 0):
            return ready
        self._loop.tell_standstill()
        return []

    def _next_turn(self) -> "list[tuple[selectors.SelectorKey, int]]":
        self._turns += 1
        if self._turns >= TURNS_MAX:
            self._turns = 0  # so that what is left can be cancelled
            self._loop.tell_endless()
        return []

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
