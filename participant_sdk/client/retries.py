"""How long a client keeps trying: every call that it repeats is safe to repeat, so only time bounds it."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Final

BACKOFF_MIN_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
BACKOFF_GROWTH: Final = 2.0
CONNECTED_AFTER_S: Final = 25.0
"""A call that lived so long had a connection, though it was silent: gRPC gives up connecting after 20 s."""


class Retries:
    """The time that is left for one call with all its repetitions, and the waits between them.

    Two clocks run: `timeout` from the beginning to the end of everything, and `outage` from the first failure until
    something gets through again. So a saga may be waited for as long as it takes, in silence too, and yet a coordinator
    that is gone is noticed.

    The wait before repetition n is drawn from [b/2, b] with b = min(0.1 s * 2^(n-1), 2 s), so that the clients of a
    coordinator that comes back do not all arrive at once.
    """

    def __init__(self, *, outage: timedelta, timeout: timedelta | None, now: Callable[[], float] | None = None) -> None:
        """`timeout` None: as long as it takes. `now`: seconds of a clock that never goes back; default the loop's."""
        self._now: Final = now if now is not None else asyncio.get_running_loop().time
        self._outage_s: Final = outage.total_seconds()
        self._ends_at: Final = self._now() + timeout.total_seconds() if timeout is not None else None
        self._attempt_began_at = self._now()
        self._failing_since: float | None = None
        """None: nothing has failed since something got through."""
        self._failures = 0
        self.was_unanswered: bool = False
        """True when an attempt was not answered, and another one was or may be made."""

    def begin_attempt(self, longest_s: float) -> float:
        """Seconds that the attempt that begins now may take."""
        self._attempt_began_at = self._now()
        time_left_s = self.time_left_s()
        return longest_s if time_left_s is None else min(longest_s, time_left_s)

    def begin_stream(self) -> float | None:
        """Seconds that the stream that begins now may take; None: without an end."""
        self._attempt_began_at = self._now()
        return self.time_left_s()

    def note_progress(self) -> None:
        """Something got through: the outage, if there was one, is over."""
        self._failing_since = None
        self._failures = 0

    def time_left_s(self) -> float | None:
        """Seconds until the end of everything, not below zero; None without an end."""
        return None if self._ends_at is None else max(0.0, self._ends_at - self._now())

    async def wait_before_next(self, at_least_s: float = 0.0) -> bool:
        """Waits after an attempt that failed. False, at once, if there is no time left for another; its error then counts."""
        now = self._now()
        if now - self._attempt_began_at >= CONNECTED_AFTER_S:
            self.note_progress()
        if self._failing_since is None:
            self._failing_since = now
        self._failures += 1
        self.was_unanswered = True
        pause_s = max(at_least_s, self._backoff_s())
        time_left_s = self.time_left_s()
        if now + pause_s >= self._failing_since + self._outage_s or (time_left_s is not None and pause_s >= time_left_s):
            return False
        await asyncio.sleep(pause_s)
        return True

    def _backoff_s(self) -> float:
        # The exponent is bounded, so that a long outage does not overflow a float.
        longest_s = min(BACKOFF_MIN_S * BACKOFF_GROWTH ** min(self._failures - 1, 16), BACKOFF_MAX_S)
        return random.uniform(longest_s / 2, longest_s)  # noqa: S311 - spreads load, guards nothing
