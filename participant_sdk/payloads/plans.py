"""How one field of a dataclass or model travels, once that is decided."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message import Message

from participant_sdk.payloads.codecs import Codec, Scalar

ABSENT: Final = object()
"""What is read of a field that is not there."""


class Shape(Enum):
    """How many values a field has."""

    ONE = auto()
    MANY = auto()
    MAP = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPlan:
    """One field."""

    name: str
    """In Python."""
    wire_name: str
    number: int
    shape: Shape
    codec: Codec
    """Of its value, or of each of its values."""
    key: Scalar | None
    """Of a MAP."""
    collection: Callable[[Any], Collection[object]]
    """What is made of the values of MANY."""
    is_optional: bool
    """Whether None is a value of it; that is carried by leaving the field out."""
    default: Callable[[], object] | None
    """Makes its value when it is not there; None: it must be."""

    def write(self, target: Message, value: object) -> None:
        """Writes its value into a message that has none. Raises TypeError or ValueError if the value is none of its type."""
        match self.shape:
            case Shape.ONE:
                self._write_one(target, value)
            case Shape.MANY:
                self._write_many(getattr(target, self.wire_name), value)
            case Shape.MAP:
                self._write_map(getattr(target, self.wire_name), value)

    def read(self, found: Message) -> object:
        """Its value; ABSENT if it is left out, and has no default. Raises ValueError."""
        match self.shape:
            case Shape.ONE:
                if found.HasField(self.wire_name):
                    return self._decoded(getattr(found, self.wire_name))
                if self.default is not None:
                    return self.default()
                return None if self.is_optional else ABSENT
            case Shape.MANY:
                return self.collection(map(self._decoded, getattr(found, self.wire_name)))
            case Shape.MAP:
                assert self.key is not None
                # A lookup in a map of messages makes what is missing: only `items` is safe.
                return {self.key.decode(key): self._decoded(value) for key, value in getattr(found, self.wire_name).items()}

    def describe(self, message: DescriptorProto, message_name: str) -> None:
        """Adds the field to the type of its message."""
        field = message.field.add(name=self.wire_name, number=self.number)
        field.label = FieldDescriptorProto.LABEL_OPTIONAL if self.shape is Shape.ONE else FieldDescriptorProto.LABEL_REPEATED
        if self.key is None:
            _describe_value(field, self.codec)
            if self.shape is Shape.ONE and isinstance(self.codec, Scalar):
                # What `optional` in a `.proto` file becomes: zero can be told from nothing.
                field.proto3_optional = True
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{self.wire_name}")
            return
        entry = message.nested_type.add(name=_entry_name(self.wire_name))
        entry.options.map_entry = True
        for number, (name, codec) in enumerate((("key", self.key), ("value", self.codec)), start=1):
            _describe_value(entry.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL), codec)
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{message_name}.{entry.name}"

    def _write_one(self, target: Message, value: object) -> None:
        if value is None and self.is_optional:
            return
        if isinstance(self.codec, Scalar):
            setattr(target, self.wire_name, self.codec.encode(value))
        else:
            part = getattr(target, self.wire_name)
            part.SetInParent()
            self.codec.fill(part, value)

    def _write_many(self, repeated: Any, value: object) -> None:
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise TypeError(f"expected several values, found {type(value).__name__}")
        codec = self.codec
        if isinstance(codec, Scalar):
            encoded = [codec.encode(each) for each in value]
            # Equal sets must be equal bytes, and their order differs from process to process.
            repeated.extend(sorted(encoded) if isinstance(value, (set, frozenset)) else encoded)
            return
        for each in value:
            codec.fill(repeated.add(), each)
        if isinstance(value, (set, frozenset)):
            repeated.sort(key=_bytes_of)

    def _write_map(self, entries: Any, value: object) -> None:
        assert self.key is not None
        if not isinstance(value, Mapping):
            raise TypeError(f"expected a mapping, found {type(value).__name__}")
        for key, each in value.items():
            if isinstance(self.codec, Scalar):
                entries[self.key.encode(key)] = self.codec.encode(each)
            else:
                self.codec.fill(entries[self.key.encode(key)], each)

    def _decoded(self, found: Any) -> object:
        return self.codec.decode(found) if isinstance(self.codec, Scalar) else self.codec.read(found)


def _describe_value(field: FieldDescriptorProto, codec: Codec) -> None:
    if isinstance(codec, Scalar):
        field.type = codec.proto_type
    else:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{codec.full_name}"


def _entry_name(field_name: str) -> str:
    """As compilers of `.proto` files call the hidden message of a map."""
    return "".join(part[:1].upper() + part[1:] for part in field_name.split("_")) + "Entry"


def _bytes_of(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)
