"""Participants that are not under test, told what to answer.

A stub keeps the promises of a participant with a barrier: it does each key once, answers a repeated call as before, and does nothing for
a key that was undone.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Generic, Self, TypeVar, cast, overload

from participant_sdk.accepted import Accepted
from participant_sdk.actions import Action, action
from participant_sdk.builder import Saga
from participant_sdk.client import CoordinatorError, SagaClient
from participant_sdk.clock import Clock
from participant_sdk.definitions import MessageTypes
from participant_sdk.errors import AlreadyCompletedError, CompletionError, CompletionRefusedError, Rejected
from participant_sdk.participant import Participant
from participant_sdk.payloads import Payload, payload_type
from participant_sdk.step_context import StepContext
from participant_sdk.testing.memory_barrier import MemoryBarrier, MemoryDatabase
from participant_sdk.testing.plans import Plan

RequestT = TypeVar("RequestT", bound=Payload)
ResponseT = TypeVar("ResponseT", bound=Payload)

ACCEPTED_FOR: Final = timedelta(days=30)
"""How long a stub that accepts says that it takes at most."""
_AGAIN_AFTER: Final = timedelta(seconds=1)


class StubFailure(RuntimeError):  # noqa: N818 - what a stub was told to do, not a fault of it
    """A stub was told to fail: nobody knows whether it did anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Behaviour(Generic[RequestT, ResponseT]):
    answer: ResponseT | Callable[[RequestT], ResponseT] | None = None
    """None: an empty message."""
    rejection: Rejected | None = None
    failures: int = 0
    takes: timedelta = timedelta()
    later: timedelta | None = None
    accepted_for: timedelta = ACCEPTED_FOR
    undo_failures: int = 0
    undo_takes: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Stub(Generic[RequestT, ResponseT]):
    """One action of a participant that is not under test. Made by `stub`; each method returns another one, with that said too."""

    action: str
    """Example: "payments.charge"."""
    request_type: type[RequestT]
    response_type: type[ResponseT]
    is_compensatable: bool = True
    is_default: bool = False
    """Whether anything else that serves the same action comes before it."""
    behaviour: _Behaviour[RequestT, ResponseT] = _Behaviour()

    @property
    def participant(self) -> str:
        """The part of the action before the dot."""
        return self.action.partition(".")[0]

    def answers(self, output: ResponseT | Callable[[RequestT], ResponseT]) -> Self:
        """It succeeds with that output, or with what a function makes of its input."""
        return self._with(answer=output, rejection=None)

    def rejects(self, reason: str, message: str = "") -> Self:
        """It refuses, as `raise Rejected(reason, message)` does."""
        return self._with(rejection=Rejected(reason, message))

    def fails(self, times: int) -> Self:
        """Its first calls fail, so many for each step, without anybody knowing what they did; then it does what else is said."""
        return self._with(failures=times)

    def takes(self, latency: timedelta) -> Self:
        """How long a call takes."""
        return self._with(takes=latency)

    def accepts(self, *, completes_after: timedelta, within: timedelta = ACCEPTED_FOR) -> Self:
        """It answers Accepted, for at most `within`, and is completed so much later with what else is said: an output or a rejection."""
        return self._with(later=completes_after, accepted_for=within)

    def undo_fails(self, times: int) -> Self:
        """The first calls that undo it fail, so many for each step."""
        return self._with(undo_failures=times)

    def undo_takes(self, latency: timedelta) -> Self:
        """How long a call takes that undoes it."""
        return self._with(undo_takes=latency)

    def _with(self, **changes: object) -> Self:
        return replace(self, is_default=False, behaviour=replace(self.behaviour, **changes))  # type: ignore[arg-type] # names are above

    def output_of(self, request: RequestT) -> ResponseT:
        """What it answers to that."""
        answer = self.behaviour.answer
        if answer is None:
            empty = payload_type(self.response_type).empty()
            if empty is None:
                raise TypeError(f"a {self.response_type.__name__} has fields that must be given: say what {self.action} answers")
            return empty
        if isinstance(answer, self.response_type):
            return answer
        return cast("Callable[[RequestT], ResponseT]", answer)(request)


@overload
def stub(action: Action[RequestT, ResponseT], /) -> Stub[RequestT, ResponseT]: ...
@overload
def stub(
    action: str, /, *, request: type[RequestT], response: type[ResponseT], is_compensatable: bool = True
) -> Stub[RequestT, ResponseT]: ...
def stub(
    action: Action[RequestT, ResponseT] | str,
    /,
    *,
    request: type[RequestT] | None = None,
    response: type[ResponseT] | None = None,
    is_compensatable: bool = True,
) -> Stub[RequestT, ResponseT]:
    """Stands in for an action that is not under test. Answers an empty message at once, unless told otherwise, as it must be where a field
    has no default.

    `action`: as `Payments.charge`, or by its text with its types. Raises TypeError if those are missing.
    """
    if isinstance(action, Action):
        return Stub(action.qualified_name, action.request_type, action.response_type, action.is_compensatable)
    if request is None or response is None:
        raise TypeError(f"{action!r} needs request=… and response=…, the message types that the action takes and returns")
    return Stub(action, request, response, is_compensatable)


