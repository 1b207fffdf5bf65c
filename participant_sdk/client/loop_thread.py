"""An event loop in a thread of its own, for code that blocks: what the sync faces of the client run on."""

import asyncio
import concurrent.futures
import os
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

CLOSE_LIMIT_S: Final = 10.0
"""How long closing waits for the thread; then it is left to the end of the process."""

ResultT = TypeVar("ResultT")


class LoopThread:
    """Runs coroutines for any number of threads, each of which waits for its own. The thread begins with the first call.

    It is a daemon: forgotten, it ends with a warning, and no later than the process. What waits can be interrupted by a signal, and what
    it waited for is then cancelled.
    """

    def __init__(self, name: str, *, closing: Callable[[], Awaitable[None]]) -> None:
        """`name`: of what it belongs to, for messages. `closing`: gives back what lives on the loop, and is run there at its end. It must
        not lead back here: what is forgotten would then never be.
        """
        self._name: Final = name
        self._closing: Final = closing
        self._lock: Final = threading.Lock()
        self._pid: Final = os.getpid()
        self._running: _Running | None = None
        self._forgotten: weakref.finalize[[_Running, str, int], LoopThread] | None = None
        self._is_closed = False

    @property
    def is_running(self) -> bool:
        """Whether there is a thread now."""
        return self._running is not None and self._pid == os.getpid()

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Waits for the coroutine, in the context of the caller: a span of the caller is the parent of what it does.

        Raises what it raises; RuntimeError if this is closed, meanwhile too, or belongs to another process, and in a thread whose event
        loop would stand still meanwhile.
        """
        return self.wait(self.submit(work))

    def wait(self, future: "concurrent.futures.Future[ResultT]") -> ResultT:
        """Waits for what was begun; see `run`."""
        try:
            return future.result()
        except concurrent.futures.CancelledError as error:
            raise RuntimeError(f"this {self._name} was closed while a call of it was under way") from error
        finally:
            future.cancel()  # of interest only if a signal has ended the waiting

    def submit(self, work: Coroutine[Any, Any, ResultT]) -> "concurrent.futures.Future[ResultT]":
        """Begins the coroutine, and does not wait. Raises RuntimeError as `run` does."""
        try:
            self._refuse_misuse()
            with self._lock:
                return asyncio.run_coroutine_threadsafe(work, self._open().loop)
        except BaseException:
            work.close()
            raise

    def undo(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Has something undone on the loop, and does not wait: for garbage collectors, which run in any thread."""
        running = self._running
        if running is not None and self.is_running:
            with suppress(RuntimeError):  # the loop has ended, and with it what was to be undone
                running.loop.call_soon_threadsafe(lambda: running.keep(work()))

    def close(self) -> None:
        """Cancels what is under way, gives everything back, and ends the thread. Safe to call twice, and from any thread."""
        if self._pid != os.getpid():
            return  # the thread is the parent's, and so may be the lock
        with self._lock:
            self._is_closed = True
            running, self._running = self._running, None
        if running is not None:
            if self._forgotten is not None:
                self._forgotten.detach()
            running.end()

    def _open(self) -> "_Running":
        if self._is_closed:
            raise RuntimeError(f"this {self._name} is closed; make a new one")
        if self._running is None:
            self._running = _begin(self._name, self._closing)
            self._forgotten = weakref.finalize(self, _end_forgotten, self._running, self._name, self._pid)
        return self._running

    def _refuse_misuse(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError(f"this {self._name} was made in another process, before a fork; make a new one in each process")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise RuntimeError(f"{self._name} blocks its thread, whose event loop would stand still: await a SagaClient here, or use a thread")


class _Running:
    """A loop that runs, with its thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stop: asyncio.Event, thread: threading.Thread) -> None:
        self.loop: Final = loop
        self.stop: Final = stop
        self.thread: Final = thread
        self._kept: Final[set[asyncio.Task[None]]] = set()

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs it on the loop; whoever ends the loop awaits it."""
        task = self.loop.create_task(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    def end(self) -> None:
        """Waits for the end of the thread, unless it is this one."""
        with suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self.stop.set)
        if self.thread is not threading.current_thread():
            self.thread.join(CLOSE_LIMIT_S)


def _begin(name: str, closing: Callable[[], Awaitable[None]]) -> _Running:
    begun: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = concurrent.futures.Future()

    def live() -> None:
        with asyncio.Runner() as runner:
            runner.run(_until_stopped(begun, closing))

    thread = threading.Thread(target=live, name=name, daemon=True)
    thread.start()
    loop, stop = begun.result()
    return _Running(loop, stop, thread)


async def _until_stopped(
    begun: "concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]", closing: Callable[[], Awaitable[None]]
) -> None:
    stop = asyncio.Event()
    begun.set_result((asyncio.get_running_loop(), stop))
    await stop.wait()
    # WHAT WAITS IS ENDED BEFORE ITS CHANNEL IS: cut off by the channel it would try again.
    under_way = asyncio.all_tasks() - {asyncio.current_task()}
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
    await closing()


def _end_forgotten(running: _Running, name: str, pid: int) -> None:
    """Nobody can close it any more, or the process ends."""
    if pid == os.getpid():
        running.end()
        warnings.warn(f"unclosed {name}: use it with `with`, or call close()", ResourceWarning, stacklevel=2)
