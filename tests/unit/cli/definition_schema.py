"""docs/definition.schema.json, made from the descriptor of SagaDefinition, the comments of its .proto file, and what the reader accepts."""

import json
import re
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from coordinator.cli.definition_shape import CODES_FIELD, DURATION, DURATION_PATTERN, STATUS_CODES, STEP_ORDER, short_enum_names
from saga.v1 import saga_pb2

ROOT = Path(__file__).parent.parent.parent.parent
SCHEMA_FILE = ROOT / "docs" / "definition.schema.json"
PROTO_FILE = ROOT / "protos" / "saga" / "v1" / "saga.proto"

REQUIRED = {
    "SagaDefinition": ["name", "version", "input_type", "steps"],
    "StepDefinition": ["id", "action", "input_type", "output_type"],
    "HookDefinition": ["action", "input_type", "output_type"],
}
DESCRIPTORS = {
    "type": "string",
    "description": "Path of a FileDescriptorSet with the message types, relative to this file: buf build -o FILE.binpb writes one.",
}

Schema = dict[str, object]


def made_schema() -> str:
    """The file as it should be."""
    definitions: dict[str, Schema] = {
        "Duration": {"type": "string", "pattern": f"^{DURATION_PATTERN}$", "examples": ["200ms", "10s", "5m", "1h30m"]},
    }
    root = _message(saga_pb2.SagaDefinition.DESCRIPTOR, definitions, _comments())
    properties = root["properties"]
    assert isinstance(properties, dict)
    schema: Schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Saga definition",
        **root,
        "properties": {"descriptors": DESCRIPTORS, **properties},
        "definitions": dict(sorted(definitions.items())),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _message(descriptor: Descriptor, definitions: dict[str, Schema], comments: dict[str, str]) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": comments[descriptor.name],
        "additionalProperties": False,
        "properties": {
            field.name: {"description": comments[f"{descriptor.name}.{field.name}"], **_field(field, definitions, comments)}
            for field in descriptor.fields
        },
    }
    if descriptor.name in REQUIRED:
        schema["required"] = REQUIRED[descriptor.name]
    return schema


def _field(field: FieldDescriptor, definitions: dict[str, Schema], comments: dict[str, str]) -> Schema:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    one = _value(field, definitions, comments)
    return {"type": "array", "items": one} if field.is_repeated else one


def _value(field: FieldDescriptor, definitions: dict[str, Schema], comments: dict[str, str]) -> Schema:
    if field.full_name == CODES_FIELD:
        return {"enum": [*STATUS_CODES, *STATUS_CODES.values()]}
    if field.enum_type is not None:
        full = [value.name for value in field.enum_type.values if value.number]
        return {"enum": [*short_enum_names(field.enum_type), *full]}
    message = field.message_type
    if message is None:
        return {
            "type": {FieldDescriptor.CPPTYPE_STRING: "string", FieldDescriptor.CPPTYPE_BOOL: "boolean"}.get(field.cpp_type)
            or _number(field)
        }
    if message.full_name == STEP_ORDER:
        return {"type": "array", "items": {"type": "string"}}
    if message.full_name != DURATION and message.name not in definitions:
        definitions[message.name] = {}  # before its fields, which may name it again
        definitions[message.name] = _message(message, definitions, comments)
    return {"$ref": f"#/definitions/{message.name}"}


def _number(field: FieldDescriptor) -> str:
    return "number" if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE else "integer"


def _comments() -> dict[str, str]:
    """What the .proto file says of each message, and of each field as "Message.field"."""
    found: dict[str, str] = {}
    message, comment = "", list[str]()
    for line in PROTO_FILE.read_text().splitlines():
        text = line.strip()
        if text.startswith("//"):
            comment.append(text.removeprefix("//").strip())
            continue
        if begun := re.match(r"message (\w+) \{", text):
            message = begun[1]
            found[message] = " ".join(comment)
        elif named := re.match(r"(?:repeated |optional )?[\w.]+(?:<[^>]*>)? (\w+) = \d+;", text):
            found[f"{message}.{named[1]}"] = " ".join(comment)
        comment = []
    return found
