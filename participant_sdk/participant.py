"""The base class of participants: a service's actions, with what they are and how they are guarded."""

import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeVar, overload

from participant_sdk.actions import Action
from participant_sdk.barrier.barrier import Barrier
from participant_sdk.client.completion import StepCompleter, StepVoice
from participant_sdk.completing import COMPLETING_TIME_LIMIT_DEFAULT, Completion, CompletionOrder, completing
from participant_sdk.descriptors import DescriptorConflictError, closed_descriptors
from participant_sdk.effects import Effect
from participant_sdk.errors import ParticipantDefinitionError, ParticipantSetupError
from participant_sdk.middleware import Middleware
from participant_sdk.payloads import Payload
from participant_sdk.signatures import SignatureError, read_signature
from participant_sdk.step_context import SyncStepContext

ResponseT = TypeVar("ResponseT", bound=Payload)

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_ACTION_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Participant:
    """A service that owns actions and their data. Subclass it, with a name:

        class Inventory(Participant, name="inventory"):
            @action
            async def reserve(self, request: ReserveStock, step: StepContext) -> StockReserved: ...

            @reserve.compensation
            async def release(self, request: ReserveStock, reserved: StockReserved, step: StepContext) -> None: ...

    Whatever is wrong with a class is told when it is created, all at once. A subclass without a name keeps that of its base,
    or is abstract if there is none. A subclass may define its own `__init__` and passes the barrier on.
    """

    participant_name: ClassVar[str] = ""
    """The part of its actions before the dot; empty for an abstract class."""
    actions: ClassVar[dict[str, Action[Any, Any]]] = {}
    """Its actions by the part after the dot."""
    _completer: StepVoice | None = None
    """What the server has lent; None: it is not served, or its server knows no coordinator."""

    def __init_subclass__(cls, *, name: str | None = None, **rest: object) -> None:
        super().__init_subclass__(**rest)
        if name is not None:
            if _NAME.fullmatch(name) is None:
                raise ParticipantDefinitionError(
                    f"{cls.__qualname__}: a participant's name is a lower-case letter, then lower-case letters, digits, dashes or "
                    f"underscores, 64 at most; found {name!r}"
                )
            cls.participant_name = name
        if cls.participant_name:
            cls.actions = _bind_actions(cls)

    def __init__(self, *, barrier: Barrier, middleware: Sequence[Middleware] = ()) -> None:
        """`barrier` guards its actions: `SqlBarrier(engine)` with a database, `NoBarrier()` without. `middleware`: what runs around each of
        its handlers, the first one outermost; within the barrier, so that a call that is answered from what is stored runs none.

        Raises ParticipantSetupError if the barrier could not keep its promise for one of the actions.
        """
        if not self.participant_name:
            raise ParticipantDefinitionError(
                f'{type(self).__qualname__} has no name; write class {type(self).__name__}(Participant, name="…")'
            )
        for each in self.actions.values():
            _check_promise(each, barrier)
        self._barrier = barrier
        self._middleware = tuple(middleware)

    @property
    def barrier(self) -> Barrier:
        """What guards its actions."""
        try:
            return self._barrier
        except AttributeError:
            raise ParticipantSetupError(
                f"{type(self).__qualname__}.__init__ did not call super().__init__(barrier=…); do it before serving"
            ) from None

    @property
    def middleware(self) -> tuple[Middleware, ...]:
        """What runs around each of its handlers, the outermost first."""
        return self._middleware

    @overload
    def completing(
        self,
        token: str,
        action: Action[Any, ResponseT],
        /,
        *,
        client: StepCompleter | None = None,
        time_limit: timedelta = COMPLETING_TIME_LIMIT_DEFAULT,
    ) -> AbstractAsyncContextManager[Completion[ResponseT]]: ...
    @overload
    def completing(
        self,
        token: str,
        /,
        *,
        client: StepCompleter | None = None,
        time_limit: timedelta = COMPLETING_TIME_LIMIT_DEFAULT,
    ) -> AbstractAsyncContextManager[Completion[Any]]: ...
    def completing(
        self,
        token: str,
        action: Action[Any, Any] | None = None,
        /,
        *,
        client: StepCompleter | None = None,
        time_limit: timedelta = COMPLETING_TIME_LIMIT_DEFAULT,
    ) -> AbstractAsyncContextManager[Completion[Any]]:
        """Finishes a step that a handler answered with Accepted, in one database transaction with its effect (R24):

            async with approvals.completing(token, Approvals.ask) as completion:
                completion.session.add(Approval(key=completion.key, by="ann"))
                completion.succeed(Approved(by="ann"))

        While the body runs, the step's row in the barrier is locked: the approval comes before the undo, and is undone by it, or after
        it, and is refused. At the end of the body the result is committed together with what was written through the session, and
        then the coordinator is told; an Execute that is repeated later is answered with it. An exception in the body rolls back and
        goes on: the step waits as before.

        `token`: `step.completion_token` of the handler. `action`: which action it must be of; lets type checkers check `succeed`.
        `client`: a SagaClient; default: the coordinator that the server of this participant registers with. `time_limit`: for waiting
        and body together; an acceptance that is about to be committed is waited for half of it.

        Raises CompletionTokenInvalidError; CompletionRefusedError if it is too late; AlreadyCompletedError if it was done before, after
        it has told the coordinator again, without running the body; CompletionPostponedError if it must be asked again, as when the
        acceptance is not committed yet; TimeoutError if the body takes too long; CompletionMisusedError if it gives no result. After
        the commit: CompletionUndeliveredError if the coordinator cannot be reached; StepNotWaitingError if the saga has turned back
        already, and then Compensate comes and finds the output; any other CoordinatorError.
        """
        completer = client if client is not None else self._completer
        if completer is None:
            raise ParticipantSetupError(
                f"{self.participant_name} knows no coordinator to tell: pass client=SagaClient(…), or serve it with "
                "ParticipantServer(…, coordinator=…)"
            )
        order = CompletionOrder(
            token=token,
            participant=self.participant_name,
            barrier=self.barrier,
            actions=self.actions,
            action=action,
            completer=completer,
            time_limit=time_limit,
        )
        return completing(order)

    @property
    def voice(self) -> StepVoice | None:
        """What its server has lent it to tell the coordinator through; None if there is none."""
        return self._completer

    def tell_completions_to(self, completer: StepVoice | None) -> None:
        """What `completing` and `step.heartbeat` tell the coordinator through, unless they are given a client; for servers."""
        self._completer = completer


