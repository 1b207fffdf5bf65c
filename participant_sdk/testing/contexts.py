"""A StepContext for unit tests that call handlers directly."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from participant_sdk.completion_token import SIGNATURE_BYTES, CompletionIdentity, write_token
from participant_sdk.ids import new_saga_id
from participant_sdk.step_context import DefinitionVersion, NoSession, StepContext

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


def completion_token(saga_id: str, step_id: str, *, round_: int = 1) -> str:
    """A completion token as a coordinator makes them, but without its signature: barriers take it, no coordinator does."""
    return write_token(CompletionIdentity(saga_id, step_id, round_), bytes(SIGNATURE_BYTES))


class _GivenSession:
    def __init__(self, session: "AsyncSession") -> None:
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
    saga = saga_id if saga_id is not None else new_saga_id()
    now = datetime.now(UTC)
    return StepContext(
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
