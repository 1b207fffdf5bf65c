"""Values of a caller, checked and brought into the form of the wire."""

from datetime import datetime
from typing import Any

from google.protobuf.any_pb2 import Any as PackedMessage
from google.protobuf.timestamp_pb2 import Timestamp

from participant_sdk.client.errors import InvalidRequest
from participant_sdk.ids import parse_saga_id
from participant_sdk.payloads import PayloadType, payload_type


def checked_id(saga_id: str) -> str:
    """A saga id in its canonical form. Raises InvalidRequest if it is no UUID."""
    try:
        return parse_saga_id(saga_id)
    except ValueError as error:
        raise InvalidRequest(str(error), saga_id=saga_id) from error


def to_timestamp(name: str, instant: datetime | None) -> Timestamp | None:
    """The instant, which `name` names in messages; None stays None. Raises ValueError if it is not aware."""
    if instant is None:
        return None
    if instant.tzinfo is None:
        raise ValueError(f"{name} must say its time zone, found {instant.isoformat()}; for example datetime.now(UTC)")
    timestamp = Timestamp()
    timestamp.FromDatetime(instant)
    return timestamp


def packed(message: object) -> PackedMessage:
    """A typed payload. The same message always becomes the same bytes. Raises TypeError for what cannot be a message."""
    kind: PayloadType[Any] = payload_type(type(message))
    return kind.pack(message)
