"""A service that is there already as a participant: its methods found in its descriptors, described and called like actions.

It is promised what a participant without a barrier is: calls come at least once, and an undo may come for what was never done. The service
tells them apart by the key.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.rpc.code_pb2 import Code

from coordinator.core.effects import CallParticipant
from coordinator.services import ExistingService, ServiceAction
from participant_sdk.definitions.complaints import Scope, suggest
from participant_sdk.definitions.expressions import BOOL, EvaluationError, Expressions, MistakesError, Program, Wanted
from participant_sdk.definitions.message_types import MessageTypes, UnusableDescriptorsError
from participant_sdk.definitions.problems import Problem
from participant_sdk.descriptors import closed_descriptors
from saga.v1 import participant_pb2

CALL_TYPE: Final = "saga.service.Call"
"""A message of ours: what an expression can read of the call itself."""
_CALL_FIELDS: Final = ("key", "execute_key", "saga_id", "step_id")
_NOTHING: Final = b""
"""The default message, serialised: what stands for an output that nobody knows."""
_LENGTH_DELIMITED: Final = 2
"""Wire type of texts, https://protobuf.dev/programming-guides/encoding/."""

_INPUT: Final = "input"
_OUTPUT: Final = "output"
_KNOWN: Final = "known"
_CALL: Final = "call"

_Input = Callable[[CallParticipant], bytes]


