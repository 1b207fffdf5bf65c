"""Starting a saga, with or without waiting for its end."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import grpc

from coordinator.api.errors import RefusedError, overloaded, refusal, unavailable
from coordinator.api.saga_commands import COMMIT_WAIT_S, not_held
from coordinator.api.views import SagaViews
from coordinator.api.waits import OpenWaits
from coordinator.codec.sagas import saga_message, saga_summary
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.values import UNFINISHED, Code, SagaId
from coordinator.engine.commands import Declined, Existing, StartAnswer, StartCommand, Started
from coordinator.engine.engine import Engine
from coordinator.engine.shards import Shards
from participant_sdk.rpc_errors import ErrorReason, status_with
from saga.v1 import coordinator_pb2, saga_pb2

AnswerT = TypeVar("AnswerT")
_Answer = coordinator_pb2.StartSagaResponse
_End = saga_pb2.Saga | None


class StartWaits:
    """Turns the engine's callbacks into answers."""

    def __init__(self, engine: Engine, views: SagaViews, waits: OpenWaits, shards: Shards) -> None:
        self._engine = engine
        self._shards = shards
        self._views = views
        self._waits = waits

    async def start(self, command: StartCommand) -> _Answer:
        """Starts a saga and answers when that is committed."""
        answered: asyncio.Future[saga_pb2.Saga | Existing] = self._future()

        def answer(given: StartAnswer) -> None:
            _settle(answered, given, lambda started: saga_summary(started.plan, started.state))

        self._engine.start(command, answer)
        settled = await self._committed(answered)
        if isinstance(settled, Existing):
            stored = await self._views.get(self._same(settled, command))
            for field in ("input", "output", "steps", "incidents", "hook"):
                stored.ClearField(field)
            return _Answer(saga=stored, created=False)
        return _Answer(saga=settled, created=True)

    async def start_and_wait(self, command: StartCommand) -> _Answer:
        """Starts a saga and answers when it has ended or failed. If the caller goes away first, the saga goes on."""
        answered: asyncio.Future[asyncio.Future[_End] | Existing] = self._future()

        def answer(given: StartAnswer) -> None:
            # The end is listened for in the same turn, so that it cannot be missed.
            _settle(answered, given, lambda started: self._end_of(started.state.saga_id))

        self._engine.start(command, answer)
        settled = await self._committed(answered)
        if not isinstance(settled, Existing):
            return _Answer(saga=await self._awaited(settled, command.saga_id), created=True)
        winner = self._same(settled, command)
        return _Answer(saga=await self._awaited(self._end_of(winner), winner), created=False)

    def _end_of(self, saga_id: SagaId) -> "asyncio.Future[_End]":
        """The saga at its end; None at once if the engine does not hold it: then the journal has what there is."""
        ended: asyncio.Future[_End] = self._future()

        def listener(end: tuple[SagaPlan, SagaState] | None) -> None:
            if not ended.done():
                ended.set_result(None if end is None else saga_message(*end))

        if self._engine.on_end(saga_id, listener):
            ended.add_done_callback(lambda _: self._engine.off_end(saga_id, listener))
        elif not ended.done():
            ended.set_result(None)
        return ended

    async def _awaited(self, ended: "asyncio.Future[_End]", saga_id: SagaId) -> saga_pb2.Saga:
        while (saga := await ended) is None:
            moved: asyncio.Future[None] = self._future()
            unsubscribe = self._engine.subscribe(saga_id, partial(_settle_once, moved))
            try:
                stored = await self._views.require(saga_id)
                if stored.quarantined is not None or stored.status not in UNFINISHED:
                    return await self._views.get(saga_id)
                if stored.asleep_until is None or not self._shards.holds(stored.shard):
                    raise not_held(saga_id)
                await moved  # it sleeps: whoever moves it holds it
            finally:
                unsubscribe()
            ended = self._end_of(saga_id)
        return saga

    async def _committed(self, answered: "asyncio.Future[AnswerT]") -> "AnswerT":
        try:
            async with asyncio.timeout(COMMIT_WAIT_S):
                return await answered
        except TimeoutError as error:
            raise unavailable(
                ErrorReason.JOURNAL_UNAVAILABLE,
                "the database did not take the start in time; it may still do: send the same request with the same saga_id again",
            ) from error

    def _same(self, existing: Existing, command: StartCommand) -> SagaId:
        """The id of the saga that was there first; refuses if it asks for something else (H1)."""
        if existing.same:
            return existing.winner
        raise _taken(existing, command)

    def _future(self) -> "asyncio.Future[AnswerT]":
        return self._waits.add(asyncio.get_running_loop().create_future())


def _settle_once(moved: "asyncio.Future[None]") -> None:
    if not moved.done():
        moved.set_result(None)


def _settle(answered: "asyncio.Future[AnswerT | Existing]", given: StartAnswer, made: Callable[[Started], AnswerT]) -> None:
    if answered.done():
        return  # the caller went away; the saga goes on
    match given:
        case Started():
            answered.set_result(made(given))
        case Existing():
            answered.set_result(given)
        case Declined(failure=failure) if failure.code == Code.RESOURCE_EXHAUSTED:
            answered.set_exception(overloaded(failure.message))
        case Declined(failure=failure) if failure.code == Code.UNAVAILABLE:
            answered.set_exception(unavailable(ErrorReason.JOURNAL_UNAVAILABLE, failure.message))
        case Declined(failure=failure):
            answered.set_exception(RefusedError(status_with(grpc.StatusCode.INTERNAL, failure.message)))


def _taken(existing: Existing, command: StartCommand) -> RefusedError:
    if existing.by_key and command.key is not None:
        what, reason = f"idempotency key {command.key.key!r}", ErrorReason.IDEMPOTENCY_KEY_REUSED
    else:
        what, reason = f"saga id {command.saga_id}", ErrorReason.SAGA_ID_REUSED
    message = f"{what} belongs to saga {existing.winner}, started with another definition or input; use a new one for new business"
    return refusal(grpc.StatusCode.ALREADY_EXISTS, reason, message, saga_id=existing.winner)
