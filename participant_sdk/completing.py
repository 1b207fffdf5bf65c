"""Completing an accepted step on the participant's side: the result is stored with its effect, then the coordinator is told (R24)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from participant_sdk.actions import Action
from participant_sdk.barrier import answers
from participant_sdk.barrier.barrier import Barrier
from participant_sdk.barrier.completions import OpenCompletion, StoredResult
from participant_sdk.barrier.guard import LOCK_WAIT_SHARE
from participant_sdk.barrier.verdict import CompletionCall, StepIdentity
from participant_sdk.client.completion import Heartbeat, StepCompleter, identity_of
from participant_sdk.client.errors import CoordinatorUnavailable
from participant_sdk.client.saga_client import SagaClient
from participant_sdk.completion_token import CompletionIdentity, execute_key_of
from participant_sdk.errors import (
    AlreadyCompletedError,
    CompletionMisusedError,
    CompletionUndeliveredError,
    ParticipantSetupError,
    Rejected,
)
from participant_sdk.payloads import PAYLOAD_BYTES_MAX, Payload, PayloadEncodeError
from saga.v1 import participant_pb2

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

COMPLETING_TIME_LIMIT_DEFAULT: Final = timedelta(seconds=10)
"""How long a completion may take, from asking for the row to its commit; telling the coordinator comes on top."""

ResponseT = TypeVar("ResponseT", bound=Payload)
ResultT = TypeVar("ResultT")


class LentClient:
    """What a server lends its participants: one client to tell the coordinator through, never closed under a call. A `StepVoice`."""

    def __init__(self, client: SagaClient) -> None:
        """`client` becomes its own."""
        self._client = client
        self._calls = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def complete_step(self, token: str, output: object) -> bool:
        with self._calling():
            return await self._client.complete_step(token, output)

    async def reject_step(self, token: str, rejection: Rejected | participant_pb2.Rejected) -> bool:
        with self._calling():
            return await self._client.reject_step(token, rejection)

    async def heartbeat(self, token: str, *, time_limit: timedelta | None = None, progress: object | None = None) -> Heartbeat:
        with self._calling():
            return await self._client.heartbeat(token, time_limit=time_limit, progress=progress)

    async def close(self, time_limit: timedelta) -> None:
        """Waits for the calls under way, so long at most, then closes the client. A call that is cut off after all is cancelled."""
        try:
            async with asyncio.timeout(time_limit.total_seconds()):
                await self._is_idle.wait()
        except TimeoutError:
            logger.warning("the coordinator was not told of %d completions; completing() with their tokens does it", self._calls)
        await self._client.close()

    @contextmanager
    def _calling(self) -> Iterator[None]:
        self._calls += 1
        self._is_idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._is_idle.set()


class Completion(Generic[ResponseT]):
    """An accepted step that is being completed, while its row is locked: a compensation waits until this is over."""

    def __init__(self, identity: CompletionIdentity, action: Action[Any, ResponseT], opened: OpenCompletion) -> None:
        self.saga_id: Final = identity.saga_id
        """UUID of the saga."""
        self.step_id: Final = identity.step_id
        """Id of the step in the saga definition."""
        self.key: Final = execute_key_of(identity)
        """Idempotency key that the step was executed with."""
        self._action = action
        self._opened = opened
        self._response: participant_pb2.ExecuteResponse | None = None

    @property
    def session(self) -> "AsyncSession":
        """A SQLAlchemy session inside the database transaction that stores the result; see `StepContext.session`.

        Raises SessionUnavailableError under a barrier whose engine blocks: use `run_sync` there.
        """
        return cast("AsyncSession", self._opened.sessions.session)

    async def run_sync(self, work: "Callable[[Session], ResultT]") -> ResultT:
        """Runs `work(session)` inside the same database transaction, in the barrier's thread if its engine blocks; like
        `AsyncSession.run_sync`.
        """
        return await self._opened.run_sync(work)

    def succeed(self, output: ResponseT) -> None:
        """The step took effect, and returns `output`. Raises CompletionMisusedError if it is of another type or too large."""
        expected, name = self._action.signature.response, self._action.qualified_name
        if type(output) is not expected.python_type:
            raise CompletionMisusedError(f"{name} is completed with a {expected.name}, found {type(output).__qualname__}")
        try:
            packed = expected.pack(output)
        except PayloadEncodeError as error:
            raise CompletionMisusedError(f"{name} is completed with what cannot be encoded: {error}") from error
        if len(packed.value) > PAYLOAD_BYTES_MAX:  # R6: before anything is stored
            raise CompletionMisusedError(
                f"{name} is completed with {len(packed.value)} bytes, {PAYLOAD_BYTES_MAX} are allowed; store large content elsewhere "
                "and return a reference"
            )
        self._conclude(participant_pb2.ExecuteResponse(succeeded=participant_pb2.Succeeded(output=packed)))

    def reject(self, reason: str, message: str = "", *, metadata: Mapping[str, str] | None = None) -> None:
        """The step is refused: the saga turns back, and nothing of this step will be undone (R5).

        So take back here, through `session`, what was begun when the step was accepted. The arguments are those of `Rejected`.
        """
        self._conclude(answers.rejection(Rejected(reason, message, metadata=metadata).to_status(), sealed=True))

    def _conclude(self, response: participant_pb2.ExecuteResponse) -> None:
        if self._response is not None:
            raise CompletionMisusedError(f"{self._action.qualified_name} has its result already; call succeed() or reject() once")
        self._response = response

    async def commit(self) -> participant_pb2.ExecuteResponse:
        """For the SDK: stores the result, which the body must have given by then."""
        if self._response is None:
            raise CompletionMisusedError(
                f"the completion of {self._action.qualified_name} was left without a result: call succeed(…) or reject(…), or raise"
            )
        await self._opened.conclude(self._response)
        return self._response


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionOrder(Generic[ResponseT]):
    """What is asked for: which step, of which participant, and who tells the coordinator."""

    token: str
    participant: str
    """Its name."""
    barrier: Barrier
    actions: Mapping[str, Action[Any, Any]]
    """By the part after the dot."""
    action: Action[Any, ResponseT] | None
    """Which one the caller expects; None: whichever was accepted."""
    completer: StepCompleter
    time_limit: timedelta


@asynccontextmanager
async def completing(order: CompletionOrder[ResponseT]) -> AsyncIterator[Completion[ResponseT]]:
    """See `Participant.completing`."""
    identity = identity_of(order.token)
    call = CompletionCall(
        key=execute_key_of(identity),
        step=StepIdentity(saga_id=identity.saga_id, step_id=identity.step_id),
        token=order.token,
        wait_s=order.time_limit.total_seconds() * LOCK_WAIT_SHARE,
    )
    async with asyncio.timeout(order.time_limit.total_seconds()), order.barrier.completing(call) as found:
        action = _action_of(order, found.action)
        if isinstance(found, StoredResult):
            response, is_repeated = found.response, True
        else:
            completion = Completion(identity, action, found)
            yield completion
            # THE RESULT IS COMMITTED BEFORE THE COORDINATOR IS TOLD.
            response, is_repeated = await completion.commit(), False
    await _deliver(order, identity, response)
    if is_repeated:
        raise _already_completed(identity, action, response)


def _action_of(order: CompletionOrder[ResponseT], accepted: str) -> Action[Any, ResponseT]:
    """The action that was accepted. Raises ParticipantSetupError if it is not the one that is expected here."""
    name, _, action_name = accepted.rpartition(".")
    action = order.actions.get(action_name) if name == order.participant else None
    if action is None or (order.action is not None and order.action.qualified_name != accepted):
        expected = order.action.qualified_name if order.action is not None else f"an action of {order.participant}"
        raise ParticipantSetupError(f"expected a completion token of {expected}, found one of {accepted}; complete it where that is served")
    return action


async def _deliver(order: CompletionOrder[ResponseT], identity: CompletionIdentity, response: participant_pb2.ExecuteResponse) -> None:
    try:
        if response.HasField("succeeded"):
            await order.completer.complete_step(order.token, response.succeeded.output)
        else:
            await order.completer.reject_step(order.token, response.rejected)
    except CoordinatorUnavailable as error:
        raise CompletionUndeliveredError(
            f"the result of step {identity.step_id} of saga {identity.saga_id} is stored, but the coordinator could not be told: {error}; "
            "call completing() again with the same token, which sends it and runs nothing",
            saga_id=identity.saga_id,
            step_id=identity.step_id,
        ) from error


def _already_completed(
    identity: CompletionIdentity, action: Action[Any, Any], response: participant_pb2.ExecuteResponse
) -> AlreadyCompletedError:
    is_success = response.HasField("succeeded")
    how = "completed" if is_success else f"rejected ({response.rejected.status.message})"
    return AlreadyCompletedError(
        f"step {identity.step_id} of saga {identity.saga_id} was {how} before; the coordinator has been told again, and nothing ran",
        saga_id=identity.saga_id,
        step_id=identity.step_id,
        output=action.signature.response.unpack(response.succeeded.output) if is_success else None,
        rejection=None if is_success else response.rejected.status,
    )