class ServiceInvalidError(ValueError):
    """The service has not what it is configured for; carries every problem at once."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.description}" for problem in problems))
        self.problems = problems


class UndoInputError(Exception):
    """What a compensation would be asked for cannot be made. The message is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionPlan:
    """How one action is called."""

    described: participant_pb2.ActionDescription
    execute: str
    """Path on the wire. Example: "/warehouse.v1.Warehouse/Reserve"."""
    compensate: str = ""
    """Path on the wire; empty: nothing undoes it."""
    compensate_input: _Input = lambda call: call.input.value
    """What undoes it is asked with. Raises UndoInputError."""
    compensate_reply: type[Message] | None = None
    """What undoes it returns; None: nothing undoes it."""
    nothing_to_undo: frozenset[int] = frozenset()
    """Status codes by which what undoes it says that there is nothing to undo."""
    key_tag: bytes = b""
    """What is put before the key to make it a field of the message; empty: the key is no field."""

    def execute_input(self, call: CallParticipant) -> bytes:
        """What does it is asked with. A field that comes twice is what it was the last time: so the key needs no message class."""
        if not self.key_tag:
            return call.input.value
        key = call.key.encode()
        return b"".join((call.input.value, self.key_tag, _varint(len(key)), key))

    def find_unreadable(self, reply: bytes) -> str:
        """Why the answer of what undoes it cannot be what it returns (R6); empty: it can."""
        if self.compensate_reply is None:
            return "nothing undoes it"
        try:
            self.compensate_reply.FromString(reply)
        except DecodeError as error:
            return f"the answer cannot be decoded as {self.compensate_reply.DESCRIPTOR.full_name}: {error}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    """A service of which every method that is used was found."""

    description: participant_pb2.ParticipantDescription
    """As participants with the SDK describe themselves."""
    actions: Mapping[str, ActionPlan]
    """By name."""


def compile_service(name: str, service: ExistingService, descriptors: FileDescriptorSet) -> ServicePlan:
    """Finds what is configured in the descriptors. Raises ServiceInvalidError with every problem at once; their fields are paths below the
    participant, like "actions.reserve.execute".
    """
    try:
        types = MessageTypes(FileDescriptorSet(file=[*descriptors.file, _call_file()]))
    except UnusableDescriptorsError as error:
        raise ServiceInvalidError((Problem("descriptors", str(error)),)) from error
    compiler = _Compiler(types)
    actions = {action_name: compiler.compile(action_name, action) for action_name, action in service.actions.items()}
    if compiler.problems:
        raise ServiceInvalidError(tuple(compiler.problems))
    return ServicePlan(
        description=participant_pb2.ParticipantDescription(
            name=name,
            actions=[plan.described for plan in actions.values()],
            descriptors=closed_descriptors(compiler.messages),
            guarantee=participant_pb2.GUARANTEE_AT_LEAST_ONCE,
        ),
        actions=actions,
    )


class _Compiler:
    """Finds the methods of one service after the other, and collects what is wrong."""

    def __init__(self, types: MessageTypes) -> None:
        self.problems: list[Problem] = []
        self.messages: list[Descriptor] = []
        """What the actions take and return."""
        self._types = types
        self._expressions = Expressions(types)

    def compile(self, name: str, action: ServiceAction) -> ActionPlan:
        path = f"actions.{name}"
        execute = self._method(f"{path}.execute", action.execute)
        compensate = self._method(f"{path}.compensate", action.compensate) if action.compensate else None
        described = participant_pb2.ActionDescription(
            name=name, compensatable=bool(action.compensate), effect=participant_pb2.EFFECT_EXTERNAL
        )
        plan = ActionPlan(described=described, execute=f"/{action.execute}")
        if execute is None:
            return plan
        described.input_type, described.output_type = execute.input_type.full_name, execute.output_type.full_name
        self.messages += (execute.input_type, execute.output_type)
        if action.key_field:
            plan = replace(plan, key_tag=self._key_tag(f"{path}.key_field", action.key_field, execute.input_type))
        if compensate is None:
            return plan
        return replace(
            plan,
            compensate=f"/{action.compensate}",
            compensate_input=self._compensate_input(path, action, execute, compensate),
            compensate_reply=self._types.get(compensate.output_type.full_name),
            nothing_to_undo=frozenset(Code.Value(status) for status in action.nothing_to_undo),
        )

    def _method(self, path: str, text: str) -> MethodDescriptor | None:
        service_name, _, method_name = text.partition("/")
        try:
            service = self._types.pool.FindServiceByName(service_name)
        except KeyError:
            known = _services_in(self._types.files, self._types.pool)
            self._tell(path, f'there is no service "{service_name}" in the descriptors{suggest(service_name, known)}')
            return None
        method: MethodDescriptor | None = service.methods_by_name.get(method_name)
        if method is None:
            told = suggest(method_name, service.methods_by_name.keys(), called="it has")
            self._tell(path, f'service "{service_name}" has no method "{method_name}"{told}')
        elif method.client_streaming or method.server_streaming:
            self._tell(path, f'expected a unary method, "{text}" streams {_streams_of(method)}')
            return None
        return method

    def _key_tag(self, path: str, name: str, message: Descriptor) -> bytes:
        field: FieldDescriptor | None = message.fields_by_name.get(name)
        if field is None:
            self._tell(path, f'{message.full_name} has no field "{name}"{suggest(name, message.fields_by_name.keys(), called="it has")}')
            return b""
        if field.type != FieldDescriptor.TYPE_STRING or field.is_repeated:
            self._tell(path, f'expected a text field, "{name}" of {message.full_name} is none')
            return b""
        return _varint(field.number << 3 | _LENGTH_DELIMITED)

    def _compensate_input(self, path: str, action: ServiceAction, execute: MethodDescriptor, compensate: MethodDescriptor) -> _Input:
        taken, wanted = execute.input_type.full_name, compensate.input_type.full_name
        text = action.compensate_input or _INPUT
        if text in (_INPUT, _OUTPUT):
            found = taken if text == _INPUT else execute.output_type.full_name
            if found != wanted:
                more = "" if action.compensate_input else "; write compensate_input, an expression over input and output"
                self._tell(f"{path}.compensate_input", f'"{action.compensate}" takes a {wanted}, "{text}" is a {found}{more}')
            return _copy_of(text)
        scope = Scope(
            container=compensate.input_type.file.package,
            variables={_INPUT: taken, _OUTPUT: execute.output_type.full_name, _CALL: CALL_TYPE, _KNOWN: BOOL},
            types=self._types,
        )
        try:
            program = self._expressions.compile(
                text, scope=scope, wanted=Wanted(type_name=wanted, because=f'"{action.compensate}" takes it')
            )
        except MistakesError as error:
            for mistake in error.mistakes:
                self._tell(f"{path}.compensate_input", mistake)
            return _copy_of(_INPUT)
        return _evaluated(program, self._types.get(CALL_TYPE))

    def _tell(self, path: str, description: str) -> None:
        self.problems.append(Problem(path, description))


def _copy_of(name: str) -> _Input:
    if name == _INPUT:
        return lambda call: call.input.value
    return lambda call: _NOTHING if call.output is None else call.output.value


def _evaluated(program: Program, call_class: type[Message]) -> _Input:
    """Reads only what the expression refers to."""
    readers: Mapping[str, Callable[[CallParticipant], bytes | bool]] = {
        _INPUT: _copy_of(_INPUT),
        _OUTPUT: _copy_of(_OUTPUT),
        _KNOWN: lambda call: call.output is not None,
        _CALL: lambda call: _call_of(call, call_class).SerializeToString(),
    }
    read = tuple((name, readers[name]) for name in program.variables)

    def made(call: CallParticipant) -> bytes:
        try:
            return program.evaluate({name: reader(call) for name, reader in read})
        except EvaluationError as error:
            raise UndoInputError(str(error)) from error

    return made


def _call_of(call: CallParticipant, call_class: type[Message]) -> Message:
    values = (call.key, call.execute_key, call.saga_id, call.attempt.step_id)
    return call_class(**dict(zip(_CALL_FIELDS, values, strict=True)))


def _call_file() -> FileDescriptorProto:
    package, _, name = CALL_TYPE.rpartition(".")
    file = FileDescriptorProto(name="saga/service/call.proto", package=package, syntax="proto3")
    message = file.message_type.add(name=name)
    for number, field in enumerate(_CALL_FIELDS, start=1):
        message.field.add(name=field, number=number, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL)
    return file


def _services_in(files: FileDescriptorSet, pool: DescriptorPool) -> Iterator[str]:
    for file in files.file:
        yield from (service.full_name for service in pool.FindFileByName(file.name).services_by_name.values())


def _streams_of(method: MethodDescriptor) -> str:
    both = method.client_streaming and method.server_streaming
    return "both ways" if both else "requests" if method.client_streaming else "responses"


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
