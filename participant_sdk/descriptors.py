"""Descriptors of message types, closed over everything that they import."""

from collections.abc import Iterable
from typing import Final

from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

WELL_KNOWN_PREFIX: Final = "google/protobuf/"
"""Files that everybody has; they are left out."""
_DERIVED: Final = ".payload.proto"
"""How files end that hold the type of one class."""


class DescriptorConflictError(TypeError):
    """Two types have one name, so that nobody could tell by which of them a message was written."""


def closed_descriptors(messages: Iterable[Descriptor]) -> FileDescriptorSet:
    """The files of `messages` and all that they import, each once and after its imports; google.protobuf is left out.

    Raises DescriptorConflictError.
    """
    ordered: dict[str, FileDescriptor] = {}
    for one in messages:
        _add_after_imports(one.file, ordered)
    closed = FileDescriptorSet()
    homes: dict[str, str] = {}
    for file in ordered.values():
        for message in file.message_types_by_name.values():
            home = homes.setdefault(message.full_name, file.name)
            if home != file.name:
                raise DescriptorConflictError(
                    f"two types that are named {message.full_name}, in {home} and in {file.name}; name one with @payload(…)"
                )
        closed.file.append(proto_of(file))
    return closed


def _add_after_imports(file: FileDescriptor, ordered: dict[str, FileDescriptor]) -> None:
    if file.name.startswith(WELL_KNOWN_PREFIX):
        return
    known = ordered.get(file.name)
    if known is file:
        return
    # Each pool has files of its own, so what is imported is looked at as well: it may differ where the file itself does not.
    for imported in file.dependencies:
        _add_after_imports(imported, ordered)
    if known is None:
        ordered[file.name] = file
    elif normal_form(proto_of(known)) != normal_form(proto_of(file)):
        if not file.name.endswith(_DERIVED):
            raise DescriptorConflictError(f"types of two files that are both called {file.name}, and differ")
        raise DescriptorConflictError(f"two types that are named {file.name.removesuffix(_DERIVED)}, and differ; name one with @payload(…)")


def proto_of(file: FileDescriptor) -> FileDescriptorProto:
    """What the file says."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def normal_form(file: FileDescriptorProto) -> FileDescriptorProto:
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
        if field.HasField("json_name") and isinstance(field.name, str) and field.json_name == _default_json_name(field.name):
            field.ClearField("json_name")


def _default_json_name(name: str) -> str:
    """Underscores go, and the letter behind each is a capital. Source: the JSON mapping of proto3."""
    first, *others = name.split("_")
    return first + "".join(other[:1].upper() + other[1:] for other in others)
