"""A StepContext for unit tests that call handlers directly."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from participant_sdk.completion_token import SIGNATURE_BYTES, CompletionIdentity, write_token
from participant_sdk.ids import new_saga_id
from participant_sdk.step_context import DefinitionVersion, NoSession, StepContext, SyncStepContext

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session


def completion_token(saga_id: str, step_id: str, *, round_: int = 1) -> str:
    """A completion token as a coordinator makes them, but without its signature: barriers take it, no coordinator does."""
    return write_token(CompletionIdentity(saga_id, step_id, round_), bytes(SIGNATURE_BYTES))


StepT = TypeVar("StepT", StepContext, SyncStepContext)


class _GivenSession:
    def __init__(self, session: "AsyncSession | Session") -> None:
        self.session = session


def step_context(
    *,
    saga_id: str | None = None,
    step_id: str = "step",
    session: "AsyncSession | None" = None,
    attempt: int = 1,
    time_left: timedelta = timedelta(seconds=10),
) -> StepContext:
    """What a handler is given, with a saga id made up unless given. Commit and close `session` yourself.

    Its completion token names this step; no coordinator would believe it.
    """
    return _made(StepContext, saga_id=saga_id, step_id=step_id, session=session, attempt=attempt, time_left=time_left)


def sync_step_context(
    *,
    saga_id: str | None = None,
    step_id: str = "step",
    session: "Session | None" = None,
    attempt: int = 1,
    time_left: timedelta = timedelta(seconds=10),
) -> SyncStepContext:
    """The same for plain `def` handlers that take part in the database transaction of a barrier."""
    return _made(SyncStepContext, saga_id=saga_id, step_id=step_id, session=session, attempt=attempt, time_left=time_left)


def _made(
    kind: type[StepT], *, saga_id: str | None, step_id: str, session: "AsyncSession | Session | None", attempt: int, time_left: timedelta
) -> StepT:
    saga = saga_id if saga_id is not None else new_saga_id()
    now = datetime.now(UTC)
    return kind(
        saga_id=saga,
        step_id=step_id,
        definition=DefinitionVersion(name="test", version=1),
        key=f"{saga}/{step_id}/execute/1",
        execute_key=f"{saga}/{step_id}/execute/1",
        attempt=attempt,
        first_attempt_at=now,
        deadline=now + time_left,
        completion_token=completion_token(saga, step_id),
        sessions=NoSession("pass step_context(session=…) to use step.session") if session is None else _GivenSession(session),
    )
