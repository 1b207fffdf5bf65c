"""What differs between the message types of two definitions, where both know a message by the same name."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

_Type = FieldDescriptorProto.Type
_COMPATIBLE: Final = (
    frozenset({_Type.TYPE_INT32, _Type.TYPE_UINT32, _Type.TYPE_INT64, _Type.TYPE_UINT64, _Type.TYPE_BOOL, _Type.TYPE_ENUM}),
    frozenset({_Type.TYPE_SINT32, _Type.TYPE_SINT64}),
    frozenset({_Type.TYPE_FIXED32, _Type.TYPE_SFIXED32}),
    frozenset({_Type.TYPE_FIXED64, _Type.TYPE_SFIXED64}),
    frozenset({_Type.TYPE_STRING, _Type.TYPE_BYTES}),
)
"""Types that share an encoding. Source: "Updating A Message Type" of the protobuf language guide."""


class MessageChange(NamedTuple):
    """One field of a message that differs."""

    message: str
    """Full name."""
    number: int
    before: str
    """Example: "string sku". Empty if it was not there."""
    after: str
    is_compatible: bool
    """Whether each side can still read what the other wrote."""


def compare_messages(
    first_types: Iterable[str], second_types: Iterable[str], first: FileDescriptorSet, second: FileDescriptorSet
) -> Iterator[MessageChange]:
    """The fields that differ in messages that both definitions use, directly or inside others."""
    before, after = _used(first_types, _messages_of(first)), _used(second_types, _messages_of(second))
    for name in before:
        if name in after:
            yield from _compare_fields(name, before[name], after[name])


def _compare_fields(name: str, first: DescriptorProto, second: DescriptorProto) -> Iterator[MessageChange]:
    before, after = ({field.number: field for field in message.field} for message in (first, second))
    for number in sorted({*before, *after}):
        old, new = before.get(number), after.get(number)
        was, becomes = _shown(old), _shown(new)
        if was != becomes:
            yield MessageChange(name, number, was, becomes, is_compatible=old is None or new is None or _share_encoding(old, new))


def _share_encoding(old: FieldDescriptorProto, new: FieldDescriptorProto) -> bool:
    if old.label != new.label and FieldDescriptorProto.LABEL_REPEATED in {old.label, new.label}:
        return False
    if old.type == new.type:
        return old.type_name == new.type_name or old.type == _Type.TYPE_ENUM
    return any(old.type in group and new.type in group for group in _COMPATIBLE)


def _shown(field: FieldDescriptorProto | None) -> str:
    if field is None:
        return ""
    type_name = field.type_name.removeprefix(".") or _Type.Name(field.type).removeprefix("TYPE_").lower()
    label = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else "optional " if field.proto3_optional else ""
    return f"{label}{type_name} {field.name}"


def _messages_of(files: FileDescriptorSet) -> dict[str, DescriptorProto]:
    found: dict[str, DescriptorProto] = {}
    for file in files.file:
        waiting = [(file.package, message) for message in file.message_type]
        while waiting:
            scope, message = waiting.pop()
            name = f"{scope}.{message.name}" if scope else message.name
            found[name] = message
            waiting += [(name, nested) for nested in message.nested_type]
    return found


def _used(types: Iterable[str], known: dict[str, DescriptorProto]) -> dict[str, DescriptorProto]:
    """The messages of these names and those inside them, in the order in which they are met."""
    found: dict[str, DescriptorProto] = {}
    waiting = list(types)
    while waiting:
        name = waiting.pop(0)
        if name in found or name not in known:
            continue
        found[name] = known[name]
        waiting += [field.type_name.removeprefix(".") for field in known[name].field if field.type_name]
    return found
