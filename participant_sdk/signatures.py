"""The types of handlers, read from their annotations and checked when their class is created."""

import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from participant_sdk.accepted import Accepted
from participant_sdk.payloads import PayloadType, payload_type
from participant_sdk.step_context import StepContext, SyncStepContext


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSignature:
    """What an action takes and returns."""

    request: PayloadType[Any]
    """What it takes."""
    response: PayloadType[Any]
    """What it returns."""
    accepts: bool
    """Whether it may return Accepted instead, and be finished later."""
    step_type: type[StepContext] | type[SyncStepContext]
    """What its last argument is, and that of its compensation."""
    is_async: bool
    """Whether the handler is `async def`; otherwise it runs in a thread."""
    is_compensation_async: bool
    """The same for its compensation; true without one."""
    may_output_be_missing: bool
    """Whether the compensation accepts None as the output to undo; true without one."""


class SignatureError(TypeError):
    """An annotation is missing or does not fit; the message says what to write."""


_ACTION_SHAPE = "(self, request: SomeRequest, step: StepContext) -> SomeResponse"
_COMPENSATION_SHAPE = "(self, request: SomeRequest, output: SomeResponse, step: StepContext) -> None"


def read_signature(handler: Callable[..., object], compensation: Callable[..., object] | None, *, is_external: bool) -> ActionSignature:
    """Reads the types of an action and its compensation. Raises SignatureError if they are missing or do not fit."""
    request, step, returned = _annotations(handler, arguments=2, shape=_ACTION_SHAPE)
    step_type = _step_type(handler, step, is_external=is_external)
    response, accepts = _returned(handler, returned)
    signature = ActionSignature(
        request=_payload(handler, "request", request),
        response=response,
        accepts=accepts,
        step_type=step_type,
        is_async=inspect.iscoroutinefunction(handler),
        is_compensation_async=True,
        may_output_be_missing=True,
    )
    if compensation is None:
        return signature
    return _with_compensation(signature, compensation, is_external=is_external)


def _with_compensation(signature: ActionSignature, compensation: Callable[..., object], *, is_external: bool) -> ActionSignature:
    request, output, step, returned = _annotations(compensation, arguments=3, shape=_COMPENSATION_SHAPE)
    if _step_type(compensation, step, is_external=is_external) is not signature.step_type:
        raise SignatureError(
            f"{compensation.__name__}: its last argument must be a {signature.step_type.__name__}, as that of its action; "
            f"found {_shown(step)}"
        )
    expected_request, expected_output = signature.request.python_type, signature.response.python_type
    if not _accepts(request, expected_request):
        raise SignatureError(
            f"{compensation.__name__}: its request must be what the action takes, {expected_request.__name__}; found {_shown(request)}"
        )
    if not _accepts(output, expected_output):
        raise SignatureError(
            f"{compensation.__name__}: its output must be what the action returns, {expected_output.__name__}; found {_shown(output)}"
        )
    may_be_missing = _accepts(output, type(None))
    if (is_external or signature.accepts) and not may_be_missing:  # R19
        doubt = "after a crash nobody may know the output of an EXTERNAL action"
        why = "a step that was accepted and never completed has no output" if signature.accepts else doubt
        raise SignatureError(
            f"{compensation.__name__}: {why}, so annotate it as `{expected_output.__name__} | None`; found {_shown(output)}"
        )
    if returned not in {None, type(None)}:
        raise SignatureError(f"{compensation.__name__}: a compensation returns nothing, annotate `-> None`; "
                             f"found {_shown(returned)}")  # fmt: skip
    return replace(signature, is_compensation_async=inspect.iscoroutinefunction(compensation), may_output_be_missing=may_be_missing)


def _annotations(handler: Callable[..., object], *, arguments: int, shape: str) -> list[object]:
    """The annotations of the arguments after `self`, then that of the result."""
    name = getattr(handler, "__name__", repr(handler))
    if not inspect.isfunction(handler):
        raise SignatureError(f"{name}: expected a method, found {type(handler).__name__}; write def {name}{shape}")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise SignatureError(f"{name}: a handler returns its result once, and this one uses `yield`; write def {name}{shape}")
    parameters = list(inspect.signature(handler).parameters.values())[1:]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) != arguments or any(parameter.kind not in positional for parameter in parameters):
        raise SignatureError(f"{name}: expected {arguments} arguments after self; write def {name}{shape}")
    try:
        hints = typing.get_type_hints(handler)
    except NameError as error:
        raise SignatureError(
            f"{name}: the annotation {error.name!r} is not known when the class is created; import it at the top of the "
            "module, outside of `if TYPE_CHECKING`"
        ) from error
    missing = [each for each in [*(parameter.name for parameter in parameters), "return"] if each not in hints]
    if missing:
        raise SignatureError(f"{name}: no annotation for {', '.join(missing)}; write def {name}{shape}")
    return [*(hints[parameter.name] for parameter in parameters), hints["return"]]


def _step_type(handler: Callable[..., object], annotation: object, *, is_external: bool) -> type[StepContext] | type[SyncStepContext]:
    if annotation is StepContext:
        return StepContext
    if annotation is not SyncStepContext:
        raise SignatureError(f"{handler.__name__}: its last argument must be a StepContext, found {_shown(annotation)}")
    if inspect.iscoroutinefunction(handler):
        raise SignatureError(f"{handler.__name__}: a SyncStepContext is for plain `def` handlers; an `async def` one takes a StepContext")
    if is_external:
        raise SignatureError(
            f"{handler.__name__}: a SyncStepContext has the session that an effect in the database is written through; with "
            "effect=EXTERNAL take a StepContext"
        )
    return SyncStepContext


def _returned(handler: Callable[..., object], annotation: object) -> tuple[PayloadType[Any], bool]:
    """The message that it returns, and whether it may return Accepted instead: `-> Approved | Accepted`."""
    members = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    messages = [member for member in members if member is not Accepted]
    if len(messages) == len(members):
        return _payload(handler, "return", annotation), False
    if len(messages) != 1:
        raise SignatureError(
            f"{handler.__name__}: return: expected one message beside Accepted, as in `-> Approved | Accepted`; found {_shown(annotation)}"
        )
    return _payload(handler, "return", messages[0]), True


def _payload(handler: Callable[..., object], what: str, annotation: object) -> PayloadType[Any]:
    try:
        return payload_type(annotation)
    except TypeError as error:
        raise SignatureError(f"{handler.__name__}: {what}: {error}") from error


def _accepts(annotation: object, expected: type) -> bool:
    """Whether a parameter of that annotation takes a value of type `expected`."""
    if _is_union(annotation):
        return any(_accepts(member, expected) for member in typing.get_args(annotation))
    return isinstance(annotation, type) and issubclass(expected, annotation)


def _is_union(annotation: object) -> bool:
    return typing.get_origin(annotation) in {typing.Union, types.UnionType}


def _shown(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
