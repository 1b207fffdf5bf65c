"""Starting sagas: from the engine's words to an answer, at the commit of the start or at the end of the saga.

All happens in callbacks, without a task for a start. Only what is rare has one: reading a saga that was there before, or that is no longer
held here when it ends.
"""

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from functools import partial
from typing import Final

import grpc

from coordinator.api.errors import RefusedError, overloaded, refusal, status_of, unavailable
from coordinator.api.saga_commands import COMMIT_WAIT_S, not_held
from coordinator.api.views import SagaViews
from coordinator.api.waits import OpenWaits
from coordinator.codec.sagas import saga_message, saga_outcome, saga_summary
from coordinator.core.plan import SagaPlan
from coordinator.core.state import SagaState
from coordinator.core.values import UNFINISHED, Code, SagaId
from coordinator.engine.commands import Declined, Existing, StartAnswer, StartCommand, Started
from coordinator.engine.engine import Engine
from coordinator.engine.shards import Shards
from participant_sdk.rpc_errors import ErrorReason, status_with
from saga.v1 import coordinator_pb2, saga_pb2

_Answer = coordinator_pb2.StartSagaResponse
Told = Callable[[coordinator_pb2.StartSagaResponse | RefusedError], None]
"""Told once what is answered to a start."""


class Awaited(Enum):
    """When a start is answered, and with how much."""

    COMMIT = auto()
    """When it is committed, without steps and payloads."""
    END = auto()
    """When the saga has ended or failed, with all of it."""
    OUTCOME = auto()
    """The same, without the input and the steps of one that is COMPLETED."""

    @classmethod
    def by(cls, request: coordinator_pb2.StartSagaRequest) -> "Awaited":
        """What a request asks for."""
        if not request.wait:
            return cls.COMMIT
        return cls.OUTCOME if request.outcome_only else cls.END


_SHOW: Final = {Awaited.COMMIT: saga_summary, Awaited.END: saga_message, Awaited.OUTCOME: saga_outcome}
_SUMMARY_LEAVES_OUT: Final = ("input", "output", "steps", "incidents", "hook")


