"""Actions: the operations of a participant that steps call, and the decorators that declare them."""

import copy
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar, overload

from participant_sdk.accepted import Accepted
from participant_sdk.effects import Effect
from participant_sdk.errors import ParticipantDefinitionError
from participant_sdk.payloads import Payload
from participant_sdk.signatures import ActionSignature
from participant_sdk.step_context import StepContext, SyncStepContext

RequestT = TypeVar("RequestT", bound=Payload)
ResponseT = TypeVar("ResponseT", bound=Payload)
CalledT = TypeVar("CalledT")
"""What calling the handler gives: the response, or an awaitable of it."""
OwnerT = TypeVar("OwnerT")
"""The participant class that a handler belongs to; its `self`."""
StepT = TypeVar("StepT", StepContext, SyncStepContext)
"""What a handler is told, which says how its session is used; the same for an action and its compensation."""
UndoneT = TypeVar("UndoneT", bound=Awaitable[None] | None)

Handler: TypeAlias = Callable[..., object]
"""A handler as it was written, unbound. Its types were checked when its class was created."""


class Action(Generic[RequestT, ResponseT]):
    """One operation of a participant, such as `Inventory.reserve`: what a step of a saga definition names.

    Read from the class it is this description; read from an instance it is the handler, so that a unit test can call it.
    """

    __slots__ = ("_attribute", "_chosen_name", "_compensation", "_effect", "_handler", "_participant", "_signature")

    def __init__(self, handler: Handler, *, effect: Effect, name: str | None) -> None:
        self._handler = handler
        self._effect = effect
        self._chosen_name = name
        self._attribute = getattr(handler, "__name__", "")
        self._compensation: Handler | None = None
        self._participant: str | None = None
        self._signature: ActionSignature | None = None

    def __set_name__(self, owner: type, attribute: str) -> None:
        self._attribute = attribute

    @property
    def name(self) -> str:
        """The part after the dot: the method's name, or the one given to `@action`."""
        return self._chosen_name if self._chosen_name is not None else self._attribute

    @property
    def qualified_name(self) -> str:
        """What goes over the wire. Example: "inventory.reserve"."""
        if self._participant is None:
            raise ParticipantDefinitionError(f'{self._attribute} belongs to no named participant yet; write class …(Participant, name="…")')
        return f"{self._participant}.{self.name}"

    @property
    def request_type(self) -> type[RequestT]:
        """What it takes."""
        return self.signature.request.python_type

    @property
    def response_type(self) -> type[ResponseT]:
        """What it returns."""
        return self.signature.response.python_type

    @property
    def is_compensatable(self) -> bool:
        """Whether it has a compensation."""
        return self._compensation is not None

    @property
    def accepts(self) -> bool:
        """Whether it may return Accepted, and be finished later."""
        return self.signature.accepts

    @property
    def effect(self) -> Effect:
        """Where its effect takes place."""
        return self._effect

    @property
    def handler(self) -> Handler:
        """The function that executes it, unbound."""
        return self._handler

    @property
    def compensation_handler(self) -> Handler | None:
        """The function that compensates it, unbound; None if it cannot be compensated."""
        return self._compensation

    @property
    def signature(self) -> ActionSignature:
        """Its types, as read from the annotations."""
        if self._signature is None:
            raise ParticipantDefinitionError(f'the types of {self._attribute} are not known yet; write class …(Participant, name="…")')
        return self._signature

    def bound_to(self, participant: str, signature: ActionSignature) -> Self:
        """The same action as one of that participant, its types checked. Several classes may share a base."""
        bound = copy.copy(self)
        bound._belong(participant, signature)  # noqa: SLF001 - an action like this one
        return bound

    def __repr__(self) -> str:
        return f"<action {self._participant or '?'}.{self.name}>"

    def _belong(self, participant: str, signature: ActionSignature) -> None:
        self._participant = participant
        self._signature = signature

    def _take_compensation(self, handler: Handler) -> None:
        if self._compensation is not None:
            raise ParticipantDefinitionError(
                f"{self._attribute} has a compensation already, {self._compensation.__name__}; keep one of the two"
            )
        self._compensation = handler


class _CallableAction(Action[RequestT, ResponseT], Generic[RequestT, ResponseT, CalledT, StepT]):
    __slots__ = ()

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Callable[[RequestT, StepT], CalledT]: ...
    def __get__(self, instance: object | None, owner: type) -> Self | Callable[[RequestT, StepT], CalledT]:
        if instance is None:
            return self
        bound: Callable[[RequestT, StepT], CalledT] = self._handler.__get__(instance, owner)
        return bound


class DatabaseAction(_CallableAction[RequestT, ResponseT, CalledT, StepT]):
    """An action whose effect lies inside the barrier's database transaction."""

    __slots__ = ()

    def compensation(
        self, handler: Callable[[OwnerT, RequestT, ResponseT, StepT], UndoneT]
    ) -> Callable[[OwnerT, RequestT, ResponseT, StepT], UndoneT]:
        """Declares what undoes this action: `(self, request, output, step) -> None`.

        Called only after the action took effect, with the output that it returned then.
        """
        self._take_compensation(handler)
        return handler


