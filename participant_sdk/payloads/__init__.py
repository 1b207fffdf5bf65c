"""Message types of actions and sagas: the one place that knows how a Python type becomes a typed payload on the wire.

A payload is a generated protobuf message, a dataclass, or a Pydantic model. The latter two are carried as protobuf messages whose types
are derived from their fields (docs/payloads.md), so that expressions read them like any other.
"""

import dataclasses
from typing import Any, overload

from google.protobuf.message import Message

from participant_sdk.payloads.messages import MessagePayload
from participant_sdk.payloads.naming import WireField, payload
from participant_sdk.payloads.types import (
    PAYLOAD_BYTES_MAX,
    Payload,
    PayloadDecodeError,
    PayloadEncodeError,
    PayloadT,
    PayloadType,
)

__all__ = [
    "PAYLOAD_BYTES_MAX",
    "Payload",
    "PayloadDecodeError",
    "PayloadEncodeError",
    "PayloadType",
    "WireField",
    "payload",
    "payload_type",
]


@overload
def payload_type(python_type: type[PayloadT]) -> PayloadType[PayloadT]: ...
@overload
def payload_type(python_type: object) -> PayloadType[Any]: ...
def payload_type(python_type: Any) -> PayloadType[Any]:
    """The payload type of an annotation. Raises TypeError, saying what may be written there, and what is wrong with a field of it."""
    if isinstance(python_type, type):
        if issubclass(python_type, Message) and python_type is not Message:
            return MessagePayload(python_type)
        if dataclasses.is_dataclass(python_type) or hasattr(python_type, "__pydantic_fields__"):
            from participant_sdk.payloads.records import record_payload  # noqa: PLC0415 - costs time that protobuf's users need not spend

            return record_payload(python_type)
    raise TypeError(f"expected a generated protobuf message class, a dataclass or a Pydantic model, found {python_type!r}")
