"""Connections that a database driver closes on its own, after a call was cut short twice."""

import asyncio
import logging
from typing import Final

logger = logging.getLogger(__name__)

CLOSING_TIME_LIMIT_S: Final = 1.0
"""How long such a connection may take to close."""
CANCELLATIONS_MAX: Final = 3
"""One cancellation ends each of the two waits of such a closing."""
_CLOSING: Final = "_terminate_graceful_close"


async def wait_for_closings(time_limit_s: float = CLOSING_TIME_LIMIT_S) -> None:
    """Lets connections that are being closed come to their end, and gives up those that never will.

    A call that is cancelled in the middle of a statement has its connection closed in a task that nobody awaits; cancelled again meanwhile,
    its driver stops the thread that the closing waits for. A loop that is closed in that instant cancels the task once, it waits on, and
    the process never ends (seen with SQLAlchemy 2.1 on aiosqlite 0.22). Cancelled here, a second time, it ends.
    """
    closing = {task for task in asyncio.all_tasks() if _CLOSING in getattr(task.get_coro(), "__qualname__", "")}
    if not closing:
        return
    _, hanging = await asyncio.wait(closing, timeout=time_limit_s)
    for _ in range(CANCELLATIONS_MAX):
        if not hanging:
            return
        for task in hanging:
            task.cancel()
        _, hanging = await asyncio.wait(hanging, timeout=time_limit_s)
    logger.error("%d connections that their driver was closing did not end", len(hanging))
