"""Rows of the outbox, as they are written in the database transaction of the business."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Final

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import registry

from participant_sdk.builder import Saga
from participant_sdk.client.starting import StartOptions, start_request
from participant_sdk.client.telemetry import trace_metadata
from participant_sdk.outbox.errors import OutboxRowInvalidError
from participant_sdk.outbox.events import BYTES_CONTENT_TYPE, PROTOBUF_CONTENT_TYPE
from participant_sdk.outbox.table import (
    CONTENT_TYPE_CHARS_MAX,
    HEADERS_BYTES_MAX,
    NAME_CHARS_MAX,
    START_EXTRA_BYTES,
    TRACE_STATE_CHARS_MAX,
    OutboxId,
    OutboxKind,
    OutboxStatus,
    lane_of,
    outbox_table,
)
from participant_sdk.payloads import PAYLOAD_BYTES_MAX, PayloadType, payload_type

DUE_AT_ONCE_US: Final = 0
"""Not the clock of who writes: it may be ahead of the database's, and the event would wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRow:
    """A row to be inserted: its fields are columns of the table."""

    id: OutboxId
    kind: str
    topic: str
    """Of a start: the definition's name."""
    key: str
    """Of a start: the saga's id."""
    lane: int | None
    message_type: str
    content_type: str
    payload: bytes
    """Of a start: the encoded StartSagaRequest."""
    headers: str
    """JSON object of strings."""
    traceparent: str
    tracestate: str
    created_at_us: int
    status: str = OutboxStatus.PENDING.value
    attempts: int = 0
    next_attempt_at_us: int = DUE_AT_ONCE_US
    locked_by: str = ""
    last_error: str = ""

    def values(self) -> dict[str, object]:
        """By column."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def event_row(event: object, *, topic: str, key: str, headers: Mapping[str, str], content_type: str, now_us: int) -> NewRow:
    """The row of an event: a message of any type that actions may have, or bytes.

    Raises TypeError for what is neither, PayloadEncodeError for a value that its type does not allow, OutboxRowInvalidError for what could
    never be published.
    """
    if isinstance(event, bytes):
        message_type, payload, content_type = "", event, content_type or BYTES_CONTENT_TYPE
    else:
        message_type, payload = _encoded(event, content_type)
        content_type = PROTOBUF_CONTENT_TYPE
    _check_text("topic", topic, NAME_CHARS_MAX)
    _check_text("key", key, NAME_CHARS_MAX)
    _check_text("content_type", content_type, CONTENT_TYPE_CHARS_MAX)
    if not topic:
        raise OutboxRowInvalidError('topic says where the event goes, found ""')
    _check_size(f"the event {message_type or 'of bytes'} for {topic}", len(payload), PAYLOAD_BYTES_MAX)
    traceparent, tracestate = _trace()
    return NewRow(
        id=new_outbox_id(),
        kind=OutboxKind.EVENT.value,
        topic=topic,
        key=key,
        lane=lane_of(topic, key),
        message_type=message_type,
        content_type=content_type,
        payload=payload,
        headers=_encoded_headers(headers),
        traceparent=traceparent,
        tracestate=tracestate,
        created_at_us=now_us,
    )


def start_row(saga: Saga[Any, Any] | str, message: object, options: StartOptions, now_us: int) -> NewRow:
    """The row of a start: the saga's id is made here, so that the relay may send it as often as it takes (R2).

    Raises what `SagaClient.start` raises before it sends anything; OutboxRowInvalidError for what could never be started.
    """
    if options.get("inherit_deadline", False):
        raise ValueError("inherit_deadline is for callers that wait; a start in an outbox has none: give time_limit")
    _check_text("key", options.get("key", ""), NAME_CHARS_MAX)
    request = start_request(saga, message, options, timeout=None)
    name, input_bytes = request.definition.name, len(request.input.value)
    _check_text("the definition's name", name, NAME_CHARS_MAX)
    _check_size(f"the input of {name}", input_bytes, PAYLOAD_BYTES_MAX)
    payload = request.SerializeToString(deterministic=True)
    _check_size(f"what the start of {name} says besides its input", len(payload) - input_bytes, START_EXTRA_BYTES)
    traceparent, tracestate = _trace()
    return NewRow(
        id=new_outbox_id(),
        kind=OutboxKind.SAGA_START.value,
        topic=name,
        key=request.saga_id,
        lane=None,
        message_type=request.DESCRIPTOR.full_name,
        content_type=PROTOBUF_CONTENT_TYPE,
        payload=payload,
        headers="{}",
        traceparent=traceparent,
        tracestate=tracestate,
        created_at_us=now_us,
    )


def new_outbox_id() -> OutboxId:
    """Names a row before it is written."""
    return OutboxId(str(uuid.uuid4()))


@cache
def mapped_row(table_name: str) -> type[Any]:
    """The class whose objects a session writes into that table. One per table and process: mapping takes milliseconds."""
    mapped = type("OutboxRow", (), {"__doc__": f"A row of {table_name}.", "__module__": __name__})
    table = outbox_table(MetaData(), table_name)
    # By the id, which is known before: nothing is asked back from the database, so many rows are one statement, in their order.
    registry().map_imperatively(mapped, table, primary_key=[table.c.id], eager_defaults=False)
    return mapped


def table_of(table_name: str) -> Table:
    """The table, as the outbox's own statements see it."""
    return outbox_table(MetaData(), table_name)


def _encoded(event: object, content_type: str) -> tuple[str, bytes]:
    if content_type:
        raise ValueError(f"content_type is for bytes: a message is {PROTOBUF_CONTENT_TYPE}, found {content_type!r}")
    try:
        typed: PayloadType[Any] = payload_type(type(event))
    except TypeError as error:
        raise TypeError(f"an event is a message such as actions have, or bytes with content_type: {error}") from error
    packed = typed.pack(event)
    return packed.TypeName(), packed.value


def _encoded_headers(headers: Mapping[str, str]) -> str:
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise OutboxRowInvalidError(f"headers are texts by name, found {name!r}: {type(value).__name__}")
    encoded = json.dumps(dict(headers), ensure_ascii=True)  # escapes NUL, too, which PostgreSQL does not take
    _check_size("what the headers say", len(encoded), HEADERS_BYTES_MAX)
    return encoded


def _trace() -> tuple[str, str]:
    """The current trace context: traceparent and tracestate, empty if there is none."""
    trace = dict(trace_metadata())
    state = trace.get("tracestate", "")
    # Cut in the middle it would be none, and nothing depends on it.
    return trace.get("traceparent", ""), state if len(state) <= TRACE_STATE_CHARS_MAX else ""


def _check_text(name: str, text: str, chars_max: int) -> None:
    if len(text) > chars_max:
        raise OutboxRowInvalidError(f"{name} has at most {chars_max} characters, found {len(text)}: {text[:64]!r}…")
    if "\0" in text:
        raise OutboxRowInvalidError(f"{name} must not hold NUL, which databases refuse, found {text!r}")


def _check_size(what: str, found: int, bytes_max: int) -> None:
    if found > bytes_max:
        raise OutboxRowInvalidError(f"{what} may be {bytes_max:,} bytes at most, found {found:,}: publish where it can be fetched instead")
