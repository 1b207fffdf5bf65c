"""Types of values in expressions: as the library finds them, as a field wants them, and whether the one fits the other."""

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_GOOGLE: Final = "google.protobuf."


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueType:
    """The type of a value, as far as it matters here."""

    text: str
    """As people write it. Examples: "int", "list(string)", "shop.v1.PlaceOrder"."""
    message: str = ""
    """Full name of the message, of a well-known type too; empty if it is none."""
    is_nullable: bool = False
    """Whether it is one of google.protobuf's wrappers."""
    parts: tuple["ValueType", ...] = ()
    """Of a list its entries; of a map its keys and values."""
    plain: str = ""
    """Of a wrapper what it wraps, of an enum "int"."""


DYN: Final = ValueType(text="dyn")
"""What is known only when it is evaluated: a value of JSON, or in a google.protobuf.Any."""
JSON: Final = ValueType(text="google.protobuf.Value")
"""What a google.protobuf.Value takes: texts, numbers, bools, null, lists, and maps with texts as keys."""
_STRUCT: Final = ValueType(text=f"{_GOOGLE}Struct", parts=(ValueType(text="string"), JSON))
_LIST_VALUE: Final = ValueType(text=f"{_GOOGLE}ListValue", parts=(JSON,))

_PRIMITIVES: Final = ("", "bool", "int", "uint", "double", "string", "bytes")
_WRAPPERS: Final = ("", "BoolValue", "Int64Value", "UInt64Value", "DoubleValue", "StringValue", "BytesValue")
_WELL_KNOWN: Final = ("", "Any", "Timestamp", "Duration")
_WRAPPED: Final = {
    **dict(zip(_WRAPPERS[1:], _PRIMITIVES[1:], strict=True)),
    "Int32Value": "int",
    "UInt32Value": "uint",
    "FloatValue": "double",
}
_SCALARS: Final = {
    **dict.fromkeys((FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT), "double"),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64), "uint"),
    **dict.fromkeys((FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_FIXED64), "uint"),
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
}
"""The others are ints."""


def list_of(entry: ValueType) -> ValueType:
    """A list."""
    return ValueType(text=f"list({entry.text})", parts=(entry,))


def map_of(key: ValueType, value: ValueType) -> ValueType:
    """A map."""
    return ValueType(text=f"map({key.text}, {value.text})", parts=(key, value))


def type_of_result(given: Any) -> ValueType:
    """What the library says of a part of an expression: a `cel.expr.Type`."""
    match given.WhichOneof("kind"):
        case "null":
            return ValueType(text="null")
        case "primitive":
            return ValueType(text=_PRIMITIVES[given.primitive])
        case "wrapper":
            return _wrapper(_WRAPPERS[given.wrapper])
        case "well_known":
            return _message(f"{_GOOGLE}{_WELL_KNOWN[given.well_known]}")
        case "list_type":
            return list_of(type_of_result(given.list_type.elem_type))
        case "map_type":
            return map_of(type_of_result(given.map_type.key_type), type_of_result(given.map_type.value_type))
        case "message_type":
            return _message(given.message_type)
        case "type":
            return ValueType(text="type")
        case _:  # not set is how the library leaves out what is dyn
            return DYN


def type_of_field(field: FieldDescriptor) -> ValueType:
    """What a field takes."""
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return map_of(type_of_field(message.fields_by_name["key"]), type_of_field(message.fields_by_name["value"]))
    entry = _type_of_one(field)
    return list_of(entry) if field.is_repeated else entry


def type_of_message(full_name: str) -> ValueType:
    """What a place takes that takes a message of that name."""
    match full_name.removeprefix(_GOOGLE):
        case "Struct" if full_name.startswith(_GOOGLE):
            return _STRUCT
        case "ListValue" if full_name.startswith(_GOOGLE):
            return _LIST_VALUE
        case "Value" | "Any" if full_name.startswith(_GOOGLE):
            return JSON  # what is put into an Any and is no message becomes a Struct, a ListValue or a wrapper
        case name if full_name.startswith(_GOOGLE) and name in _WRAPPED:
            return _wrapper(name)
    return _message(full_name)


def fits(wanted: ValueType, found: ValueType) -> bool:
    """Whether a value of a type may be put where the other one is wanted; what is known only when it is evaluated may."""
    if "dyn" in (wanted.text, found.text) or found.message == f"{_GOOGLE}Any":
        return True
    if wanted == JSON:
        return found.text != "type"
    if found.text == "null":
        return wanted.is_nullable or wanted.text == "null"
    if len(wanted.parts) == len(found.parts) > 0:
        return all(fits(one, other) for one, other in zip(wanted.parts, found.parts, strict=True))
    return (wanted.plain or wanted.text) == (found.plain or found.text)


def is_known(found: ValueType) -> bool:
    """Whether nothing in it is left for the evaluation."""
    return found.text != "dyn" and all(is_known(part) for part in found.parts)


def _type_of_one(field: FieldDescriptor) -> ValueType:
    if field.enum_type is not None:
        name = str(field.enum_type.full_name)
        return DYN if name == f"{_GOOGLE}NullValue" else ValueType(text=name, plain="int")
    message: Descriptor | None = field.message_type
    return type_of_message(message.full_name) if message is not None else ValueType(text=_SCALARS.get(field.type, "int"))


def _message(full_name: str) -> ValueType:
    return ValueType(text=full_name, message=full_name)


def _wrapper(name: str) -> ValueType:
    plain = _WRAPPED[name]
    return ValueType(text=f"{plain} or null", message=f"{_GOOGLE}{name}", is_nullable=True, plain=plain)
