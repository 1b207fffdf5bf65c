"""Generated protobuf messages as payloads: carried as they are."""

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, EncodeError, Message

from participant_sdk.payloads.types import TYPE_URL_PREFIX, PayloadDecodeError, PayloadEncodeError

MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, slots=True)
class MessagePayload(Generic[MessageT]):
    """Implements `PayloadType`."""

    python_type: type[MessageT]

    @property
    def name(self) -> str:
        return self.descriptor.full_name

    @property
    def descriptor(self) -> Descriptor:
        # The C implementation has a type of its own for the same thing; the stubs name both.
        return cast("Descriptor", self.python_type.DESCRIPTOR)

    def is_in(self, packed: PackedAny) -> bool:
        return packed.TypeName() == self.name

    def unpack(self, packed: PackedAny) -> MessageT:
        try:
            return self.python_type.FromString(packed.value)
        except DecodeError as error:
            raise PayloadDecodeError(f"expected an encoded {self.name}, found {len(packed.value)} other bytes") from error

    def pack(self, value: MessageT) -> PackedAny:
        try:
            return PackedAny(type_url=TYPE_URL_PREFIX + self.name, value=value.SerializeToString(deterministic=True))
        except (EncodeError, ValueError) as error:
            raise PayloadEncodeError(f"a {self.name} cannot be encoded: {error}") from error

    def empty(self) -> MessageT:
        return self.python_type()
