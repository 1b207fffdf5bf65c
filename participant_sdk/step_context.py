"""What a handler is told about the step that it executes or compensates."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

from participant_sdk.errors import SessionUnavailableError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from participant_sdk.client.completion import Heartbeat
    from participant_sdk.payloads import Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionVersion:
    """The saga definition that a saga follows."""

    name: str
    """Its name. Example: "place-order"."""
    version: int
    """Its version, from 1."""


class SessionSource(Protocol):
    """Where `step.session` comes from: the database transaction of the barrier."""

    @property
    def session(self) -> "AsyncSession | Session":
        """The session, opened when first asked for. Raises SessionUnavailableError where there is none."""


class NoSession:
    """The source of a step that has no database transaction; says why."""

    def __init__(self, why: str) -> None:
        self._why = why

    @property
    def session(self) -> NoReturn:
        raise SessionUnavailableError(self._why)


class SendHeartbeat(Protocol):
    """Sends the heartbeat of the step with that completion token."""

    async def __call__(self, token: str, time_limit: timedelta | None, progress: "Payload | None", /) -> "Heartbeat": ...


async def _no_heartbeat(token: str, time_limit: timedelta | None, progress: "Payload | None", /) -> NoReturn:
    raise RuntimeError("this step has nobody to send heartbeats to: serve its participant with ParticipantServer(…, coordinator=…)")


def _never() -> bool:
    return False


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of a handler: which saga and step it is for, under which key, and how much time it has."""

    saga_id: str
    """UUID of the saga."""
    step_id: str
    """Id of the step in the saga definition."""
    definition: DefinitionVersion
    """The plan that the saga follows."""
    key: str
    """Idempotency key of this call: equal for all attempts (R1). Give it to services outside that honour such keys."""
    execute_key: str
    """Key that the step was executed with. In `execute` the same as `key`; a compensation needs it to name what it undoes."""
    attempt: int
    """Number of this call within its step and direction, from 1. Not for deduplication: that is what `key` is for."""
    first_attempt_at: datetime
    """When the first attempt to execute was due, by the coordinator's clock. Aware, UTC."""
    deadline: datetime
    """When this attempt ends, by the clock of this machine. Aware, UTC."""
    completion_token: str = field(default="", repr=False)
    """What an action that answers Accepted is completed with later (R24); equal for all attempts. Whoever has it can finish the
    step, so it is shown nowhere. Empty in a compensation.
    """
    sessions: SessionSource = field(
        default=NoSession("this StepContext was made without a database session: pass one to step_context(session=...)"),
        repr=False,
    )
    """Where `session` comes from."""
    cancellation: Callable[[], bool] = field(default=_never, repr=False)
    """Tells whether the caller has given up."""
    now: Callable[[], datetime] = field(default=_now, repr=False)
    """The clock that `time_left` is read from."""
    send_heartbeat: "SendHeartbeat" = field(default=_no_heartbeat, repr=False)
    """What `StepContext.heartbeat` sends with."""

    def time_left(self) -> timedelta:
        """Time until the deadline; zero when it is over."""
        return max(self.deadline - self.now(), timedelta())

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more.

        An `async def` handler is cancelled by itself; a plain `def` handler should look here between pieces of its work,
        and raise to stop.
        """
        return self.cancellation() or self.now() >= self.deadline


class StepContext(Step):
    """The step of an `async def` handler, and of one whose effect is EXTERNAL."""

    __slots__ = ()

    async def heartbeat(self, *, time_limit: timedelta | None = None, progress: "Payload | None" = None) -> "Heartbeat":
        """Tells the coordinator that the step is worked on, and learns whether it is still wanted (R24).

        In the handler it says whether the saga has turned back meanwhile; then `cancelled` is true as well. It does not move `deadline`:
        what takes longer than an attempt returns Accepted, and goes on beating afterwards, here or with `beating`, which extends its time.

        `time_limit`: how long an accepted step may take from now; None: as long as was said when it was accepted. `progress`: how far it
        is, for people; any message of at most 16 KiB.

        Raises RuntimeError in a compensation, which nothing calls off, and where the participant's server
        knows no coordinator; what `SagaClient.heartbeat` raises.
        """
        if not self.completion_token:
            raise RuntimeError("a compensation has no heartbeat: it is wanted until it has succeeded")
        return await self.send_heartbeat(self.completion_token, time_limit, progress)

    @property
    def session(self) -> "AsyncSession":
        """A SQLAlchemy session inside the barrier's database transaction, opened when first used.

        What is written through it is committed together with the step's reply, or not at all. Do not commit or roll back:
        return or raise; `begin_nested()` is fine. With `effect=EXTERNAL` it belongs to the database transaction that stores the
        reply after the handler, so it cannot undo what was done outside.

        Raises SessionUnavailableError under NoBarrier, in plain `def` handlers, which run in threads, and under a barrier whose engine
        blocks.
        """
        return cast("AsyncSession", self.sessions.session)


class SyncStepContext(Step):
    """The step of a plain `def` handler that takes part in the database transaction of a barrier whose engine blocks."""

    __slots__ = ()

    @property
    def session(self) -> "Session":
        """The same as `StepContext.session`, for code that blocks. Belongs to the thread that the handler runs in.

        Raises SessionUnavailableError under NoBarrier.
        """
        return cast("Session", self.sessions.session)
