"""Work that must come to its end although the call that wanted it is gone."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


async def finish(work: Coroutine[Any, Any, ResultT], *, when_cancelled: Callable[[], None] | None = None) -> ResultT:
    """Runs `work` to its end even if the caller is cancelled meanwhile; the cancellation goes on afterwards.

    For what must not be cut in two: a COMMIT under way, a rollback, a thread that cannot be stopped. The caller always
    outlives the work, so nothing is orphaned. `work` must be bounded by itself; `when_cancelled` may ask it to hurry.
    """
    return await outlast(asyncio.get_running_loop().create_task(work), when_cancelled=when_cancelled)


async def outlast(running: "asyncio.Future[ResultT]", *, when_cancelled: Callable[[], None] | None = None) -> ResultT:
    """Waits for what is under way already, like `finish`."""
    cancellation: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancellation = error
            if when_cancelled is not None:
                when_cancelled()
    if cancellation is not None:
        # Looking at the exception also tells asyncio that it was not lost.
        raise cancellation from (None if running.cancelled() else running.exception())
    return running.result()
