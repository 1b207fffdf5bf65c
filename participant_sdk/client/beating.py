"""Heartbeats in the background, while an accepted step is worked on (R24)."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from participant_sdk.client.completion import Heartbeat, HeartbeatSender, StepNotWaitingError, checked_progress, identity_of
from participant_sdk.client.errors import CoordinatorError, CoordinatorUnavailable

logger = logging.getLogger(__name__)

EVERY_DEFAULT: Final = timedelta(seconds=20)
"""Longest pause between two heartbeats; well below any time limit that people set."""


class Beating:
    """What the work tells with its next heartbeat, and what the coordinator said to the last one."""

    def __init__(self) -> None:
        self._progress: object | None = None
        self.last: Heartbeat | None = None
        """The last answer; None before the first one."""
        self.is_cancelled = False
        """Whether the step is not wanted any more. The body is cancelled too; a thread that it waits for must look here."""

    def report(self, progress: object) -> None:
        """How far the work is: any message of at most 16 KiB, for people; sent with the next heartbeat. Raises ValueError."""
        checked_progress(progress)
        self._progress = progress

    def take_progress(self) -> object | None:
        """What has been reported since the last heartbeat; None if nothing."""
        progress, self._progress = self._progress, None
        return progress

    def put_back(self, progress: object | None) -> None:
        """That heartbeat did not get through: what it carried goes with the next, unless there is news."""
        self._progress = self._progress if self._progress is not None else progress


@asynccontextmanager
async def beating(
    client: HeartbeatSender, token: str, *, every: timedelta = EVERY_DEFAULT, time_limit: timedelta | None = None
) -> AsyncIterator[Beating]:
    """Sends heartbeats of an accepted step while the body works on it:

        async with beating(client, token, every=timedelta(seconds=5)) as beat:
            for page in pages:
                await render(page)
                beat.report(Rendered(pages=page.number))

    Each one extends the step's time to `time_limit` from then; None: to what was said when it was accepted. When the coordinator
    says that the step is not wanted any more, the body is cancelled, and StepNotWaitingError is raised after it; undo what is begun
    when Compensate comes. A coordinator that is away ends nothing: the next heartbeat tries again. `client`: a SagaClient.

    The pauses are drawn from [every/2, every], the first heartbeat is sent at once. Raises CompletionTokenInvalidError at once if the
    token is none; any other CoordinatorError that a heartbeat is answered with ends the body like a cancellation.
    """
    identity_of(token)
    beat = Beating()
    ended: list[CoordinatorError] = []
    try:
        async with asyncio.timeout(None) as limit:
            heart = asyncio.get_running_loop().create_task(_beat(client, token, beat, every=every, time_limit=time_limit))
            heart.add_done_callback(lambda task: _stop_body(task, beat, limit, ended))
            try:
                yield beat
            finally:
                heart.cancel()
                await asyncio.wait({heart})
    except TimeoutError:
        if limit.expired() and ended:
            raise ended[0] from None
        raise


def _stop_body(heart: "asyncio.Task[CoordinatorError]", beat: Beating, limit: asyncio.Timeout, ended: list[CoordinatorError]) -> None:
    """The heart has stopped: either the body has ended, or the step is not wanted."""
    if heart.cancelled():
        return
    fault = heart.exception()
    if fault is not None:
        logger.error("heartbeats ended by a fault of their own", exc_info=fault)
        return
    beat.is_cancelled = True
    ended.append(heart.result())
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())


async def _beat(client: HeartbeatSender, token: str, beat: Beating, *, every: timedelta, time_limit: timedelta | None) -> CoordinatorError:
    """Beats until the step is not wanted; returns why."""
    while True:
        progress = beat.take_progress()
        try:
            beat.last = await client.heartbeat(token, time_limit=time_limit, progress=progress)
        except CoordinatorUnavailable as error:
            beat.put_back(progress)
            logger.warning("a heartbeat was lost: %s", error)
        except CoordinatorError as error:
            return error
        else:
            if beat.last.is_cancelled:
                identity = identity_of(token)
                return StepNotWaitingError(
                    f"step {identity.step_id} of saga {identity.saga_id} is not wanted any more: its saga has turned back, or its time was "
                    "over; undo what is begun when Compensate comes",
                    saga_id=identity.saga_id,
                )
        await asyncio.sleep(random.uniform(0.5, 1) * every.total_seconds())  # noqa: S311 - spreads load, hides nothing
