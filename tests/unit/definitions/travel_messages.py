"""Messages with a field of every kind, written as in a .proto file, for the tests of expressions."""

import re
from functools import cache
from typing import Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.message import Message

from participant_sdk.definitions.message_types import MessageTypes

TRIP: Final = """
string name = 1; int32 people = 2; int64 cents = 3; uint32 rooms = 4; double rate = 5; float share = 6; bytes scan = 7; bool gift = 8;
Class class = 9; repeated Leg legs = 10; map<string, int64> prices = 11; optional string note = 12; Leg first = 13;
repeated string tags = 14; repeated int64 codes = 15; string card = 16 in pay; int64 cash = 17 in pay; Leg ride = 19 in pay;
map<int64, Leg> by_day = 18;
google.protobuf.Timestamp begin = 20; google.protobuf.Duration stay = 21; google.protobuf.StringValue title = 22;
google.protobuf.Int64Value limit = 23; google.protobuf.Struct extra = 24; google.protobuf.Value any_value = 25;
google.protobuf.ListValue list = 26; google.protobuf.Any packed = 27; google.protobuf.BoolValue sure = 28; uint64 big = 29; Trip inner = 30;
"""
LEG: Final = "string from = 1; string to = 2; int64 cents = 3; repeated string seats = 4;"
BOOKED: Final = "string code = 1; int64 cents = 2;"
_WELL_KNOWN: Final = ("any", "duration", "empty", "struct", "timestamp", "wrappers")
_SCALARS: Final = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
_FIELD: Final = re.compile(r"\s*(repeated |optional |required )?(map<(\w+), (\S+)>|\S+) (\w+) = (\d+)(?: in (\w+))?\s*")


def travel_files() -> FileDescriptorSet:
    """travel.v1.Trip, Leg, Booked, and enum Class {ANY, FIRST}; old.v1.Strict with a required field."""
    file = _file("travel/v1/travel.proto", "travel.v1")
    file.enum_type.append(_enum("Class", "ANY", "FIRST"))
    for name, fields in {"Trip": TRIP, "Leg": LEG, "Booked": BOOKED, "Nothing": ""}.items():
        file.message_type.append(_message(name, fields, file.package))
    old = _file("old/v1/old.proto", "old.v1", syntax="proto2")
    old.message_type.append(_message("Strict", "required string code = 1; optional int32 count = 2;", old.package))
    old.message_type[0].field[1].default_value = "7"
    return FileDescriptorSet(file=[file, old])


@cache
def travel_types() -> MessageTypes:
    return MessageTypes(travel_files())


def made(type_name: str, /, **fields: object) -> Message:
    """A message of travel.v1, or of any package by its full name."""
    return travel_types().get(type_name if "." in type_name else f"travel.v1.{type_name}")(**fields)


def _file(name: str, package: str, syntax: str = "proto3") -> FileDescriptorProto:
    imports = [f"google/protobuf/{known}.proto" for known in _WELL_KNOWN]
    return FileDescriptorProto(name=name, package=package, syntax=syntax, dependency=imports)


def _enum(name: str, *values: str) -> EnumDescriptorProto:
    enum = EnumDescriptorProto(name=name)
    for number, value in enumerate(values):
        enum.value.add(name=value, number=number)
    return enum


def _message(name: str, fields: str, package: str) -> DescriptorProto:
    message = DescriptorProto(name=name)
    for text in filter(str.strip, fields.split(";")):
        match = _FIELD.fullmatch(text)
        assert match is not None, text
        _add_field(message, match, package)
    return message


def _add_field(message: DescriptorProto, match: re.Match[str], package: str) -> None:
    label, kind, key, value, name, number, oneof = match.groups()
    field = message.field.add(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
    if key is not None:
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        for place, (part, part_kind) in enumerate((("key", key), ("value", value)), start=1):
            _set_type(entry.field.add(name=part, number=place, label=FieldDescriptorProto.LABEL_OPTIONAL), part_kind, package)
        kind, label = f"{message.name}.{entry.name}", "repeated "
    _set_type(field, kind, package)
    if label == "repeated ":
        field.label = FieldDescriptorProto.LABEL_REPEATED
    elif label == "required ":
        field.label = FieldDescriptorProto.LABEL_REQUIRED
    if oneof is not None:
        if not message.oneof_decl:
            message.oneof_decl.add(name=oneof)
        field.oneof_index = 0
    elif label == "optional " and package == "travel.v1":
        field.proto3_optional, field.oneof_index = True, 1
        message.oneof_decl.add(name="pay")
        message.oneof_decl.add(name=f"_{name}")


def _set_type(field: FieldDescriptorProto, kind: str, package: str) -> None:
    if kind in _SCALARS:
        field.type = FieldDescriptorProto.Type.ValueType(_SCALARS[kind])
    else:
        field.type = FieldDescriptorProto.TYPE_ENUM if kind == "Class" else FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{kind}" if kind.startswith("google.") else f".{package}.{kind}"
