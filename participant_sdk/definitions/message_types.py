"""Message types that came with a definition: a descriptor pool of its own, never the default one."""

from collections.abc import Iterable, Iterator
from typing import Final

from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

from participant_sdk.descriptors import normal_form

_WELL_KNOWN: Final = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (
        any_pb2,
        api_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        source_context_pb2,
        struct_pb2,
        timestamp_pb2,
        type_pb2,
        wrappers_pb2,
        status_pb2,
    )
}
"""Files that need not be sent: those of google.protobuf, and google.rpc.Status, which is what went wrong with a saga. Whoever sends them
registers the same definition as who does not: ours are used."""


RESULT_TYPE: Final = "saga.expression.Result"
"""A message of ours that every pool has. It can hold what is no message in an expression but a value of the language."""
RESULT_FIELDS: Final = {
    f"google.protobuf.{name}": f"result_{name.lower()}"
    for name in (
        *(
            "Any",
            "BoolValue",
            "BytesValue",
            "DoubleValue",
            "Duration",
            "FloatValue",
            "Int32Value",
            "Int64Value",
            "ListValue",
            "StringValue",
        ),
        *("Struct", "Timestamp", "UInt32Value", "UInt64Value", "Value"),
    )
}
"""Its fields by the full names of their types."""


class UnusableDescriptorsError(ValueError):
    """The descriptors contradict each other, or miss an import."""


class MessageTypes:
    """Finds message classes by full name in a set of descriptors."""

    def __init__(self, descriptors: FileDescriptorSet) -> None:
        for file in descriptors.file:
            _check_text(file)
        given = {file.name: normal_form(file) for file in descriptors.file}
        if len(given) != len(descriptors.file):
            raise UnusableDescriptorsError("a file is given twice")
        for name in _WELL_KNOWN.keys() & given.keys():
            del given[name]
        self.files: FileDescriptorSet = FileDescriptorSet(file=[given[name] for name in sorted(given)])
        """The descriptors without what says nothing about types, in one order, so that equal sets have equal bytes."""
        self.pool: DescriptorPool = DescriptorPool()
        """Knows these types and no others."""
        self._add_all(given)

    def find(self, full_name: str) -> type[Message] | None:
        """The class of that name; None if there is none."""
        found = self.find_descriptor(full_name)
        return GetMessageClass(found) if found is not None else None

    def find_descriptor(self, full_name: str) -> Descriptor | None:
        """The descriptor of that name; None if there is none."""
        try:
            return self.pool.FindMessageTypeByName(full_name)
        except KeyError:
            return None

    def get(self, full_name: str) -> type[Message]:
        """The class of that name. Raises KeyError if there is none."""
        found = self.find(full_name)
        if found is None:
            raise KeyError(full_name)
        return found

    def messages(self) -> Iterator[Descriptor]:
        """Every message that came with the definition, the nested ones too."""
        for file in self._own_files():
            yield from _with_nested(file.message_types_by_name.values())

    def enums(self) -> Iterator[EnumDescriptor]:
        """Every enum that came with the definition, the nested ones too."""
        for file in self._own_files():
            yield from file.enum_types_by_name.values()
        for message in self.messages():
            yield from message.enum_types

    def _own_files(self) -> Iterator[FileDescriptor]:
        return (self.pool.FindFileByName(file.name) for file in self.files.file)

    def _add_all(self, given: dict[str, FileDescriptorProto]) -> None:
        added: set[str] = set()
        remaining = {**{name: FileDescriptorProto.FromString(content) for name, content in _WELL_KNOWN.items()}, **given}
        while remaining:
            ready = [name for name, file in remaining.items() if added.issuperset(file.dependency)]
            if not ready:
                missing = {imported for file in remaining.values() for imported in file.dependency} - added - remaining.keys()
                what = f"imports are missing: {', '.join(sorted(missing))}" if missing else "files import each other in a circle"
                raise UnusableDescriptorsError(f"expected every file with everything that it imports; {what}")
            for name in ready:
                self._add(remaining.pop(name))
                added.add(name)
        self._add(_result_file())

    def _add(self, file: FileDescriptorProto) -> None:
        try:
            self.pool.AddSerializedFile(file.SerializeToString())
        except TypeError as error:
            raise UnusableDescriptorsError(f"{file.name} cannot be used: {error}") from error


def _result_file() -> FileDescriptorProto:
    package, _, name = RESULT_TYPE.rpartition(".")
    file = FileDescriptorProto(name="saga/expression/result.proto", package=package, syntax="proto3")
    file.dependency.extend(f"google/protobuf/{known}.proto" for known in ("any", "duration", "struct", "timestamp", "wrappers"))
    message = file.message_type.add(name=name)
    for number, (type_name, field) in enumerate(RESULT_FIELDS.items(), start=1):
        kind, label = FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.LABEL_OPTIONAL
        message.field.add(name=field, number=number, type=kind, label=label, type_name=f".{type_name}")
    return file


def _with_nested(messages: Iterable[Descriptor]) -> Iterator[Descriptor]:
    for message in messages:
        yield message
        yield from _with_nested(message.nested_types)


def _check_text(file: FileDescriptorProto) -> None:
    # Descriptors are proto2, where a text that is no UTF-8 is decoded all the same, and then is no text but bytes.
    if not all(isinstance(name, str) for name in (file.name, file.package, *file.dependency)):
        raise UnusableDescriptorsError(f"expected names of files and packages in UTF-8, found others in {file.name!r}")
    _check_fields(file.extension, file.name)
    for message in file.message_type:
        _check_message(message, file.name)


def _check_message(message: DescriptorProto, file_name: str) -> None:
    _check_fields((*message.field, *message.extension), file_name)
    _check_oneofs(message, file_name)
    for nested in message.nested_type:
        _check_message(nested, file_name)


def _check_fields(fields: Iterable[FieldDescriptorProto], file_name: str) -> None:
    # protoc writes no such thing and Python takes it, but the library for expressions dies of it, and the process with it.
    for field in fields:
        if field.label == FieldDescriptorProto.LABEL_REPEATED and field.HasField("default_value"):
            raise UnusableDescriptorsError(f"{file_name} cannot be used: field {field.name!r} is repeated and has a default value")


def _check_oneofs(message: DescriptorProto, file_name: str) -> None:
    # As above: the library for expressions then knows none of the types of the file, and says so on stderr only.
    oneofs = [field.oneof_index if field.HasField("oneof_index") else None for field in message.field]
    begun = [oneof for oneof, before in zip(oneofs, [None, *oneofs], strict=False) if oneof is not None and oneof != before]
    if len(begun) != len(set(begun)):
        raise UnusableDescriptorsError(
            f"{file_name} cannot be used: the fields of a oneof of message {message.name!r} do not follow each other"
        )
