"""Saga definitions: from the message that is registered to the plan that the core follows, or to everything that is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError, EncodeError, Message

from coordinator.codec.definition_rules import Problem, find_problems, predecessors_of
from coordinator.codec.message_types import MessageTypes, UnusableDescriptorsError
from coordinator.codec.values import micros_of
from coordinator.core.plan import Expression, OutputCheck, RetryPolicy, SagaPlan, StepPlan, Values
from coordinator.core.values import DefinitionKey, Payload, StepId, StepKind
from saga.v1 import coordinator_pb2, saga_pb2

_PLAIN_RETRY = RetryPolicy()
_PLAIN_STEP = StepPlan(id=StepId(""), action="", input=lambda values: values.input)


class DefinitionInvalidError(ValueError):
    """The definition cannot be used; carries every problem at once."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.description}" for problem in problems))
        self.problems = problems


class InputInvalidError(ValueError):
    """The input of a start is not what the definition takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledDefinition:
    """A definition that was found right, with everything that is made from it once."""

    key: DefinitionKey
    message: saga_pb2.SagaDefinition
    descriptors: FileDescriptorSet
    content: bytes
    """Deterministic serialisation of definition and descriptors: equal bytes are the same definition."""
    plan: SagaPlan
    input_class: type[Message]

    def canonical_input(self, given: Any) -> Payload:
        """The input in the coordinator's own serialisation, so that two encodings of one message are one input (R3).

        Raises InputInvalidError if it has another type or cannot be decoded.
        """
        expected, found = self.message.input_type, given.TypeName()
        if found != expected:
            raise InputInvalidError(f"expected a {expected}, found {found or 'no type'}")
        try:
            message = self.input_class.FromString(given.value)
        except DecodeError as error:
            raise InputInvalidError(f"cannot be decoded as {expected}: {error}") from error
        missing = _find_missing(message)
        if missing:
            raise InputInvalidError(f"cannot be used as {expected}: {missing}")
        return Payload(expected, message.SerializeToString(deterministic=True))


def compile_definition(definition: saga_pb2.SagaDefinition, descriptors: FileDescriptorSet) -> CompiledDefinition:
    """Checks a definition and compiles it. Raises DefinitionInvalidError with every problem at once."""
    try:
        types = MessageTypes(descriptors)
    except UnusableDescriptorsError as error:
        raise DefinitionInvalidError((Problem("descriptors", str(error)),)) from error
    problems = find_problems(definition, types)
    if problems:
        raise DefinitionInvalidError(tuple(problems))
    content = coordinator_pb2.RegisterDefinitionRequest(definition=definition, descriptors=types.files)
    return CompiledDefinition(
        key=DefinitionKey(definition.name, definition.version),
        message=definition,
        descriptors=types.files,
        content=content.SerializeToString(deterministic=True),
        plan=_plan_of(definition, types),
        input_class=types.get(definition.input_type),
    )


def compile_content(content: bytes) -> CompiledDefinition:
    """Compiles what was stored as `CompiledDefinition.content`. Raises ValueError if it cannot be any more."""
    try:
        stored = coordinator_pb2.RegisterDefinitionRequest.FromString(content)
    except DecodeError as error:
        raise ValueError(f"stored definition cannot be decoded: {error}") from error
    return compile_definition(stored.definition, stored.descriptors)


def _plan_of(definition: saga_pb2.SagaDefinition, types: MessageTypes) -> SagaPlan:
    index_of = {step.id: index for index, step in enumerate(definition.steps)}
    return SagaPlan(
        key=DefinitionKey(definition.name, definition.version),
        steps=tuple(_step_plan(step, definition.defaults, index_of, types) for step in definition.steps),
        predecessors=tuple(tuple(sorted(index_of[name] for name in before)) for before in predecessors_of(definition)),
        output=_expression(definition.output, index_of) if definition.output else None,
        time_limit_us=micros_of(definition.time_limit) if definition.HasField("time_limit") else None,
    )


def _step_plan(
    step: saga_pb2.StepDefinition, defaults: saga_pb2.StepDefaults, index_of: Mapping[str, int], types: MessageTypes
) -> StepPlan:
    return StepPlan(
        id=StepId(step.id),
        action=step.action,
        input=_expression(step.input or "input", index_of),
        kind=StepKind(step.kind) if step.kind else StepKind.COMPENSATABLE,
        execute_retry=_retry(step, defaults, "execute_retry"),
        compensate_retry=_retry(step, defaults, "compensate_retry"),
        attempt_timeout_us=_duration(step, defaults, "attempt_timeout", _PLAIN_STEP.attempt_timeout_us),
        execute_time_limit_us=_duration(step, defaults, "execute_time_limit", _PLAIN_STEP.execute_time_limit_us),
        compensate_time_limit_us=_duration(step, defaults, "compensate_time_limit", _PLAIN_STEP.compensate_time_limit_us),
        check_output=_output_check(step.output_type, types.get(step.output_type)),
    )


def _expression(text: str, index_of: Mapping[str, int]) -> Expression:
    if text == "input":
        return lambda values: values.input
    index = index_of[text]

    def output(values: Values) -> Payload:
        return values.output_of(index)

    return output


def _output_check(expected: str, message_class: type[Message]) -> OutputCheck:
    def check(output: Payload) -> str:
        if output.type_name != expected:
            return f"expected an output of type {expected}, found {output.type_name or 'none'}"
        try:
            message = message_class.FromString(output.value)
        except DecodeError as error:
            return f"the output cannot be decoded as {expected}: {error}"
        missing = _find_missing(message)
        return f"the output cannot be used as {expected}: {missing}" if missing else ""

    return check


def _find_missing(message: Message) -> str:
    """Which required fields (proto2 has them) are not set; empty: none. Without them it cannot be encoded, nor read in most languages."""
    if message.IsInitialized():
        return ""
    try:
        message.SerializeToString()
    except EncodeError as error:
        return str(error)  # it names them
    return "required fields are missing"


def _retry(step: saga_pb2.StepDefinition, defaults: saga_pb2.StepDefaults, field: str) -> RetryPolicy:
    given = _given(step, defaults, field)
    if given is None:
        return _PLAIN_RETRY
    policy: saga_pb2.RetryPolicy = getattr(given, field)
    return RetryPolicy(
        attempts_max=policy.max_attempts,
        initial_backoff_us=micros_of(policy.initial_backoff) if policy.HasField("initial_backoff") else _PLAIN_RETRY.initial_backoff_us,
        multiplier=policy.multiplier or _PLAIN_RETRY.multiplier,
        backoff_max_us=micros_of(policy.max_backoff) if policy.HasField("max_backoff") else _PLAIN_RETRY.backoff_max_us,
        non_retryable_codes=frozenset(policy.non_retryable_codes),
    )


def _duration(step: saga_pb2.StepDefinition, defaults: saga_pb2.StepDefaults, field: str, plain_us: int) -> int:
    given = _given(step, defaults, field)
    return plain_us if given is None else micros_of(getattr(given, field))


def _given(
    step: saga_pb2.StepDefinition, defaults: saga_pb2.StepDefaults, field: str
) -> saga_pb2.StepDefinition | saga_pb2.StepDefaults | None:
    """The message that sets the field: the step, else the defaults, else none."""
    if step.HasField(field):  # type: ignore[arg-type] # the name is one of the fields that both messages have
        return step
    return defaults if defaults.HasField(field) else None  # type: ignore[arg-type]
