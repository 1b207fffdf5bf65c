"""The wire contract as Markdown: every service, message and enum of protos/saga/v1 with the comments that stand beside them."""

import importlib.resources
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from grpc_tools import protoc

PROTOS: Final = Path(__file__).parent.parent.parent / "protos"
FILES: Final = ("coordinator.proto", "operator.proto", "participant.proto", "saga.proto")
PACKAGE: Final = "saga.v1"
_NAMED: Final = {"TYPE_MESSAGE", "TYPE_ENUM"}
_SCALARS: Final = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items() if name not in _NAMED}
# Numbers of fields in descriptor.proto, which paths of source positions are made of.
_MESSAGE, _ENUM, _SERVICE, _FIELD, _ONEOF, _NESTED, _NESTED_ENUM, _VALUE, _METHOD, _SYNTAX = 4, 5, 6, 2, 8, 3, 4, 2, 2, 12

Position: TypeAlias = tuple[int, ...]
"""A path in the sense of `SourceCodeInfo.Location`."""


class ProtoFile:
    """One file, with its comments by the path of what they belong to."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self.file = file
        self._comments = {
            tuple(location.path): location.leading_comments or location.trailing_comments for location in file.source_code_info.location
        }

    def comment(self, *path: int) -> str:
        """As a paragraph, its lines joined; what is indented stays a block of its own."""
        return _prose(self._comments.get(path, ""))


def proto_reference() -> str:
    """Markdown, with an anchor for every type."""
    parts: list[str] = []
    for name in FILES:
        file = next(each for each in _read().file if each.name == f"saga/v1/{name}")
        parts += _file(ProtoFile(file))
    return "\n".join(parts)


def _read() -> FileDescriptorSet:
    """Compiled now: the generated Python has no comments."""
    includes = [PROTOS, importlib.resources.files("grpc_tools") / "_proto", *map(Path, sys.path)]
    with TemporaryDirectory() as folder:
        out = Path(folder) / "all.binpb"
        known = [f"-I{path}" for path in includes if (Path(str(path)) / "google").is_dir() or path == PROTOS]
        command = ["protoc", *known, "--include_source_info", f"--descriptor_set_out={out}", *(f"saga/v1/{name}" for name in FILES)]
        if protoc.main(command) != 0:
            raise RuntimeError("protoc does not compile the .proto files")
        return FileDescriptorSet.FromString(out.read_bytes())


def _file(of: ProtoFile) -> Iterator[str]:
    yield f"## {of.file.name}\n"
    yield of.comment(_SYNTAX) + "\n"
    for number, service in enumerate(of.file.service):
        yield from _service(of, service, (_SERVICE, number))
    for number, message in enumerate(of.file.message_type):
        yield from _message(of, message, (_MESSAGE, number), message.name)
    for number, enum in enumerate(of.file.enum_type):
        yield from _enum(of, enum, (_ENUM, number), enum.name)


def _service(of: ProtoFile, service: ServiceDescriptorProto, path: Position) -> Iterator[str]:
    yield from _heading(service.name, of.comment(*path))
    for number, method in enumerate(service.method):
        request = f"{'stream ' if method.client_streaming else ''}{_linked(method.input_type)}"
        response = f"{'stream ' if method.server_streaming else ''}{_linked(method.output_type)}"
        yield f"**{method.name}** ({request}) → {response}\n"
        yield of.comment(*path, _METHOD, number) + "\n"


def _message(of: ProtoFile, message: DescriptorProto, path: Position, name: str) -> Iterator[str]:
    if message.options.map_entry:
        return
    yield from _heading(name, of.comment(*path))
    entries = {f".{PACKAGE}.{name}.{each.name}": each for each in message.nested_type if each.options.map_entry}
    if message.field:
        yield "| Field | Type | |\n|---|---|---|"
        for number, field in enumerate(message.field):
            comment = of.comment(*path, _FIELD, number)
            if field.HasField("oneof_index") and not field.proto3_optional:
                comment = f"One of `{message.oneof_decl[field.oneof_index].name}`. {comment}"
            yield f"| `{field.name}` = {field.number} | {_type(field, entries)} | {_cell(comment)} |"
        yield ""
    for number, nested in enumerate(message.nested_type):
        yield from _message(of, nested, (*path, _NESTED, number), f"{name}.{nested.name}")
    for number, enum in enumerate(message.enum_type):
        yield from _enum(of, enum, (*path, _NESTED_ENUM, number), f"{name}.{enum.name}")


def _enum(of: ProtoFile, enum: EnumDescriptorProto, path: Position, name: str) -> Iterator[str]:
    yield from _heading(name, of.comment(*path))
    yield "| Value | |\n|---|---|"
    for number, value in enumerate(enum.value):
        yield f"| `{value.name}` = {value.number} | {_cell(of.comment(*path, _VALUE, number))} |"
    yield ""


def _heading(name: str, comment: str) -> Iterator[str]:
    yield f"({PACKAGE}.{name.lower()})=\n### {name}\n"
    yield comment + "\n"


def _type(field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
    entry = entries.get(field.type_name)
    if entry is not None:
        key, value = entry.field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    name = _SCALARS.get(field.type) or _linked(field.type_name)
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _linked(type_name: str) -> str:
    """A link if the type is one of ours."""
    name = type_name.removeprefix(f".{PACKAGE}.")
    return f"`{type_name.removeprefix('.')}`" if name == type_name else f"[{name}](#{PACKAGE}.{name.lower()})"


def _prose(comment: str) -> str:
    lines = [line.removeprefix(" ") for line in comment.rstrip("\n").split("\n")]
    parts: list[str] = []
    for line in lines:
        if line.startswith("  ") and parts and not parts[-1].startswith("```"):
            parts.append("```text\n" + line)
        elif line.startswith("  ") and parts:
            parts[-1] += "\n" + line
        elif parts and line and not parts[-1].startswith("```") and parts[-1]:
            parts[-1] += " " + line
        else:
            parts.append(line)
    return "\n\n".join(_escaped(part) if not part.startswith("```") else f"{part}\n```" for part in parts)


def _escaped(prose: str) -> str:
    return re.sub(r"([<\[*_{|])(?=[^`]*(?:`[^`]*`[^`]*)*$)", r"\\\1", prose)


def _cell(text: str) -> str:
    return " ".join(text.replace("```text", "").replace("```", "").split())