class Starts:
    """Begins sagas for whoever asks."""

    def __init__(self, engine: Engine, views: SagaViews, waits: OpenWaits, shards: Shards) -> None:
        self._engine = engine
        self._views = views
        self._waits = waits
        self._shards = shards
        self._loop = asyncio.get_running_loop()
        self._uncommitted: dict[StartWait, float] = {}
        """With the instant until which each waits, in this order: all wait equally long."""
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, command: StartCommand, *, awaited: Awaited) -> _Answer:
        """The answer to a start by itself. Raises RefusedError. If the caller goes away first, the saga goes on."""
        answered: asyncio.Future[_Answer] = self._waits.add(self._loop.create_future())
        wait = self.begin(command, partial(_settle, answered), awaited=awaited)
        try:
            return await answered
        finally:
            wait.forsake()

    def begin(self, command: StartCommand, told: Told, *, awaited: Awaited) -> "StartWait":
        """Starts a saga; `told` when what is awaited has come."""
        wait = StartWait(self, self._engine, command, told, awaited=awaited)
        self._uncommitted[wait] = self._loop.time() + COMMIT_WAIT_S
        if self._timer is None:
            self._timer = self._loop.call_later(COMMIT_WAIT_S, self._give_up)
        self._engine.start(command, wait.settled)
        return wait

    def note_settled(self, wait: "StartWait") -> None:
        """Its commit is not waited for any more."""
        self._uncommitted.pop(wait, None)

    def _give_up(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        late = [wait for wait, until_s in self._uncommitted.items() if until_s <= now_s]
        for wait in late:
            words = "the database did not take the start in time; it may still do: send the same request with the same saga_id again"
            wait.tell(unavailable(ErrorReason.JOURNAL_UNAVAILABLE, words))
        if self._uncommitted:
            self._timer = self._loop.call_at(next(iter(self._uncommitted.values())), self._give_up)

    async def answer_existing(self, existing: Existing, command: StartCommand, *, awaited: Awaited) -> _Answer:
        """What is answered when a saga of that id or key was there before. Refuses if it asks for something else (H1)."""
        if not existing.same:
            raise _taken(existing, command)
        if awaited is not Awaited.COMMIT:
            return _Answer(saga=_shown(await self.end_of(existing.winner), awaited), created=False)
        stored = await self._views.get(existing.winner)
        for field in _SUMMARY_LEAVES_OUT:
            stored.ClearField(field)
        return _Answer(saga=stored, created=False)

    async def end_of(self, saga_id: SagaId) -> saga_pb2.Saga:
        """A saga when it has ended or failed, wherever its end is found."""
        while (saga := await self._live_end_of(saga_id)) is None:
            moved: asyncio.Future[None] = self._waits.add(self._loop.create_future())
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
        return saga

    async def _live_end_of(self, saga_id: SagaId) -> saga_pb2.Saga | None:
        """None if the engine does not hold it, or no longer: then the journal has what there is."""
        ended: asyncio.Future[saga_pb2.Saga | None] = self._waits.add(self._loop.create_future())

        def listener(end: tuple[SagaPlan, SagaState] | None) -> None:
            if not ended.done():
                ended.set_result(None if end is None else saga_message(*end))

        if not self._engine.on_end(saga_id, listener):
            ended.cancel()
            return None
        try:
            return await ended
        finally:
            self._engine.off_end(saga_id, listener)


class StartWait:
    """One start, from its request to its answer."""

    __slots__ = ("_awaited", "_command", "_engine", "_is_listening", "_starts", "_task", "_told")

    def __init__(self, starts: Starts, engine: Engine, command: StartCommand, told: Told, *, awaited: Awaited) -> None:
        self._starts = starts
        self._engine = engine
        self._command = command
        self._told: Told | None = told
        self._awaited = awaited
        self._is_listening = False
        self._task: asyncio.Task[None] | None = None

    def tell(self, answer: _Answer | RefusedError) -> None:
        """Answers, once."""
        told = self._told
        if told is not None:
            self.forsake()
            told(answer)

    def forsake(self) -> None:
        """Nobody waits any more; the saga goes on. Harmless after the answer."""
        self._told = None
        self._starts.note_settled(self)
        if self._is_listening:
            self._is_listening = False
            self._engine.off_end(self._command.saga_id, self._ended)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def settled(self, given: StartAnswer) -> None:
        """The engine has committed the start, or will not."""
        self._starts.note_settled(self)
        if self._told is None:
            return
        match given:
            case Started() if self._awaited is not Awaited.COMMIT:
                # The end is listened for in the same turn, so that it cannot be missed.
                self._is_listening = self._engine.on_end(self._command.saga_id, self._ended)
                if not self._is_listening:
                    self._ended(None)
            case Started():
                self.tell(_Answer(saga=saga_summary(given.plan, given.state), created=True))
            case Existing():
                self._begin(self._starts.answer_existing(given, self._command, awaited=self._awaited))
            case Declined(failure=failure) if failure.code == Code.RESOURCE_EXHAUSTED:
                self.tell(overloaded(failure.message))
            case Declined(failure=failure) if failure.code == Code.UNAVAILABLE:
                self.tell(unavailable(ErrorReason.JOURNAL_UNAVAILABLE, failure.message))
            case Declined(failure=failure):
                self.tell(RefusedError(status_with(grpc.StatusCode.INTERNAL, failure.message)))

    def _ended(self, end: tuple[SagaPlan, SagaState] | None) -> None:
        self._is_listening = False
        if end is None:
            self._begin(self._answer_end())
        else:
            self.tell(_Answer(saga=_SHOW[self._awaited](*end), created=True))

    def _begin(self, work: Coroutine[object, object, _Answer]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._tell_of(work))

    async def _tell_of(self, work: Coroutine[object, object, _Answer]) -> None:
        try:
            answer = await work
        except Exception as error:
            self.tell(RefusedError(status_of(error, "StartSaga")))
        else:
            self.tell(answer)

    async def _answer_end(self) -> _Answer:
        return _Answer(saga=_shown(await self._starts.end_of(self._command.saga_id), self._awaited), created=True)


def _settle(answered: "asyncio.Future[_Answer]", answer: _Answer | RefusedError) -> None:
    if answered.done():
        return  # the caller went away; the saga goes on
    if isinstance(answer, RefusedError):
        answered.set_exception(answer)
    else:
        answered.set_result(answer)


def _shown(saga: saga_pb2.Saga, awaited: Awaited) -> saga_pb2.Saga:
    """A saga with as much of it as is asked for."""
    if awaited is Awaited.OUTCOME and saga.status == saga_pb2.SAGA_STATUS_COMPLETED:
        saga.ClearField("input")
        saga.ClearField("steps")
    return saga


def _settle_once(moved: "asyncio.Future[None]") -> None:
    if not moved.done():
        moved.set_result(None)


def _taken(existing: Existing, command: StartCommand) -> RefusedError:
    if existing.by_key and command.key is not None:
        what, reason = f"idempotency key {command.key.key!r}", ErrorReason.IDEMPOTENCY_KEY_REUSED
    else:
        what, reason = f"saga id {command.saga_id}", ErrorReason.SAGA_ID_REUSED
    message = f"{what} belongs to saga {existing.winner}, started with another definition or input; use a new one for new business"
    return refusal(grpc.StatusCode.ALREADY_EXISTS, reason, message, saga_id=existing.winner)
