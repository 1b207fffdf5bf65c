"""Message types that came with a definition: a descriptor pool of its own, never the default one."""

from collections.abc import Iterable

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
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_WELL_KNOWN = {
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
    )
}
"""Files of google.protobuf that need not be sent. Whoever sends them registers the same definition as who does not: ours are used."""


class UnusableDescriptorsError(ValueError):
    """The descriptors contradict each other, or miss an import."""


class MessageTypes:
    """Finds message classes by full name in a set of descriptors."""

    def __init__(self, descriptors: FileDescriptorSet) -> None:
        given = {file.name: _normal_form(file) for file in descriptors.file}
        if len(given) != len(descriptors.file):
            raise UnusableDescriptorsError("a file is given twice")
        for name in _WELL_KNOWN.keys() & given.keys():
            del given[name]
        self.files = FileDescriptorSet(file=[given[name] for name in sorted(given)])
        """The descriptors without what says nothing about types, in one order, so that equal sets have equal bytes."""
        self._pool = DescriptorPool()
        self._add_all(given)

    def find(self, full_name: str) -> type[Message] | None:
        """The class of that name; None if there is none."""
        try:
            return GetMessageClass(self._pool.FindMessageTypeByName(full_name))
        except KeyError:
            return None

    def get(self, full_name: str) -> type[Message]:
        """The class of that name. Raises KeyError if there is none."""
        found = self.find(full_name)
        if found is None:
            raise KeyError(full_name)
        return found

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

    def _add(self, file: FileDescriptorProto) -> None:
        try:
            self._pool.AddSerializedFile(file.SerializeToString())
        except TypeError as error:
            raise UnusableDescriptorsError(f"{file.name} cannot be used: {error}") from error


def _normal_form(file: FileDescriptorProto) -> FileDescriptorProto:
    """The file without what compilers differ in: comments, and JSON names that say no more than the field's own name."""
    normal = FileDescriptorProto()
    normal.CopyFrom(file)
    normal.ClearField("source_code_info")
    _clear_default_json_names(normal.extension)
    for message in normal.message_type:
        _clear_in_message(message)
    return normal


def _clear_in_message(message: DescriptorProto) -> None:
    _clear_default_json_names(message.field)
    _clear_default_json_names(message.extension)
    for nested in message.nested_type:
        _clear_in_message(nested)


def _clear_default_json_names(fields: Iterable[FieldDescriptorProto]) -> None:
    for field in fields:
        if field.HasField("json_name") and field.json_name == _default_json_name(field.name):
            field.ClearField("json_name")


def _default_json_name(name: str) -> str:
    """Underscores go, and the letter behind each is a capital. Source: the JSON mapping of proto3."""
    first, *others = name.split("_")
    return first + "".join(other[:1].upper() + other[1:] for other in others)