class _DoubtfulAction(_CallableAction[RequestT, ResponseT, CalledT, StepT]):
    """An action of which a compensation may have to undo a beginning without an output (R19)."""

    __slots__ = ()

    def compensation(
        self, handler: Callable[[OwnerT, RequestT, ResponseT | None, StepT], UndoneT]
    ) -> Callable[[OwnerT, RequestT, ResponseT | None, StepT], UndoneT]:
        """Declares what undoes this action: `(self, request, output, step) -> None`.

        Called also when nobody knows whether the action took effect, and when it was accepted and never completed; then the output
        is None, and `step.execute_key` is what to look for (R19).
        """
        self._take_compensation(handler)
        return handler


class ExternalAction(_DoubtfulAction[RequestT, ResponseT, CalledT, StepT]):
    """An action whose effect lies outside of the barrier's database transaction."""

    __slots__ = ()


class AcceptingAction(_DoubtfulAction[RequestT, ResponseT, CalledT, StepT]):
    """An action that may return Accepted and be finished later (R24)."""

    __slots__ = ()


# Below, a handler that never returns Accepted fits the overload for those that may as well; the first one that fits counts, and that
# is what the ignored errors are about.


class _DatabaseDecorator(Protocol):
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, handler: Callable[[OwnerT, RequestT, StepContext], Coroutine[Any, Any, ResponseT]], /
    ) -> DatabaseAction[RequestT, ResponseT, Coroutine[Any, Any, ResponseT], StepContext]: ...
    @overload
    def __call__(
        self, handler: Callable[[OwnerT, RequestT, StepContext], Coroutine[Any, Any, ResponseT | Accepted]], /
    ) -> AcceptingAction[RequestT, ResponseT, Coroutine[Any, Any, ResponseT | Accepted], StepContext]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, handler: Callable[[OwnerT, RequestT, StepT], ResponseT], /
    ) -> DatabaseAction[RequestT, ResponseT, ResponseT, StepT]: ...
    @overload
    def __call__(
        self, handler: Callable[[OwnerT, RequestT, StepT], ResponseT | Accepted], /
    ) -> AcceptingAction[RequestT, ResponseT, ResponseT | Accepted, StepT]: ...


class _ExternalDecorator(Protocol):
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, handler: Callable[[OwnerT, RequestT, StepContext], Coroutine[Any, Any, ResponseT]], /
    ) -> ExternalAction[RequestT, ResponseT, Coroutine[Any, Any, ResponseT], StepContext]: ...
    @overload
    def __call__(
        self, handler: Callable[[OwnerT, RequestT, StepContext], Coroutine[Any, Any, ResponseT | Accepted]], /
    ) -> AcceptingAction[RequestT, ResponseT, Coroutine[Any, Any, ResponseT | Accepted], StepContext]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, handler: Callable[[OwnerT, RequestT, StepContext], ResponseT], /
    ) -> ExternalAction[RequestT, ResponseT, ResponseT, StepContext]: ...
    @overload
    def __call__(
        self, handler: Callable[[OwnerT, RequestT, StepContext], ResponseT | Accepted], /
    ) -> AcceptingAction[RequestT, ResponseT, ResponseT | Accepted, StepContext]: ...


@overload
def action(  # type: ignore[overload-overlap]
    handler: Callable[[OwnerT, RequestT, StepContext], Coroutine[Any, Any, ResponseT]], /
) -> DatabaseAction[RequestT, ResponseT, Coroutine[Any, Any, ResponseT], StepContext]: ...
@overload
def action(
    handler: Callable[[OwnerT, RequestT, StepContext], Coroutine[Any, Any, ResponseT | Accepted]], /
) -> AcceptingAction[RequestT, ResponseT, Coroutine[Any, Any, ResponseT | Accepted], StepContext]: ...
@overload
def action(  # type: ignore[overload-overlap]
    handler: Callable[[OwnerT, RequestT, StepT], ResponseT], /
) -> DatabaseAction[RequestT, ResponseT, ResponseT, StepT]: ...
@overload
def action(
    handler: Callable[[OwnerT, RequestT, StepT], ResponseT | Accepted], /
) -> AcceptingAction[RequestT, ResponseT, ResponseT | Accepted, StepT]: ...
@overload
def action(*, name: str | None = None, effect: Literal[Effect.DATABASE] = Effect.DATABASE) -> _DatabaseDecorator: ...
@overload
def action(*, name: str | None = None, effect: Literal[Effect.EXTERNAL]) -> _ExternalDecorator: ...
def action(
    handler: Handler | None = None, /, *, name: str | None = None, effect: Effect = Effect.DATABASE
) -> Action[Any, Any] | Callable[[Handler], Action[Any, Any]]:
    """Declares a method `(self, request, step) -> response` as an action of its participant.

    The types come from the annotations: generated protobuf messages, dataclasses or Pydantic models (docs/payloads.md). Annotated
    `-> response | Accepted`, a step may be finished later (R24). `async def` handlers share the barrier's database transaction through
    `step.session`; so do plain `def` handlers that take a SyncStepContext, under a barrier whose engine blocks. Other plain handlers run
    in threads and have no session.

    `name` is the part after the dot; the method's name unless given. `effect` says where the effect takes place.
    """
    kind: type[Action[Any, Any]] = ExternalAction if effect is Effect.EXTERNAL else DatabaseAction

    def declare(written: Handler) -> Action[Any, Any]:
        return kind(written, effect=effect, name=name)

    return declare if handler is None else declare(handler)
