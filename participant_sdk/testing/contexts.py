"""A StepContext for unit tests that call handlers directly."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from participant_sdk.ids import new_saga_id
from participant_sdk.step_context import DefinitionVersion, NoSession, StepContext

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


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
    """What a handler is given, with a saga id made up unless given. Commit and close `session` yourself."""
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
        sessions=NoSession("pass step_context(session=…) to use step.session") if session is None else _GivenSession(session),
    )
