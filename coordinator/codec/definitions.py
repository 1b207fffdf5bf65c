"""Saga definitions: from the message that is registered to the plan that the core follows, or to everything that is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError, EncodeError, Message

from coordinator.codec.expressions import condition_of, expression_of
from coordinator.codec.policies import retry_policy_of
from coordinator.core.plan import ON_FAILURE, ON_SUCCESS, OutputCheck, RetryPolicy, SagaPlan, StepPlan
from coordinator.core.values import DefinitionKey, Payload, StepId, StepKind
from participant_sdk.definitions.durations import micros_of
from participant_sdk.definitions.expressions import can_check_expressions
from participant_sdk.definitions.flow import Copy, Flow
from participant_sdk.definitions.graph import predecessors_of
from participant_sdk.definitions.message_types import MessageTypes, UnusableDescriptorsError
from participant_sdk.definitions.problems import Problem
from participant_sdk.definitions.rules import judge_definition
from saga.v1 import coordinator_pb2, saga_pb2

_PLAIN_RETRY: Final = RetryPolicy()
_PLAIN_STEP: Final = StepPlan(id=StepId(""), action="", input=lambda values: values.input)


class DefinitionInvalidError(ValueError):
    """The definition cannot be used; carries every problem at once."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.description}" for problem in problems))
        self.problems = problems


class InputInvalidError(ValueError):
    """A payload that somebody gave is not what the definition says: the input of a start, or what a person says that a step returned."""


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
    output_type: str
    """Full name of what the saga returns; empty if that is nothing."""
    types: MessageTypes

    def canonical_input(self, given: Any) -> Payload:
        """The input in the coordinator's own serialisation, so that two encodings of one message are one input (R3).

        Raises InputInvalidError if it has another type or cannot be decoded.
        """
        return _canonical(given, self.message.input_type, self.input_class)

    def canonical_step_input(self, step_id: StepId, given: Any) -> Payload:
        """What a person gives a step, or a hook, as its input. Raises InputInvalidError, also if there is no such step."""
        expected = self._call(step_id).input_type
        return _canonical(given, expected, self.types.get(expected))

    def canonical_output(self, step_id: StepId, given: Any) -> Payload:
        """What a person says that a step, or a hook, returned. Raises InputInvalidError, also if there is no such step."""
        expected = self._call(step_id).output_type
        return _canonical(given, expected, self.types.get(expected))

    def canonical_saga_output(self, given: Any) -> Payload:
        """What a person says that the saga returns. Raises InputInvalidError, also if it returns nothing."""
        if not self.output_type:
            raise InputInvalidError(f"saga definition {self.key.name!r} version {self.key.version} returns nothing")
        return _canonical(given, self.output_type, self.types.get(self.output_type))

    def _call(self, step_id: StepId) -> StepPlan:
        plan = self.plan
        index = plan.index_of.get(step_id)
        found = plan.steps[index] if index is not None else {ON_SUCCESS: plan.on_success, ON_FAILURE: plan.on_failure}.get(step_id)
        if found is None:
            raise InputInvalidError(f"saga definition {self.key.name!r} version {self.key.version} has no step {step_id[:80]!r}")
        return found


def compile_definition(definition: saga_pb2.SagaDefinition, descriptors: FileDescriptorSet) -> CompiledDefinition:
    """Checks a definition and compiles it. Raises DefinitionInvalidError with every problem at once."""
    if not can_check_expressions():
        raise RuntimeError("the coordinator needs cel-expr-python; install saga-coordinator[coordinator]")
    try:
        types = MessageTypes(descriptors)
    except UnusableDescriptorsError as error:
        raise DefinitionInvalidError((Problem("descriptors", str(error)),)) from error
    judgement = judge_definition(definition, types)
    if judgement.flow is None:
        raise DefinitionInvalidError(judgement.problems)
    content = coordinator_pb2.RegisterDefinitionRequest(definition=definition, descriptors=types.files)
    return CompiledDefinition(
        key=DefinitionKey(definition.name, definition.version),
        message=definition,
        descriptors=types.files,
        content=content.SerializeToString(deterministic=True),
        plan=_plan_of(definition, types, judgement.flow),
        input_class=types.get(definition.input_type),
        output_type=judgement.flow.output_type,
        types=types,
    )


def compile_content(content: bytes) -> CompiledDefinition:
    """Compiles what was stored as `CompiledDefinition.content`. Raises ValueError if it cannot be any more."""
    try:
        stored = coordinator_pb2.RegisterDefinitionRequest.FromString(content)
    except DecodeError as error:
        raise ValueError(f"stored definition cannot be decoded: {error}") from error
    return compile_definition(stored.definition, stored.descriptors)


def _plan_of(definition: saga_pb2.SagaDefinition, types: MessageTypes, flow: Flow) -> SagaPlan:
    index_of = {step.id: index for index, step in enumerate(definition.steps)}
    output_class = types.get(flow.output_type) if flow.output_type else None
    return SagaPlan(
        key=DefinitionKey(definition.name, definition.version),
        steps=tuple(_step_plan(definition, index, index_of, types, flow) for index in range(len(definition.steps))),
        predecessors=tuple(tuple(sorted(index_of[name] for name in before)) for before in predecessors_of(definition)),
        output=expression_of(flow.output, definition, index_of, types) if flow.output is not None else None,
        check_saga_output=_output_check(flow.output_type, output_class) if output_class is not None else _nothing_is_returned,
        on_success=_hook_plan(ON_SUCCESS, definition, index_of, types, flow),
        on_failure=_hook_plan(ON_FAILURE, definition, index_of, types, flow),
        time_limit_us=micros_of(definition.time_limit) if definition.HasField("time_limit") else None,
    )


