"""Reads a saga definition from YAML or JSON: the fields of saga.v1.SagaDefinition, in the words that people write them in.

Everything that protobuf's JSON has is read, and besides: durations with any unit ("200ms", "5m", "1h30m"), names of enums without their
prefix ("PIVOT"), status codes by name ("UNAVAILABLE"), and `after` as a plain list. The fields are those of the descriptor, so that a
field that is new in the .proto file is read without a change here.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from typing import Final, NamedTuple, cast

import grpc
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from coordinator.cli.definition_text import Entries, Entry, Items, Node, Scalar
from saga.v1 import saga_pb2

DURATION_PATTERN: Final = r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:d|h|m|s|ms|us))+"
"""A duration as it is written. Each part has a unit, and they add up."""
DURATION_CHARS_MAX: Final = 80
"""Longest duration that is read; longer ones are no durations."""
STATUS_CODES: Final = {code.name: int(code.value[0]) for code in grpc.StatusCode if code is not grpc.StatusCode.OK}
"""What `non_retryable_codes` may name."""
CODES_FIELD: Final = "saga.v1.RetryPolicy.non_retryable_codes"
DURATION: Final = "google.protobuf.Duration"
STEP_ORDER: Final = "saga.v1.StepOrder"
_STEP_IDS: Final = "step_ids"

_UNIT_NANOS: Final = {"d": 86_400 * 10**9, "h": 3_600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3}
_DURATION: Final = re.compile(DURATION_PATTERN)
_DURATION_PART: Final = re.compile(r"([0-9.]+)([a-z]+)")
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?")
_SHOWN_CHARS_MAX: Final = 60


class ShapeProblem(NamedTuple):
    """Something that is no field of a definition, or no value of its field."""

    line: int
    field: str
    """As in the problems of a definition. Example: "definition.steps[2].kind"."""
    description: str


@dataclass(slots=True)
class Shape:
    """What was read."""

    definition: saga_pb2.SagaDefinition = field(default_factory=saga_pb2.SagaDefinition)
    lines: dict[str, int] = field(default_factory=dict)
    """Where each field stands, by its path."""
    problems: list[ShapeProblem] = field(default_factory=list)


def read_shape(node: Node, *, besides: frozenset[str] = frozenset()) -> Shape:
    """A definition as it stands in a text. `besides`: keys at its top that are not the definition's."""
    shape = Shape()
    reader = _Reader(shape)
    if isinstance(node, Entries):
        node = Entries(line=node.line, entries=tuple(entry for entry in node.entries if entry.key not in besides))
    reader.message(node, shape.definition, "definition", besides)
    return shape


def short_enum_names(enum: EnumDescriptor) -> dict[str, int]:
    """The names of an enum without their common prefix, but for the one that is never written. Example: {"PIVOT": 3, …}."""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
    return {value.name.removeprefix(prefix): value.number for value in enum.values if value.number}


def parse_duration(text: str) -> Duration | None:
    """The duration that a text says; None if it says none. Example: "1h30m"."""
    if len(text) > DURATION_CHARS_MAX or not _DURATION.fullmatch(text):
        return None
    nanos = sum(int(Decimal(number) * _UNIT_NANOS[unit]) for number, unit in _DURATION_PART.findall(text))
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


