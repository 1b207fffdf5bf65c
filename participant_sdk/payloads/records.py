"""Dataclasses and Pydantic models as payloads: carried as messages whose types are derived from their fields."""

from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, cast
from weakref import WeakKeyDictionary

from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.message_factory import GetMessageClass

from participant_sdk.payloads.codecs import Codec, Scalar
from participant_sdk.payloads.dataclass_source import DataclassSource
from participant_sdk.payloads.fields import DeclaredField, plan_field
from participant_sdk.payloads.naming import json_name, name_of
from participant_sdk.payloads.plans import ABSENT, FieldPlan
from participant_sdk.payloads.types import TYPE_URL_PREFIX, PayloadDecodeError, PayloadEncodeError, PayloadT, PayloadType


class RecordSource(Protocol):
    """Where the fields of a class come from."""

    def fields(self) -> list[DeclaredField]:
        """Those that are carried. Raises TypeError if the class cannot be."""

    def make(self, values: dict[str, object]) -> object:
        """An instance with those values. Raises what the class raises."""

    def leaf_codec(self, python_type: object) -> Codec | None:
        """Of a type that only this kind of class knows; None if it is none."""


class RecordPayload(Generic[PayloadT]):
    """Implements `PayloadType`, and `MessageCodec` for classes that have such a one in a field."""

    def __init__(self, python_type: type[PayloadT], source: RecordSource) -> None:
        self.python_type: Final = python_type
        self.name: Final = name_of(python_type)
        self.full_name: Final = self.name
        self._source: Final = source
        self._plans: tuple[FieldPlan, ...] = ()
        self._files: tuple[bytes, ...] = ()
        self._message: type[Message] | None = None

    @property
    def files(self) -> tuple[bytes, ...]:
        """The file that it stands in, after all that it imports; empty while its own fields are read."""
        return self._files

    @property
    def message_type(self) -> type[Message]:
        """The class of the message that carries it."""
        assert self._message is not None
        return self._message

    @property
    def descriptor(self) -> Descriptor:
        return cast("Descriptor", self.message_type.DESCRIPTOR)

    def is_in(self, packed: PackedAny) -> bool:
        return packed.TypeName() == self.name

    def unpack(self, packed: PackedAny) -> PayloadT:
        try:
            found = self.message_type.FromString(packed.value)
        except DecodeError as error:
            raise PayloadDecodeError(f"expected an encoded {self.name}, found {len(packed.value)} other bytes") from error
        return cast("PayloadT", self.read(found))

    def pack(self, value: PayloadT) -> PackedAny:
        target = self.message_type()
        try:
            self.fill(target, value)
            return PackedAny(type_url=TYPE_URL_PREFIX + self.name, value=target.SerializeToString(deterministic=True))
        except EncodeError as error:
            raise PayloadEncodeError(f"a {self.name} cannot be encoded: {error}") from error

    def empty(self) -> PayloadT | None:
        try:
            return cast("PayloadT", self.read(self.message_type()))
        except PayloadDecodeError:
            return None

    def fill(self, target: Message, value: object) -> None:
        """Writes an instance into an empty message. Raises PayloadEncodeError."""
        if not isinstance(value, self.python_type):
            raise PayloadEncodeError(f"expected {self.python_type.__name__}, found {type(value).__name__}")
        for plan in self._plans:
            try:
                plan.write(target, getattr(value, plan.name))
            except PayloadEncodeError as error:
                raise PayloadEncodeError(f"{plan.name}: {error}") from error
            except (TypeError, ValueError, OverflowError, AttributeError) as error:
                raise PayloadEncodeError(f"{self.name}.{plan.name}: {error}") from error

    def read(self, found: Message) -> object:
        """The instance again. Raises PayloadDecodeError."""
        values: dict[str, object] = {}
        for plan in self._plans:
            try:
                value = plan.read(found)
            except PayloadDecodeError as error:
                raise PayloadDecodeError(f"{plan.name}: {error}") from error
            except (TypeError, ValueError, OverflowError) as error:
                raise PayloadDecodeError(f"{self.name}.{plan.name}: {error}") from error
            if value is ABSENT:
                raise PayloadDecodeError(
                    f"{self.name}.{plan.name} is missing: it was made by another version, or by an expression that leaves it out; give "
                    "it, or give the field a default"
                )
            values[plan.name] = value
        try:
            return self._source.make(values)
        except Exception as error:  # The class is the service's own code: what it refuses is no value of it.
            raise PayloadDecodeError(f"{self.name}: refused by {self.python_type.__name__}: {error}") from error

    def settle(self, find: Callable[[type], Codec | None]) -> None:
        """Reads its fields and makes the type of its message. Raises TypeError with everything that cannot be carried."""
        self._plans = _planned(self, self._source, find)
        file = FileDescriptorProto(name=f"{self.name}.payload.proto", package=self.name.rpartition(".")[0], syntax="proto3")
        message = file.message_type.add(name=self.name.rpartition(".")[2])
        imported: dict[bytes, None] = {}
        for plan in self._plans:
            plan.describe(message, self.name)
            if not isinstance(plan.codec, Scalar) and plan.codec.files:
                imported.update(dict.fromkeys(plan.codec.files))
                needed = FileDescriptorProto.FromString(plan.codec.files[-1]).name
                if needed not in file.dependency:
                    file.dependency.append(needed)
        self._files = (*imported, file.SerializeToString(deterministic=True))
        # A pool for each type: two versions of a class can be looked at in one process.
        pool = DescriptorPool()
        for each in self._files:
            try:
                pool.AddSerializedFile(each)
            except TypeError as error:
                other = FileDescriptorProto.FromString(each).name
                raise TypeError(f"{self.python_type.__qualname__}: two types of one name in {other}; name one with @payload(…)") from error
        self._message = GetMessageClass(pool.FindMessageTypeByName(self.name))


