"""What may be put into an outbox, and what is refused before anything is written."""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from sqlalchemy import create_engine
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateIndex, CreateTable

from participant_sdk import InvalidRequest, Saga, new_saga_id
from participant_sdk.outbox import Outbox, OutboxRelay, OutboxRowInvalidError
from participant_sdk.outbox.rows import NewRow, event_row, start_row
from participant_sdk.outbox.statements import Statements, now_statement
from participant_sdk.outbox.table import ROW_BYTES_MAX
from participant_sdk.payloads import PAYLOAD_BYTES_MAX, payload_type
from saga.v1 import coordinator_pb2

PLACED = StringValue(value="one")
DIALECTS: list[Any] = [cast("Any", module).dialect() for module in (sqlite, postgresql, mysql)]


def row(event: object = PLACED, **changes: Any) -> NewRow:
    return event_row(event, **{"topic": "orders", "key": "", "headers": {}, "content_type": "", "now_us": 7, **changes})


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"topic": ""}, "topic says where"),
        ({"topic": "t" * 256}, "topic has at most 255 characters, found 256"),
        ({"key": "k" * 256}, "key has at most 255"),
        ({"key": "a\0b"}, "key must not hold NUL"),
        ({"event": b"", "content_type": "c" * 128}, "content_type has at most 127"),
        ({"headers": {"a": "x" * 16_384}}, "headers say may be 16,384 bytes at most"),
        ({"headers": {"a": 1}}, "headers are texts by name, found 'a': int"),
        ({"event": b"x" * (PAYLOAD_BYTES_MAX + 1)}, "event of bytes for orders may be 1,048,576 bytes at most, found 1,048,577"),
        ({"event": BytesValue(value=b"x" * PAYLOAD_BYTES_MAX)}, "google.protobuf.BytesValue for orders may be"),
    ],
)
def test_event_that_could_never_be_published_is_refused_at_once(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(OutboxRowInvalidError, match=what):
        row(**changes)


@dataclass(frozen=True)
class OrderShipped:
    order_id: str
    parcels: int = 1


def test_dataclass_is_an_event_and_an_input_like_any_message() -> None:
    kind = payload_type(OrderShipped)
    shipped = OrderShipped("one", 2)
    written = row(shipped)
    assert (written.message_type, written.content_type) == (kind.name, "application/x-protobuf")
    assert kind.unpack(PackedAny(type_url=f"type.googleapis.com/{kind.name}", value=written.payload)) == shipped
    start = start_row(Saga("ship", input=OrderShipped), shipped, {}, 7)
    assert kind.unpack(coordinator_pb2.StartSagaRequest.FromString(start.payload).input) == shipped


@pytest.mark.parametrize("event", ["text", 7, None, {"a": 1}, bytearray(b"x")])
def test_event_that_is_neither_message_nor_bytes_is_a_mistake_in_the_source(event: object) -> None:
    with pytest.raises(TypeError, match="an event is a message such as actions have, or bytes with content_type"):
        row(event)


def test_content_type_of_a_message_is_not_chosen() -> None:
    with pytest.raises(ValueError, match="content_type is for bytes"):
        row(content_type="application/json")


def test_largest_event_fits() -> None:
    assert len(row(b"x" * PAYLOAD_BYTES_MAX).payload) == PAYLOAD_BYTES_MAX <= ROW_BYTES_MAX


def test_start_is_the_request_that_the_client_would_send() -> None:  # R2
    saga_id = new_saga_id()
    saga = Saga("place-order", input=StringValue)
    written = start_row(saga, PLACED, {"saga_id": saga_id, "key": "order-1", "labels": {"a": "b"}, "time_limit": timedelta(minutes=1)}, 7)
    request = coordinator_pb2.StartSagaRequest.FromString(written.payload)
    assert (written.topic, written.key, written.lane, written.created_at_us) == ("place-order", saga_id, None, 7)
    assert (request.saga_id, request.definition.name, request.definition.version) == (saga_id, "place-order", 1)
    assert (request.idempotency_key, dict(request.labels), request.time_limit.seconds) == ("order-1", {"a": "b"}, 60)
    packed = PackedAny()
    packed.Pack(PLACED)
    assert request.input == packed
    assert json.loads(written.headers) == {}


def test_start_without_an_id_gets_one() -> None:
    written = start_row("place-order", PLACED, {}, 7)
    assert written.key == coordinator_pb2.StartSagaRequest.FromString(written.payload).saga_id != ""
    assert written.id != written.key


def test_start_that_could_never_take_place_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="inherit_deadline is for callers that wait"):
        start_row("place-order", PLACED, {"inherit_deadline": True}, 7)
    with pytest.raises(InvalidRequest, match="a saga id is a UUID"):
        start_row("place-order", PLACED, {"saga_id": "order-1"}, 7)
    with pytest.raises(TypeError, match="starts with"):
        start_row(Saga("place-order", input=BytesValue), cast("BytesValue", PLACED), {}, 7)
    with pytest.raises(OutboxRowInvalidError, match="the input of place-order may be"):
        start_row("place-order", BytesValue(value=b"x" * PAYLOAD_BYTES_MAX), {}, 7)
    with pytest.raises(OutboxRowInvalidError, match="what the start of place-order says besides its input"):
        start_row("place-order", PLACED, {"labels": {str(number): "x" * 255 for number in range(300)}}, 7)
    with pytest.raises(OutboxRowInvalidError, match="key has at most 255"):
        start_row("place-order", PLACED, {"key": "k" * 256}, 7)


def test_publishing_does_no_io() -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nowhere")
    outbox = Outbox()
    session = Session(nowhere)
    outbox.publish(session, PLACED, topic="orders")
    outbox.start_saga(session, "place-order", PLACED)
    assert len(session.new) == 2


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: str(each.name))
def test_every_statement_is_known_to_every_dialect(dialect: Any) -> None:
    statements = Statements(Outbox("o").store(create_engine("sqlite://"))._statements.table)
    for name, statement in vars(statements).items():
        if name != "table":
            statement.compile(dialect=dialect)
    CreateTable(statements.table).compile(dialect=dialect)
    for index in statements.table.indexes:
        CreateIndex(index).compile(dialect=dialect)
    assert (now_statement(dialect.name) is None) == (dialect.name == "sqlite")
    is_skipping = "SKIP LOCKED" in str(statements.due.compile(dialect=dialect))
    assert is_skipping == (dialect.name != "sqlite")


def test_relay_with_nothing_to_do_is_refused() -> None:
    with pytest.raises(ValueError, match="publisher=… for events, client=… for starts"):
        OutboxRelay(create_engine("sqlite://"), Outbox())
