"""Values of fields on the wire and back: one codec per kind of Python type."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
DURATION_MAX: Final = timedelta(seconds=315_576_000_000)
"""As google.protobuf.Duration says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A type that is carried as one of protobuf's scalars."""

    kind: str
    """Which one, in the words of `.proto` files."""
    proto_type: FieldDescriptorProto.Type.ValueType
    encode: Callable[[Any], Any]
    """What protobuf takes. Raises TypeError or ValueError if the value is none of its type."""
    decode: Callable[[Any], object]
    """The value again. Raises ValueError if no such value can have been encoded."""


class MessageCodec(Protocol):
    """A type that is carried as a message."""

    @property
    def full_name(self) -> str:
        """Of that message."""

    @property
    def files(self) -> tuple[bytes, ...]:
        """The file that it stands in, encoded, after all that it imports."""

    def fill(self, target: Message, value: object) -> None:
        """Writes the value into an empty message. Raises TypeError or ValueError if the value is none of its type."""

    def read(self, found: Message) -> object:
        """The value again. Raises ValueError if no such value can have been encoded."""


Codec: TypeAlias = Scalar | MessageCodec


@dataclass(frozen=True, slots=True, kw_only=True)
class WellKnown:
    """Implements `MessageCodec` for a type that has a message of google.protobuf."""

    full_name: str
    files: tuple[bytes, ...]
    fill: Callable[[Any, Any], None]
    read: Callable[[Any], object]


def files_of(file: FileDescriptor) -> tuple[bytes, ...]:
    """A file after all that it imports, each once, encoded."""
    ordered: dict[str, bytes] = {}

    def add(each: FileDescriptor) -> None:
        if each.name not in ordered:
            for imported in each.dependencies:
                add(imported)
            ordered[each.name] = each.serialized_pb

    add(file)
    return tuple(ordered.values())


def _same(value: object) -> object:
    return value


def _instance(expected: type) -> Callable[[object], object]:
    def checked(value: object) -> object:
        if not isinstance(value, expected):
            raise TypeError(f"expected {expected.__name__}, found {type(value).__name__}")
        return value

    return checked


def _whole_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected int, found {type(value).__name__}")
    if not INT64_MIN <= value <= INT64_MAX:
        raise ValueError(f"expected a number of 64 bits, found {value}; carry larger ones as str or Decimal")
    return int(value)


def _number(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"expected float, found {type(value).__name__}")
    return float(value)


def _fill_instant(target: Timestamp, value: object) -> None:
    if not isinstance(value, datetime):
        raise TypeError(f"expected datetime, found {type(value).__name__}")
    if value.utcoffset() is None:
        raise ValueError("a datetime on the wire is an instant, and one without a time zone is none; give it tzinfo=UTC")
    target.FromDatetime(value)


def _fill_duration(target: Duration, value: object) -> None:
    if not isinstance(value, timedelta):
        raise TypeError(f"expected timedelta, found {type(value).__name__}")
    if abs(value) > DURATION_MAX:
        raise ValueError(f"expected a duration of ten thousand years at most, found {value}")
    target.FromTimedelta(value)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError as error:
        raise ValueError(f"expected a decimal number, found {text!r}") from error


def _text(expected: type, *, encode: Callable[[Any], str], decode: Callable[[str], object]) -> Scalar:
    """A type that has one text form."""
    checked = _instance(expected)
    return replace(STRING, encode=lambda value: encode(checked(value)), decode=decode)


def _plain_date(value: date) -> str:
    if isinstance(value, datetime):
        raise TypeError("expected date, found datetime")
    return value.isoformat()


STRING: Final = Scalar(kind="string", proto_type=FieldDescriptorProto.TYPE_STRING, encode=_instance(str), decode=_same)

SCALARS: Final[Mapping[type, Scalar]] = {
    str: STRING,
    bool: Scalar(kind="bool", proto_type=FieldDescriptorProto.TYPE_BOOL, encode=_instance(bool), decode=_same),
    int: Scalar(kind="int64", proto_type=FieldDescriptorProto.TYPE_INT64, encode=_whole_number, decode=_same),
    float: Scalar(kind="double", proto_type=FieldDescriptorProto.TYPE_DOUBLE, encode=_number, decode=_same),
    bytes: Scalar(kind="bytes", proto_type=FieldDescriptorProto.TYPE_BYTES, encode=_instance(bytes), decode=_same),
    Decimal: _text(Decimal, encode=str, decode=_decimal),
    UUID: _text(UUID, encode=str, decode=UUID),
    date: _text(date, encode=_plain_date, decode=date.fromisoformat),
    time: _text(time, encode=time.isoformat, decode=time.fromisoformat),
}
"""Types that are carried as scalars, each with what it becomes."""

WELL_KNOWN: Final[Mapping[type, WellKnown]] = {
    datetime: WellKnown(
        full_name="google.protobuf.Timestamp",
        files=files_of(Timestamp.DESCRIPTOR.file),
        fill=_fill_instant,
        read=lambda found: found.ToDatetime(UTC),
    ),
    timedelta: WellKnown(
        full_name="google.protobuf.Duration",
        files=files_of(Duration.DESCRIPTOR.file),
        fill=_fill_duration,
        read=lambda found: found.ToTimedelta(),
    ),
}
"""Types that have a message of google.protobuf."""


def subclass_codec(python_type: type, base: type) -> Scalar:
    """For a subclass of one of the scalar types: carried like its base, made again by calling it."""
    return replace(SCALARS[base], decode=python_type)


def enum_codec(enum: type[Enum]) -> Scalar:
    """An enum whose values are all texts, or all whole numbers, is carried as those; any other one by the names of its members."""
    checked: Callable[[object], Any] = _instance(enum)
    values = [member.value for member in enum]
    for base in (str, int):
        if values and all(isinstance(value, base) and not isinstance(value, bool) for value in values):
            return replace(SCALARS[base], encode=lambda member: checked(member).value, decode=enum)

    def named(name: str) -> Enum:
        if name not in enum.__members__:
            raise ValueError(f"expected one of {', '.join(enum.__members__)}, found {name!r}")
        return enum[name]

    return replace(STRING, encode=lambda member: checked(member).name, decode=named)


def literal_codec(allowed: tuple[object, ...]) -> Scalar:
    """`Literal["card", "invoice"]`: carried as the type of its values. Raises TypeError if they have several."""
    kinds = {type(value) for value in allowed}
    base = kinds.pop()
    if kinds or base not in SCALARS:
        raise TypeError("the values of a Literal are all str, all int or all bool")

    def checked(value: object) -> object:
        if value not in allowed or type(value) is not base:
            raise ValueError(f"expected one of {', '.join(map(repr, allowed))}, found {value!r}")
        return value

    return replace(SCALARS[base], encode=checked, decode=checked)


def message_codec(message: type[Message]) -> WellKnown:
    """A generated message within a dataclass or model. Goes over by its bytes: the types of a payload have a pool of their own."""
    descriptor: Any = message.DESCRIPTOR

    def fill(target: Message, value: object) -> None:
        if not isinstance(value, message):
            raise TypeError(f"expected {message.__name__}, found {type(value).__name__}")
        target.MergeFromString(value.SerializeToString(deterministic=True))

    return WellKnown(
        full_name=descriptor.full_name,
        files=files_of(descriptor.file),
        fill=fill,
        read=lambda found: message.FromString(found.SerializeToString()),
    )