def _bind_actions(owner: type[Participant]) -> dict[str, Action[Any, Any]]:
    """Checks the actions of a class and makes them its own. Raises ParticipantDefinitionError with every problem."""
    problems: list[str] = []
    bound: dict[str, Action[Any, Any]] = {}
    for attribute, declared in _declared_actions(owner, problems).items():
        try:
            signature = read_signature(declared.handler, declared.compensation_handler, is_external=declared.effect is Effect.EXTERNAL)
        except SignatureError as error:
            problems.append(str(error))
            continue
        own = declared.bound_to(owner.participant_name, signature)
        if _ACTION_NAME.fullmatch(own.name) is None:
            problems.append(f"{attribute}: an action's name is a letter or underscore, then letters, digits or underscores, "
                            f"64 at most; found {own.name!r}")  # fmt: skip
        elif own.name in bound:
            problems.append(f"{attribute}: there is an action {own.name!r} already; give one of them @action(name=…)")
        else:
            bound[own.name] = own
            setattr(owner, attribute, own)
    signatures = [action.signature for action in bound.values()]
    try:
        closed_descriptors(payload.descriptor for each in signatures for payload in (each.request, each.response))
    except DescriptorConflictError as error:
        problems.append(f"its actions take or return {error}")
    if problems:
        raise ParticipantDefinitionError("\n  ".join([f"{owner.__qualname__} cannot be a participant:", *problems]))
    return bound


def _declared_actions(owner: type[Participant], problems: list[str]) -> dict[str, Action[Any, Any]]:
    """Actions by attribute, in the order of their declaration, those of base classes first."""
    declared: dict[str, Action[Any, Any]] = {}
    for base in reversed(owner.__mro__):
        for attribute, value in vars(base).items():
            if isinstance(value, Action):
                declared[attribute] = value
            elif attribute in declared:
                problems.append(f"{attribute}: overrides an action by something else; declare it with @action as well")
    return declared


def _check_promise(action: Action[Any, Any], barrier: Barrier) -> None:
    """What a handler does is part of the barrier's database transaction only if it has the session that the engine gives."""
    if not barrier.is_effect_once or action.effect is not Effect.DATABASE:
        return
    signature = action.signature
    takes_part = signature.step_type is SyncStepContext
    if barrier.is_blocking and not takes_part:
        raise ParticipantSetupError(
            f"{action.qualified_name}: the engine of its SqlBarrier blocks, so its handlers run in the barrier's threads: write them as "
            "plain `def` with a SyncStepContext, give the barrier an AsyncEngine, or declare @action(effect=EXTERNAL)"
        )
    if not barrier.is_blocking and not (signature.is_async and signature.is_compensation_async):
        raise ParticipantSetupError(
            f"{action.qualified_name}: a plain `def` handler runs in a thread and cannot take part in the barrier's database "
            "transaction, so its effect would not be guarded; write `async def` and use step.session, take a SyncStepContext and give "
            "SqlBarrier an Engine, or declare @action(effect=EXTERNAL)"
        )