def _step_plan(definition: saga_pb2.SagaDefinition, index: int, index_of: Mapping[str, int], types: MessageTypes, flow: Flow) -> StepPlan:
    step, defaults = definition.steps[index], definition.defaults
    source, condition = flow.inputs[index], flow.conditions[index]
    assert source is not None  # a definition without problems has the input of every step compiled
    kind = StepKind(step.kind) if step.kind else StepKind.COMPENSATABLE
    return StepPlan(
        id=StepId(step.id),
        action=step.action,
        input=expression_of(source, definition, index_of, types),
        copies_input=isinstance(source, Copy),
        when=condition_of(condition, index_of) if condition is not None else None,
        kind=kind,
        is_compensated=kind is StepKind.COMPENSATABLE or (kind is StepKind.BEST_EFFORT and not step.without_compensation),
        input_type=step.input_type,
        output_type=step.output_type,
        execute_retry=_retry(step, defaults, "execute_retry"),
        compensate_retry=_retry(step, defaults, "compensate_retry"),
        attempt_timeout_us=_duration(step, defaults, "attempt_timeout", _PLAIN_STEP.attempt_timeout_us),
        execute_time_limit_us=_duration(step, defaults, "execute_time_limit", _PLAIN_STEP.execute_time_limit_us),
        recovery_time_limit_us=_duration(step, defaults, "compensate_time_limit", _PLAIN_STEP.recovery_time_limit_us),
        check_output=_output_check(step.output_type, types.get(step.output_type)),
    )


def _hook_plan(
    hook_id: StepId, definition: saga_pb2.SagaDefinition, index_of: Mapping[str, int], types: MessageTypes, flow: Flow
) -> StepPlan | None:
    """A hook has no way back: it is repeated like a step that must succeed (R16)."""
    if not definition.HasField(hook_id):  # type: ignore[arg-type] # the ids of hooks are the names of their fields
        return None
    hook: saga_pb2.HookDefinition = getattr(definition, hook_id)
    source = {ON_SUCCESS: flow.on_success, ON_FAILURE: flow.on_failure}[hook_id]
    assert source is not None  # as in _step_plan
    return StepPlan(
        id=hook_id,
        action=hook.action,
        input=expression_of(source, definition, index_of, types),
        copies_input=isinstance(source, Copy) and source.name in ("input", *index_of),
        kind=StepKind.RETRIABLE,
        is_compensated=False,
        input_type=hook.input_type,
        output_type=hook.output_type,
        execute_retry=_retry(hook, definition.defaults, "execute_retry"),
        attempt_timeout_us=_duration(hook, definition.defaults, "attempt_timeout", _PLAIN_STEP.attempt_timeout_us),
        recovery_time_limit_us=micros_of(hook.time_limit) if hook.HasField("time_limit") else _PLAIN_STEP.recovery_time_limit_us,
        check_output=_output_check(hook.output_type, types.get(hook.output_type)),
    )


def _canonical(given: Any, expected: str, message_class: type[Message]) -> Payload:
    found = given.TypeName()
    if found != expected:
        raise InputInvalidError(f"expected a {expected}, found {found or 'no type'}")
    try:
        message = message_class.FromString(given.value)
    except DecodeError as error:
        raise InputInvalidError(f"cannot be decoded as {expected}: {error}") from error
    missing = _find_missing(message)
    if missing:
        raise InputInvalidError(f"cannot be used as {expected}: {missing}")
    return Payload(expected, message.SerializeToString(deterministic=True))


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


def _nothing_is_returned(_: Payload) -> str:
    return "the saga returns nothing"


def _find_missing(message: Message) -> str:
    """Which required fields (proto2 has them) are not set; empty: none. Without them it cannot be encoded, nor read in most languages."""
    if message.IsInitialized():
        return ""
    try:
        message.SerializeToString()
    except EncodeError as error:
        return str(error)  # it names them
    return "required fields are missing"


_Call = saga_pb2.StepDefinition | saga_pb2.HookDefinition
_Holder = saga_pb2.StepDefinition | saga_pb2.HookDefinition | saga_pb2.StepDefaults


def _retry(call: _Call, defaults: saga_pb2.StepDefaults, field: str) -> RetryPolicy:
    given = _given(call, defaults, field)
    return _PLAIN_RETRY if given is None else retry_policy_of(getattr(given, field))


def _duration(call: _Call, defaults: saga_pb2.StepDefaults, field: str, plain_us: int) -> int:
    given = _given(call, defaults, field)
    return plain_us if given is None else micros_of(getattr(given, field))


def _given(call: _Call, defaults: saga_pb2.StepDefaults, field: str) -> _Holder | None:
    """The message that sets the field: the step or hook, else the defaults, else none."""
    if call.HasField(field):  # type: ignore[arg-type] # the name is one of the fields that all of these messages have
        return call
    return defaults if defaults.HasField(field) else None  # type: ignore[arg-type]
