"""Payloads as JSON: read and written with the message types that the coordinator has for a definition."""

import base64
import json
from collections.abc import Iterator
from typing import Any, Final, TypeVar

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    json_format,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

from saga.v1 import coordinator_pb2

MessageT = TypeVar("MessageT", bound=Message)

TEXT_CHARACTERS_MAX: Final = 200

_WELL_KNOWN: Final = {
    module.DESCRIPTOR.name: module.DESCRIPTOR
    for module in (
        any_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )
}
"""Files that do not travel with definitions."""


class PayloadError(Exception):
    """The JSON is no message of the type; says which field."""


class PayloadTypes:
    """The message types of one definition, in a pool of their own: two definitions may know one name differently."""

    def __init__(self, descriptors: FileDescriptorSet | None = None) -> None:
        """Raises TypeError if the files do not fit together."""
        self._pool: Final = DescriptorPool()
        self._known: Final[set[str]] = set()
        for well_known in _WELL_KNOWN.values():
            self._add_built_in(well_known)
        for file in descriptors.file if descriptors is not None else ():
            self._add(file)
        for own in (coordinator_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR):
            self._add_built_in(own)

    def parse(self, text: str, type_name: str) -> Message:
        """A message from JSON. Raises PayloadError with the path of what is wrong."""
        try:
            message = GetMessageClass(self._pool.FindMessageTypeByName(type_name))()
        except KeyError as error:
            raise PayloadError(f"the definition came without its message type {type_name}") from error
        try:
            return json_format.Parse(text, message, descriptor_pool=self._pool)
        except (json_format.ParseError, ValueError) as error:
            raise PayloadError(f"this is no {type_name} in JSON: {error}") from error

    def to_json(self, message: Message) -> dict[str, object]:
        """A message as an object, field names as in the .proto file. Payloads of unknown types become base64."""
        shown = type(message)()
        shown.CopyFrom(message)
        for packed in _packed_in(shown):
            if not self._can_show(packed):
                _hide(packed)
        content: dict[str, object] = json_format.MessageToDict(shown, preserving_proto_field_name=True, descriptor_pool=self._pool)
        return content

    def from_json(self, content: dict[str, Any], message: MessageT) -> MessageT:
        """What `to_json` made of a message of saga.v1, read back into one. Raises PayloadError."""
        try:
            json_format.ParseDict(content, message, descriptor_pool=self._pool)
        except (json_format.ParseError, TypeError, ValueError) as error:
            raise PayloadError(f"this is no {message.DESCRIPTOR.full_name} in JSON: {error}") from error
        for packed in _packed_in(message):
            _unhide(packed)
        return message

    def to_text(self, payload: any_pb2.Any) -> str:
        """A payload in a few words, for the middle of a line: JSON without its type; the type's name if it is not known."""
        if not self._can_show(payload):
            return payload.TypeName() or "nothing"
        content: dict[str, object] = json_format.MessageToDict(payload, preserving_proto_field_name=True, descriptor_pool=self._pool)
        content.pop("@type", None)
        is_value = payload.TypeName().startswith("google.protobuf.") and content.keys() == {"value"}
        text = json.dumps(content["value"] if is_value else content, ensure_ascii=False)
        return text if len(text) <= TEXT_CHARACTERS_MAX else text[: TEXT_CHARACTERS_MAX - 1] + "…"

    def _can_show(self, packed: any_pb2.Any) -> bool:
        # Tried, not guessed: a payload may hold further payloads, or values that JSON has no words for.
        try:
            json_format.MessageToDict(packed, descriptor_pool=self._pool)
        except (json_format.Error, TypeError, ValueError, DecodeError):
            return False
        return True

    def _add(self, file: FileDescriptorProto) -> None:
        if file.name in self._known:
            return
        self._pool.AddSerializedFile(file.SerializeToString())
        self._known.add(file.name)

    def _add_built_in(self, file: FileDescriptor) -> None:
        if file.name in self._known:
            return
        for imported in file.dependencies:
            self._add_built_in(imported)
        self._pool.AddSerializedFile(file.serialized_pb)
        self._known.add(file.name)


def _packed_in(message: Message) -> Iterator[any_pb2.Any]:
    """Every Any in a message of saga.v1, however deep."""
    if isinstance(message, any_pb2.Any):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in value if field.is_repeated else (value,):
            yield from _packed_in(each)


def _unhide(packed: any_pb2.Any) -> None:
    hidden = struct_pb2.Struct()
    if packed.Unpack(hidden) and hidden.fields.keys() == {"type", "base64"}:
        packed.type_url = f"type.googleapis.com/{hidden.fields['type'].string_value}"
        packed.value = base64.b64decode(hidden.fields["base64"].string_value)


def _hide(packed: any_pb2.Any) -> None:
    hidden = struct_pb2.Struct()
    hidden.update({"type": packed.TypeName(), "base64": base64.b64encode(packed.value).decode("ascii")})
    packed.Pack(hidden)
