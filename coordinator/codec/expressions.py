"""Compiled expressions as the core calls them: from what a saga knows to a payload."""

from collections.abc import Callable, Mapping
from typing import Final

from coordinator.codec.values import to_status
from coordinator.core.plan import Condition, Expression, ExpressionError, Values
from coordinator.core.values import Failure, Payload
from participant_sdk.definitions.complaints import RAN
from participant_sdk.definitions.expressions import EvaluationError, Program
from participant_sdk.definitions.flow import ERROR, INPUT, OUTPUT, Copy, Source
from participant_sdk.definitions.message_types import MessageTypes
from saga.v1 import saga_pb2

_NOTHING: Final = b""
"""The default message, serialised: what stands for the output of a step that did not run."""

_Reader = Callable[[Values], bytes | bool]


def expression_of(source: Source, definition: saga_pb2.SagaDefinition, index_of: Mapping[str, int], types: MessageTypes) -> Expression:
    """What gives a step its input, or the saga its output. `index_of`: places of the steps by their ids."""
    if isinstance(source, Copy):
        return _copy_of(source.name, definition, index_of, types)
    read = _reading(source, index_of)
    evaluate, type_name = source.evaluate, source.result

    def expression(values: Values) -> Payload:
        try:
            return Payload(type_name, evaluate(read(values)))
        except EvaluationError as error:
            raise ExpressionError(str(error)) from error

    return expression


def condition_of(program: Program, index_of: Mapping[str, int]) -> Condition:
    """What says whether a step is executed."""
    read = _reading(program, index_of)

    def condition(values: Values) -> bool:
        try:
            return program.decide(read(values))
        except EvaluationError as error:
            raise ExpressionError(str(error)) from error

    return condition


def _copy_of(name: str, definition: saga_pb2.SagaDefinition, index_of: Mapping[str, int], types: MessageTypes) -> Expression:
    if name == INPUT:
        return lambda values: values.input
    if name == OUTPUT:
        return _output_of_saga
    if name == ERROR:
        return lambda values: Payload("google.rpc.Status", _failure_bytes(values.failure))
    index = index_of[name]
    type_name = definition.steps[index].output_type
    nothing = Payload(type_name, _NOTHING)
    is_incomplete = not types.get(type_name)().IsInitialized()

    def output(values: Values) -> Payload:
        found = values.output_of(index)
        if found is not None:
            return found
        if is_incomplete:  # only proto2 has such messages
            raise ExpressionError(f"expression {name!r} failed: step {name!r} did not run, and an empty {type_name} lacks required fields")
        return nothing

    return output


def _output_of_saga(values: Values) -> Payload:
    if values.output is None:
        raise ExpressionError(f"expression {OUTPUT!r} failed: the saga returned nothing")
    return values.output


def _reading(program: Program, index_of: Mapping[str, int]) -> Callable[[Values], Mapping[str, bytes | bool]]:
    """Reads only what the expression refers to."""
    readers = tuple((name, _reader_of(name, index_of)) for name in program.variables)
    return lambda values: {name: read(values) for name, read in readers}


def _reader_of(name: str, index_of: Mapping[str, int]) -> _Reader:
    if name == INPUT:
        return lambda values: values.input.value
    if name == OUTPUT:
        return lambda values: _NOTHING if values.output is None else values.output.value
    if name == ERROR:
        return lambda values: _failure_bytes(values.failure)
    if name.startswith(RAN):
        ran = index_of[name.removeprefix(RAN)]
        return lambda values: values.output_of(ran) is not None
    index = index_of[name]

    def output(values: Values) -> bytes:
        found = values.output_of(index)
        return _NOTHING if found is None else found.value

    return output


def _failure_bytes(failure: Failure | None) -> bytes:
    return _NOTHING if failure is None else to_status(failure).SerializeToString(deterministic=True)