def stubs_of(plan: Plan) -> list[Stub[Any, Any]]:
    """A stub for each action of a saga, hooks included. Whatever else serves one of these participants comes before them."""
    if isinstance(plan, Saga):
        drafts = {draft.name: draft for draft in plan.actions()}
        return [
            Stub(draft.name, draft.request_type, draft.response_type, draft.is_compensatable is not False, is_default=True)
            for draft in drafts.values()
        ]
    types = MessageTypes(plan.descriptors)
    calls = {call.action: call for call in plan.calls()}
    return [Stub(name, types.get(call.input_type), types.get(call.output_type), is_default=True) for name, call in calls.items()]


class StubbedParticipant(Participant):
    """What serves the stubs of one participant. Made by `serve_stubs`."""

    def __init__(self, barrier: MemoryBarrier, client: SagaClient) -> None:
        super().__init__(barrier=barrier)
        self.client = client
        self.tries: dict[str, int] = {}
        """Calls by key."""
        self._completions: set[asyncio.Task[None]] = set()

    async def execute(self, stub: Stub[Any, Any], request: Payload, step: StepContext) -> Payload | Accepted:
        """Does what the stub says."""
        behaviour = stub.behaviour
        self._fail(step, behaviour.failures)
        await asyncio.sleep(behaviour.takes.total_seconds())
        if behaviour.later is not None:
            self._complete_later(self._complete(stub, request, step, behaviour.later))
            return Accepted(behaviour.accepted_for)
        if behaviour.rejection is not None:
            raise behaviour.rejection
        return cast("Payload", stub.output_of(request))

    async def compensate(self, stub: Stub[Any, Any], step: StepContext) -> None:
        """Undoes what the stub says that it did."""
        self._fail(step, stub.behaviour.undo_failures)
        await asyncio.sleep(stub.behaviour.undo_takes.total_seconds())

    def close(self) -> None:
        """Completes nothing any more."""
        for task in self._completions:
            task.cancel()

    def _fail(self, step: StepContext, times: int) -> None:
        self.tries[step.key] = tries = self.tries.get(step.key, 0) + 1
        if tries <= times:
            raise StubFailure(f"failure {tries} of {times} that were asked for")

    def _complete_later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._completions.add(task)
        task.add_done_callback(self._completions.discard)

    async def _complete(self, stub: Stub[Any, Any], request: Payload, step: StepContext, after: timedelta) -> None:
        await asyncio.sleep(after.total_seconds())
        while True:
            try:
                async with self.completing(step.completion_token, client=self.client) as completion:
                    rejection = stub.behaviour.rejection
                    if rejection is not None:
                        completion.reject(rejection.reason, rejection.message)
                    else:
                        completion.succeed(stub.output_of(request))
            except (AlreadyCompletedError, CompletionRefusedError):
                return  # it was done before, or undone: nothing is left to do
            except CompletionError:  # not now, or nobody could be told
                await asyncio.sleep(_AGAIN_AFTER.total_seconds())
            except CoordinatorError:
                return  # too late: the saga has turned back, and its Compensate comes or has come
            else:
                return


def serve_stubs(
    name: str, stubs: Iterable[Stub[Any, Any]], *, database: MemoryDatabase, client: SagaClient, clock: Clock
) -> StubbedParticipant:
    """The participant that stubs make together. `database`: what outlives its process."""
    methods = {each.action.partition(".")[2]: _action_of(each) for each in stubs}
    kind = type(f"Stubbed_{name}", (StubbedParticipant,), methods, name=name)
    participant = kind(MemoryBarrier(database, clock=clock), client)
    assert isinstance(participant, StubbedParticipant)
    return participant


def _action_of(stub: Stub[Any, Any]) -> Action[Any, Any]:
    """An action with the types of the stub, as if somebody had written them."""
    returned = stub.response_type | Accepted if stub.behaviour.later is not None else stub.response_type
    output = stub.response_type | None if stub.behaviour.later is not None else stub.response_type

    async def execute(self: StubbedParticipant, request: Payload, step: StepContext) -> Payload | Accepted:
        return await self.execute(stub, request, step)

    async def compensate(self: StubbedParticipant, request: Payload, output: Payload, step: StepContext) -> None:
        await self.compensate(stub, step)

    execute.__name__ = stub.action.partition(".")[2]
    execute.__annotations__ = {"request": stub.request_type, "step": StepContext, "return": returned}
    compensate.__annotations__ = {"request": stub.request_type, "output": output, "step": StepContext, "return": None}
    declared: Any = action(cast("Any", execute))
    if stub.is_compensatable:
        declared.compensation(compensate)
    return cast("Action[Any, Any]", declared)
