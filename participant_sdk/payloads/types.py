"""What a payload type can do."""

from dataclasses import Field
from typing import Any, ClassVar, Final, Protocol, TypeAlias, TypeVar

from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

PAYLOAD_BYTES_MAX: Final = 1 << 20
"""Largest payload: 1 MiB."""
TYPE_URL_PREFIX: Final = "type.googleapis.com/"


class DataclassInstance(Protocol):
    """A dataclass, told by what every one of them has."""

    __dataclass_fields__: "ClassVar[dict[str, Field[Any]]]"


class ModelInstance(Protocol):
    """A Pydantic model, told by what every one of them has."""

    __pydantic_fields__: ClassVar[dict[str, Any]]


Payload: TypeAlias = Message | DataclassInstance | ModelInstance
"""What actions take and return, and sagas are started with."""

PayloadT = TypeVar("PayloadT", bound=Payload)


class PayloadDecodeError(ValueError):
    """The bytes are no value of the type that they claim to be."""


class PayloadEncodeError(ValueError):
    """The value is none of its type: a field holds what its annotation does not allow, or what the wire cannot carry."""


class PayloadType(Protocol[PayloadT]):
    """One message type, with its way to the wire and back."""

    @property
    def python_type(self) -> type[PayloadT]:
        """What handlers see."""

    @property
    def name(self) -> str:
        """Full protobuf name. Example: "shop.v1.ReserveStock"."""

    @property
    def descriptor(self) -> Descriptor:
        """What the message looks like, for Describe."""

    def is_in(self, packed: PackedAny) -> bool:
        """Whether `packed` says that it holds this type, under whatever prefix."""

    def unpack(self, packed: PackedAny) -> PayloadT:
        """Decodes the value. Raises PayloadDecodeError."""

    def pack(self, value: PayloadT) -> PackedAny:
        """Encodes the value; equal values give equal bytes. Raises PayloadEncodeError."""

    def empty(self) -> PayloadT | None:
        """The value of a message without any field; None if there is none, as one of them must be given."""