def record_payload(python_type: type[PayloadT]) -> PayloadType[PayloadT]:
    """The payload type of a dataclass or Pydantic model; always the same one for the same class. Raises TypeError."""
    return cast("PayloadType[PayloadT]", _settled(python_type, ()))


_KNOWN: Final[WeakKeyDictionary[type, RecordPayload[Any]]] = WeakKeyDictionary()


def _settled(python_type: type, within: tuple[RecordPayload[Any], ...]) -> RecordPayload[Any]:
    """`within`: the classes whose fields are being read, the innermost last."""
    known = _KNOWN.get(python_type)
    if known is not None:
        return known
    for outer in within:
        if outer.python_type is python_type:
            if outer is within[-1]:
                return outer
            raise TypeError(f"{python_type.__name__} holds itself through other classes, which cannot be carried: hold its id there")
    record: RecordPayload[Any] = RecordPayload(python_type, _source_of(python_type))
    record.settle(lambda inner: _settled(inner, (*within, record)) if _is_record(inner) else None)
    _KNOWN[python_type] = record
    return record


def _planned(record: RecordPayload[Any], source: RecordSource, find: Callable[[type], Codec | None]) -> tuple[FieldPlan, ...]:
    problems: list[str] = []
    plans: list[FieldPlan] = []
    resolver = _Resolver(source, find)
    for declared in source.fields():
        try:
            plans.append(plan_field(declared, resolver))
        except TypeError as error:
            problems.append(f"{declared.name}: {error}")
    taken: dict[object, str] = {}
    for plan in plans:
        for what, it in (("number", plan.number), ("name", json_name(plan.wire_name))):
            other = taken.setdefault(it, plan.name)
            if other != plan.name:
                problems.append(
                    f"{plan.name}: has the same {what} on the wire as {other}; give it one with Annotated[…, WireField({what}=…)]"
                )
    if problems:
        raise TypeError("\n  ".join([f"{record.python_type.__qualname__} cannot be a payload:", *problems]))
    return tuple(plans)


class _Resolver:
    def __init__(self, source: RecordSource, find: Callable[[type], Codec | None]) -> None:
        self._source = source
        self._find = find

    def find_codec(self, python_type: object) -> Codec | None:
        """Implements `TypeResolver`."""
        nested = self._find(python_type) if isinstance(python_type, type) else None
        return nested if nested is not None else self._source.leaf_codec(python_type)


def _is_record(python_type: type) -> bool:
    return hasattr(python_type, "__dataclass_fields__") or hasattr(python_type, "__pydantic_fields__")


def _source_of(python_type: type) -> RecordSource:
    is_dataclass = hasattr(python_type, "__dataclass_fields__")
    if not hasattr(python_type, "__pydantic_fields__"):
        return DataclassSource(python_type)
    from participant_sdk.payloads import model_source  # noqa: PLC0415 - needs Pydantic, which is there if its class is

    return model_source.ModelDataclassSource(python_type) if is_dataclass else model_source.ModelSource(python_type)
