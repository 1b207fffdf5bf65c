"""The base class of participants: a service's actions, with what they are and how they are guarded."""

import re
from typing import Any, ClassVar, Final

from participant_sdk.actions import Action
from participant_sdk.barrier.barrier import Barrier
from participant_sdk.effects import Effect
from participant_sdk.errors import ParticipantDefinitionError, ParticipantSetupError
from participant_sdk.signatures import SignatureError, read_signature

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

    def __init__(self, *, barrier: Barrier) -> None:
        """`barrier` guards its actions: `SqlBarrier(engine)` with a database, `NoBarrier()` without.

        Raises ParticipantSetupError if the barrier could not keep its promise for one of the actions.
        """
        if not self.participant_name:
            raise ParticipantDefinitionError(
                f'{type(self).__qualname__} has no name; write class {type(self).__name__}(Participant, name="…")'
            )
        for each in self.actions.values():
            _check_promise(each, barrier)
        self._barrier = barrier

    @property
    def barrier(self) -> Barrier:
        """What guards its actions."""
        try:
            return self._barrier
        except AttributeError:
            raise ParticipantSetupError(
                f"{type(self).__qualname__}.__init__ did not call super().__init__(barrier=…); do it before serving"
            ) from None


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
    """A plain handler runs in a thread, without session: what it does is never part of the barrier's database transaction."""
    signature = action.signature
    is_plain = not (signature.is_async and signature.is_compensation_async)
    if is_plain and action.effect is Effect.DATABASE and barrier.is_effect_once:
        raise ParticipantSetupError(
            f"{action.qualified_name}: a plain `def` handler runs in a thread and cannot take part in the barrier's database "
            "transaction, so its effect would not be guarded; write `async def` and use step.session, or declare "
            "@action(effect=EXTERNAL)"
        )
