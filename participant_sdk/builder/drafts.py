"""What steps and hooks share: the action that they name, and where its input comes from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from participant_sdk.actions import Action
from participant_sdk.builder.sources import Origin
from participant_sdk.definitions.problems import Problem
from participant_sdk.payloads import Payload

RequestT = TypeVar("RequestT", bound=Payload)
ResponseT = TypeVar("ResponseT", bound=Payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionDraft:
    """An action as a step or a hook names it."""

    name: str
    request_type: type[Any]
    response_type: type[Any]
    is_compensatable: bool | None
    """None: only the participant knows."""


def draft_action(action: Action[RequestT, ResponseT] | str, request: type[Any] | None, response: type[Any] | None) -> ActionDraft:
    """An action whose code is here, or one named by its text with its types.

    Raises TypeError if the types of the latter are missing.
    """
    if not isinstance(action, str):
        return ActionDraft(
            name=action.qualified_name,
            request_type=action.request_type,
            response_type=action.response_type,
            is_compensatable=action.is_compensatable,
        )
    if request is None or response is None:
        raise TypeError(f"{action!r} needs request=... and response=..., the message types that the action takes and returns")
    return ActionDraft(name=action, request_type=request, response_type=response, is_compensatable=None)


def source_problems(source: object, owner: object, path: str) -> Iterator[Problem]:
    """Whether `source` is an expression, or a source of the saga that reads it."""
    if isinstance(source, Origin):
        if source.owner is not owner:
            yield Problem(path, f"{source.reference!r} belongs to another saga")
    elif not isinstance(source, str):
        yield Problem(path, f"expected the input or a step of this saga, or an expression as text, found {type(source).__name__}")
