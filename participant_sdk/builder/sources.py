"""Messages that a saga has at hand while it is written down, with their types."""

from typing import Any, Final, Generic, TypeVar

from participant_sdk.payloads import payload_type

SAGA_INPUT: Final = "input"
"""As definitions name what a saga is started with."""

SourceT = TypeVar("SourceT")
"""Invariant on purpose: were it covariant, a checker would accept any source for any action by joining both types to object."""


class Origin:
    """A message that a saga has at hand: its input, or the output of a step. Made by `Saga`."""

    def __init__(self, *, owner: object, reference: str, message_type: type[Any]) -> None:
        self.owner: Final = owner
        """The saga that made it. Compared by identity: two sagas may have the same name."""
        self.reference: Final = reference
        """As the definition names it: "input", or the id of a step."""
        self.message_type: Final = message_type


class Source(Origin, Generic[SourceT]):
    """An origin whose message type a checker knows."""


class Step(Origin):
    """A place in the order of a saga, whatever its types."""


class StepHandle(Step, Source[SourceT]):
    """One step of a saga, and its output as a source for later steps."""

    @property
    def id(self) -> str:
        """Its id in the definition."""
        return self.reference


def text_of(source: object) -> str:
    """The expression that reads a source, or the expression itself; empty for what is neither."""
    if isinstance(source, Origin):
        return source.reference
    return source if isinstance(source, str) else ""


def full_name(message_type: type[Any]) -> str:
    """As definitions name a message type. Example: "shop.v1.PlaceOrder". Raises TypeError for a type that cannot be a message."""
    return payload_type(message_type).name
