"""The one place through which commands reach sagas, whether the engine holds them or only the journal does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar, assert_never

import grpc

from coordinator.api.errors import RefusedError, overloaded, refusal, refusal_of_command, unavailable
from coordinator.api.views import SagaView, SagaViews
from coordinator.api.waits import OpenWaits
from coordinator.core.inputs import Command
from coordinator.core.values import Code, Failure, SagaId
from coordinator.engine.commands import CommandAccepted, CommandAnswer, CommandRefused, Declined, NotLive
from coordinator.engine.engine import Engine
from coordinator.engine.ports import StoredSaga
from participant_sdk.rpc_errors import ErrorReason, status_with

COMMIT_WAIT_S: Final = 5.0
"""How long a start or a command waits for its commit before the caller is told that the database is away."""
TRIES_MAX: Final = 8
"""How often a saga is read again because it came to life while it was read. Every time needs another start or end in between."""
WAITING_PER_SAGA_MAX: Final = 100
"""Commands that may wait for one saga that is being read; more are refused."""

_T = TypeVar("_T")
Reader = Callable[[CommandAccepted], _T]
"""Takes out of the answer what is wanted: the state in it is live, so it is read at once (R25)."""


class CommandRefusedByStateError(Exception):
    """The state of the saga forbids the command. Carries what the engine said."""

    def __init__(self, saga_id: SagaId, answer: CommandRefused) -> None:
        super().__init__(answer.message)
        self.saga_id = saga_id
        self.answer = answer


class SagaCommands:
    """Gives commands to sagas.

    A saga that failed, has ended or sleeps need not be in memory. It is read from the journal, handed to the engine, and given the
    command, all behind a lock of its own: BETWEEN READING AND HANDING OVER NOTHING MAY CHANGE THE SAGA. What could is another command,
    which waits here, or a start of an id that was not there a moment ago, or a sleeper that wakes: those are noticed by their commits.
    """

    def __init__(
        self,
        engine: Engine,
        views: SagaViews,
        waits: OpenWaits,
        *,
        commit_wait_s: float = COMMIT_WAIT_S,
        waiting_per_saga_max: int = WAITING_PER_SAGA_MAX,
    ) -> None:
        self._engine = engine
        self._views = views
        self._waits = waits
        self._commit_wait_s = commit_wait_s
        self._waiting_per_saga_max = waiting_per_saga_max
        self._flights: dict[SagaId, _Flight] = {}

    async def give(self, saga_id: SagaId, command: Command, read: Reader[_T]) -> _T:
        """Gives a command; answers after the commit that settles it. Refuses with the status that callers are to see."""
        try:
            return await self.attempt(saga_id, command, read)
        except CommandRefusedByStateError as error:
            raise refusal_of_command(saga_id, error.answer) from error

    async def attempt(self, saga_id: SagaId, command: Command, read: Reader[_T]) -> _T:
        """The same, but what the state forbids is a CommandRefusedByStateError, for those who make something else of it."""
        answered = self._ask(saga_id, command, read)
        if not _is_not_live(answered):
            answer = await self._settled(answered)
            if not isinstance(answer, NotLive):
                return _unpacked(saga_id, answer)
        async with self._flight(saga_id):
            return await self._give_to_resting(saga_id, command, read)

    async def _give_to_resting(self, saga_id: SagaId, command: Command, read: Reader[_T]) -> _T:
        committed = asyncio.Event()
        unsubscribe = self._engine.subscribe(saga_id, committed.set)
        resting: tuple[StoredSaga, SagaView] | None = None
        try:
            for _ in range(TRIES_MAX):
                answered = self._ask(saga_id, command, read)
                if resting is not None and not committed.is_set() and _is_not_live(answered):
                    stored, view = resting
                    # No await since it was found neither live nor changed.
                    self._engine.take_up(view.plan, view.state, stored)
                    answered = self._ask(saga_id, command, read)
                answer = await self._settled(answered)
                if not isinstance(answer, NotLive):
                    return _unpacked(saga_id, answer)
                committed.clear()
                resting = await self._read(saga_id)
        finally:
            unsubscribe()
        raise not_held(saga_id)

    async def _read(self, saga_id: SagaId) -> tuple[StoredSaga, SagaView] | None:
        """The saga as the journal has it, if it rests; None: it is held by the engine, or will be. Refuses one that is set aside."""
        stored = await self._views.require(saga_id)
        if stored.quarantined is not None:
            raise set_aside(saga_id, stored.quarantined)
        view = await self._views.rebuild(stored)
        return None if view.state.is_unfinished and stored.asleep_until is None else (stored, view)

    def _ask(self, saga_id: SagaId, command: Command, read: Reader[_T]) -> "asyncio.Future[_T | CommandRefused | NotLive]":
        answered: asyncio.Future[_T | CommandRefused | NotLive] = self._waits.add(asyncio.get_running_loop().create_future())

        def answer(given: CommandAnswer) -> None:
            if not answered.done():  # else the caller went away; what was committed stays
                _settle(answered, given, read)

        self._engine.command(saga_id, command, answer)
        return answered

    async def _settled(self, answered: "asyncio.Future[_T]") -> _T:
        try:
            async with asyncio.timeout(self._commit_wait_s):
                return await answered
        except TimeoutError as error:
            raise unavailable(
                ErrorReason.JOURNAL_UNAVAILABLE, "the database did not take the command in time; it may still do: look, then send it again"
            ) from error

    @asynccontextmanager
    async def _flight(self, saga_id: SagaId) -> AsyncIterator[None]:
        """One command at a time for a saga that is not live."""
        flight = self._flights.setdefault(saga_id, _Flight())
        if flight.count >= self._waiting_per_saga_max:
            raise overloaded(f"{flight.count} commands wait for saga {saga_id} already; send this one again later")
        flight.count += 1
        try:
            async with flight.lock:
                yield
        finally:
            flight.count -= 1
            if not flight.count:
                del self._flights[saga_id]


class _Flight:
    """Who waits for one saga."""

    __slots__ = ("count", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.count = 0


def set_aside(saga_id: SagaId, failure: Failure) -> RefusedError:
    """The journal has set the saga aside: nothing can be done to it here."""
    message = f"saga {saga_id} is set aside, and nothing of it is read or written: {failure.message}"
    return refusal(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.SAGA_QUARANTINED, message, saga_id=saga_id)


def not_held(saga_id: SagaId) -> RefusedError:
    """The saga moves by itself, but this coordinator does not move it now."""
    return unavailable(ErrorReason.SHUTTING_DOWN, f"saga {saga_id} is not held by this coordinator now; ask again")


def _settle(answered: "asyncio.Future[_T | CommandRefused | NotLive]", given: CommandAnswer, read: Reader[_T]) -> None:
    match given:
        case CommandAccepted():
            try:
                answered.set_result(read(given))
            except Exception as error:  # the caller's mistake: the engine, which calls this, must not stumble over it (P5)
                answered.set_exception(error)
        case CommandRefused() | NotLive():
            answered.set_result(given)
        case Declined(failure=failure) if failure.code == Code.UNAVAILABLE:
            answered.set_exception(unavailable(ErrorReason.SHUTTING_DOWN, failure.message))
        case Declined(failure=failure):
            answered.set_exception(RefusedError(status_with(grpc.StatusCode.INTERNAL, failure.message)))
        case _:
            assert_never(given)


def _is_not_live(answered: "asyncio.Future[_T | CommandRefused | NotLive]") -> bool:
    return answered.done() and answered.exception() is None and isinstance(answered.result(), NotLive)


def _unpacked(saga_id: SagaId, answer: _T | CommandRefused) -> _T:
    if isinstance(answer, CommandRefused):
        raise CommandRefusedByStateError(saga_id, answer)
    return answer
