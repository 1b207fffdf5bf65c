"""How a handler ends a step other than by returning, and what is wrong with a participant before it serves.

A handler needs two of these: `Rejected` (no, and it stays no) and `RetryLater` (not now). Any other exception leaves the
outcome unknown: the coordinator calls again with the same key, and compensates the step if the saga turns back.
"""

from collections.abc import Mapping
from datetime import timedelta

import grpc


class Rejected(Exception):  # noqa: N818 - an answer of the business, not a fault
    """Raised by a handler that refuses: it had no effect, and the saga turns back.

    Whatever the handler wrote through `step.session` is rolled back, then the rejection is stored under the key, so that no
    later attempt takes effect (R5). Raised by a compensation it is an ordinary failure: there is no refusing to undo (R8).
    """

    def __init__(
        self,
        reason: str,
        message: str = "",
        *,
        metadata: Mapping[str, str] | None = None,
        code: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION,
    ) -> None:
        """`reason` is for programs (upper case, like "OUT_OF_STOCK"), `message` for people, `metadata` for both."""
        if code is grpc.StatusCode.OK:
            raise ValueError("a rejection needs an error code, found OK: return a response to accept the step")
        super().__init__(reason, message)
        self.reason = reason
        self.message = message or reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.code = code

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class RetryLater(Exception):  # noqa: N818 - an answer of the business, not a fault
    """Raised by a handler that cannot do its work now: it had no effect, and is called again after `after`.

    Does not count as an attempt of the retry policy; only the step's time limit bounds it (R7). A handler with an effect
    outside of the database raises it only before that effect.
    """

    def __init__(self, after: timedelta, message: str = "") -> None:
        super().__init__(after, message)
        self.after = max(after, timedelta())
        self.message = message or "the participant asks to be called again later"

    def __str__(self) -> str:
        return f"{self.message} (in {self.after.total_seconds():g} s)"


class ParticipantDefinitionError(TypeError):
    """A participant class is written in a way that cannot be served. Raised when the class is created; fix the source."""


class ParticipantSetupError(RuntimeError):
    """A participant cannot be served as it was put together: barrier, database or server. Fix the set-up and start again."""


class BarrierTableMissingError(ParticipantSetupError):
    """The participant's database has no barrier table. Create it with a migration or `SqlBarrier.create_table()`."""


class SessionUnavailableError(RuntimeError):
    """`step.session` was used where there is no database transaction to join."""


class SessionMisusedError(RuntimeError):
    """A handler ended the database transaction that it shares with the barrier. Leave commit and rollback to the SDK."""
