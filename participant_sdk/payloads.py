"""Message types of actions: the one place that knows how a Python type becomes a typed payload on the wire.

Protobuf messages only, so far. Other kinds of types join here, by another implementation behind `payload_type`.
"""

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

PAYLOAD_BYTES_MAX: Final = 1 << 20
"""Largest payload: 1 MiB."""

PayloadT = TypeVar("PayloadT", bound=Message)


class PayloadDecodeError(ValueError):
    """The bytes are no message of the type that they claim to be."""


@dataclass(frozen=True, slots=True)
class PayloadType(Generic[PayloadT]):
    """One message type, with its way to the wire and back."""

    python_type: type[PayloadT]
    """What handlers see."""

    @property
    def name(self) -> str:
        """Full protobuf name. Example: "shop.v1.ReserveStock"."""
        return self.descriptor.full_name

    @property
    def descriptor(self) -> Descriptor:
        """What the message looks like, for Describe."""
        # The C implementation has a type of its own for the same thing; the stubs name both.
        return self.python_type.DESCRIPTOR  # type: ignore[return-value]

    def is_in(self, packed: PackedAny) -> bool:
        """Whether `packed` says that it holds this type, under whatever prefix."""
        return packed.TypeName() == self.name

    def unpack(self, packed: PackedAny) -> PayloadT:
        """Decodes the value. Raises PayloadDecodeError."""
        try:
            return self.python_type.FromString(packed.value)
        except DecodeError as error:
            raise PayloadDecodeError(f"expected an encoded {self.name}, found {len(packed.value)} other bytes") from error

    def pack(self, message: PayloadT) -> PackedAny:
        """Encodes the value."""
        return PackedAny(type_url=f"type.googleapis.com/{self.name}", value=message.SerializeToString(deterministic=True))


def payload_type(python_type: object) -> PayloadType[Message]:
    """The payload type of an annotation. Raises TypeError, saying what may be written there."""
    if isinstance(python_type, type) and issubclass(python_type, Message) and python_type is not Message:
        return PayloadType(python_type)
    raise TypeError(f"expected a generated protobuf message class, found {python_type!r}")
