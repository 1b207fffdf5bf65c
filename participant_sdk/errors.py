"""How a handler ends a step other than by returning, and what is wrong with a participant before it serves.

A handler needs two of these: `Rejected` (no, and it stays no) and `RetryLater` (not now). Any other exception leaves the
outcome unknown: the coordinator calls again with the same key, and compensates the step if the saga turns back.
"""

from collections.abc import Mapping
from datetime import timedelta

import grpc
from google.rpc import status_pb2

from participant_sdk.payloads.types import Payload
from participant_sdk.rpc_errors import error_details, status_with


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
        self.message: str = message or reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.code = code

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"

    def to_status(self) -> status_pb2.Status:
        """What travels: programs read its ErrorInfo, with the reason and the metadata."""
        details = error_details(self.reason, **{key: str(value) for key, value in self.metadata.items()})
        return status_with(self.code, self.message, details)


class RetryLater(Exception):  # noqa: N818 - an answer of the business, not a fault
    """Raised by a handler that cannot do its work now: it had no effect, and is called again after `after`.

    Does not count as an attempt of the retry policy; only the step's time limit bounds it (R7). A handler with an effect
    outside of the database raises it only before that effect.
    """

    def __init__(self, after: timedelta, message: str = "") -> None:
        super().__init__(after, message)
        self.after: timedelta = max(after, timedelta())
        self.message: str = message or "the participant asks to be called again later"

    def __str__(self) -> str:
        return f"{self.message} (in {self.after.total_seconds():g} s)"


class CompletionError(Exception):
    """A step that was accepted could not be completed as asked. Its subclasses say what to do about it (R24)."""

    def __init__(self, message: str, *, saga_id: str, step_id: str) -> None:
        super().__init__(message)
        self.saga_id = saga_id
        """The saga, as the token says."""
        self.step_id = step_id
        """The step, as the token says."""


class CompletionRefusedError(CompletionError):
    """The step cannot be completed any more, and was not: its compensation came first, or the token is not the one that it waits for.

    Nothing was stored, and repeating it gives the same. Tell whoever asked that it is too late.
    """


class AlreadyCompletedError(CompletionError):
    """The step was completed before. Nothing ran; what was stored then has been sent to the coordinator again.

    The one to catch where a message may come twice, or two people may answer: `output` and `rejection` say what counts.
    """

    def __init__(self, message: str, *, saga_id: str, step_id: str, output: Payload | None, rejection: status_pb2.Status | None) -> None:
        super().__init__(message, saga_id=saga_id, step_id=step_id)
        self.output = output
        """What it was completed with; None if it was rejected."""
        self.rejection = rejection
        """Why it was rejected; None if it was not."""


class CompletionPostponedError(CompletionError):
    """The step cannot be completed now: its acceptance is not committed yet, or the database is busy or away.

    Call `completing` again with the same token. Whatever became of this call, that tells, and nothing happens twice.
    """


class CompletionUndeliveredError(CompletionError):
    """The result is stored, so that nothing can undo it unseen, but the coordinator could not be told.

    Call `completing` again with the same token before the step's time is over: that sends what is stored and runs nothing.
    """


class CompletionMisusedError(RuntimeError):
    """A completion was left without a result, or was given two, or one of another type. Nothing was stored; fix the source."""


class MiddlewareMisusedError(RuntimeError):
    """A middleware is no context manager, or swallowed an error of its handler. Nothing was committed; fix the source."""


class ParticipantDefinitionError(TypeError):
    """A participant class is written in a way that cannot be served. Raised when the class is created; fix the source."""


class ParticipantSetupError(RuntimeError):
    """A participant cannot be served as it was put together: barrier, database or server. Fix the set-up and start again."""


class BarrierTableMissingError(ParticipantSetupError):
    """The participant's database has no barrier table. Create it with a migration or `SqlBarrier.create_table()`."""


class BarrierTableOutdatedError(ParticipantSetupError):
    """The participant's database has a barrier table of another version. Run `upgrade_barrier(op)` in a migration."""


class SessionUnavailableError(RuntimeError):
    """`step.session` was used where there is no database transaction to join."""


class SessionMisusedError(RuntimeError):
    """A handler ended the database transaction that it shares with the barrier. Leave commit and rollback to the SDK."""