class _Reader:
    """Follows the descriptors of the definition, and notes lines and problems on the way."""

    def __init__(self, shape: Shape) -> None:
        self._shape: Final = shape

    def message(self, node: Node, message: Message, path: str, besides: frozenset[str] = frozenset()) -> None:
        self._shape.lines.setdefault(path, node.line)
        if not isinstance(node, Entries):
            self._problem(node.line, path, f"expected fields of {message.DESCRIPTOR.name}, found {_shown(node)}")
            return
        descriptor = cast("Descriptor", message.DESCRIPTOR)
        fields = _fields_by_key(descriptor)
        seen: set[str] = set()
        for entry in node.entries:
            found = fields.get(entry.key)
            if found is None:
                self._problem(entry.line, f"{path}.{entry.key}"[:200], _unknown_key(entry.key, descriptor, besides))
            elif found.name in seen:
                self._problem(entry.line, f"{path}.{found.name}", f"{entry.key!r} is there twice, in two spellings; keep one")
            else:
                seen.add(found.name)
                self._field(entry, message, found, f"{path}.{found.name}")

    def _field(self, entry: Entry, message: Message, descriptor: FieldDescriptor, path: str) -> None:
        self._shape.lines[path] = entry.line
        node = entry.value
        if isinstance(node, Scalar) and node.is_null:
            return
        if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
            self._map(node, getattr(message, descriptor.name), path)
        elif descriptor.is_repeated:
            self._list(node, message, descriptor, path)
        elif descriptor.message_type is None:
            self._scalar(node, descriptor, path, lambda value: setattr(message, descriptor.name, value))
        else:
            submessage: Message = getattr(message, descriptor.name)
            submessage.SetInParent()  # an empty one differs from none
            self._submessage(node, submessage, path)

    def _submessage(self, node: Node, message: Message, path: str) -> None:
        if isinstance(message, Duration):
            self._duration(node, message, path)
        elif isinstance(message, saga_pb2.StepOrder) and isinstance(node, Items):
            self._list(node, message, message.DESCRIPTOR.fields_by_name[_STEP_IDS], f"{path}.{_STEP_IDS}")
        elif isinstance(message, saga_pb2.StepOrder) and not isinstance(node, Entries):
            self._problem(node.line, path, f"expected a list of step ids like [reserve, charge], found {_shown(node)}")
        else:
            self.message(node, message, path)

    def _list(self, node: Node, message: Message, descriptor: FieldDescriptor, path: str) -> None:
        if not isinstance(node, Items):
            self._problem(node.line, path, f"expected a list, found {_shown(node)}")
            return
        values = getattr(message, descriptor.name)
        for index, item in enumerate(node.items):
            place = f"{path}[{index}]"
            self._shape.lines[place] = item.line
            if descriptor.message_type is not None:
                self.message(item, values.add(), place)
            else:
                self._scalar(item, descriptor, place, values.append)

    def _map(self, node: Node, values: dict[str, str], path: str) -> None:
        if not isinstance(node, Entries):
            self._problem(node.line, path, f"expected keys with their texts, found {_shown(node)}")
            return
        for entry in node.entries:
            place = f"{path}[{entry.key[:80]!r}]"
            self._shape.lines[place] = entry.line
            if isinstance(entry.value, Scalar):
                values[entry.key] = entry.value.text
            else:
                self._problem(entry.line, place, f"expected a text, found {_shown(entry.value)}")

    def _duration(self, node: Node, message: Duration, path: str) -> None:
        found = parse_duration(node.text) if isinstance(node, Scalar) else None
        if found is None:
            expected = 'a duration with its unit like "200ms", "10s", "5m", "24h" or "1h30m"'
            self._problem(node.line, path, f"expected {expected}, found {_shown(node)}")
        else:
            message.CopyFrom(found)

    def _scalar(self, node: Node, descriptor: FieldDescriptor, path: str, put: Callable[[object], object]) -> None:
        expected, value = _read_scalar(node.text if isinstance(node, Scalar) else None, descriptor)
        if value is None:
            self._problem(node.line, path, f"expected {expected}, found {_shown(node)}")
            return
        try:
            put(value)
        except ValueError:
            self._problem(node.line, path, f"expected {expected} within the range of the field, found {_shown(node)}")

    def _problem(self, line: int, path: str, description: str) -> None:
        self._shape.problems.append(ShapeProblem(line, path, description))


def _read_scalar(text: str | None, descriptor: FieldDescriptor) -> tuple[str, object]:
    """What a field expects, in words; and the value that the text says, None if it says none of that. A text of None is no scalar."""
    if descriptor.enum_type is not None:
        names = short_enum_names(descriptor.enum_type)
        return f"one of {', '.join(names)}", _enum_number(text, descriptor.enum_type, names)
    if descriptor.full_name == CODES_FIELD:
        code = STATUS_CODES.get(text.upper()) if text is not None else None
        known = code if code is not None else _integer(text)
        return f"a gRPC status code such as NOT_FOUND{_did_you_mean((text or '').upper(), STATUS_CODES)}", known
    if descriptor.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return "a text", text
    if descriptor.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return "true or false", {"true": True, "false": False}.get(text or "")
    if descriptor.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return "a number", float(text) if text is not None and _NUMBER.fullmatch(text) else None
    return "a whole number", _integer(text)


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None


def _enum_number(text: str | None, enum: EnumDescriptor, names: dict[str, int]) -> int | None:
    if text is None:
        return None
    full = enum.values_by_name.get(text.upper())
    number = names.get(text.upper(), full.number if full is not None else _integer(text))
    return number if number in names.values() else None


def _fields_by_key(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """By the name in the .proto file and by the name in JSON."""
    return {key: each for each in descriptor.fields for key in (each.json_name, each.name)}


def _unknown_key(key: str, descriptor: Descriptor, besides: frozenset[str]) -> str:
    similar = _did_you_mean(key, {*_fields_by_key(descriptor), *besides})
    known = ", ".join([*(each.name for each in descriptor.fields), *sorted(besides)])
    return f"{descriptor.name} has no field {key[:_SHOWN_CHARS_MAX]!r}{similar or f'; it has {known}'}"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word[:_SHOWN_CHARS_MAX], sorted(known), n=1)
    return f" (did you mean {close[0]}?)" if close and close[0] != word else ""


def _shown(node: Node) -> str:
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Entries):
        return "a mapping"
    return repr(node.text if len(node.text) <= _SHOWN_CHARS_MAX else node.text[: _SHOWN_CHARS_MAX - 1] + "…")
