"""What a publisher is given, and what it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from participant_sdk.outbox.table import OutboxId

PROTOBUF_CONTENT_TYPE: Final = "application/x-protobuf"
BYTES_CONTENT_TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """An event on its way to a broker."""

    id: OutboxId
    """Equal for every try: hand it on, so that consumers know a repetition."""
    topic: str
    """Where it goes: a topic, subject, exchange or stream."""
    key: str
    """Events of one topic and key are published in order; empty: in any order."""
    payload: bytes = field(repr=False)
    """The encoded message, or the bytes that were given. At most 1 MiB."""
    message_type: str
    """Full protobuf name of the message. Example: "shop.v1.OrderPlaced". Empty for bytes."""
    content_type: str
    """Media type of `payload`."""
    headers: Mapping[str, str]
    """What the business said besides."""
    traceparent: str
    """W3C trace context of who wrote it; empty if there was none. The relay's span within that trace is the current one while it is
    published, so what hands on the current context is better."""
    tracestate: str
    """W3C trace state; empty if there was none."""
    created_at: datetime
    """When it was written, by the clock of who wrote it. Aware, UTC."""
    attempt: int
    """The number of this try, from 1."""


class Publisher(Protocol):
    """A way to a message broker."""

    async def publish(self, event: OutboxEvent, /) -> None:
        """Returns when the broker has confirmed that it keeps the event, not earlier: the row is then PUBLISHED.

        Called for several events at once, but for those of one topic and key one after the other. Repeating is safe for whoever knows
        events by their id. Raises PublishRefused if it can never be published, BrokerUnavailable if nobody can be reached; any other
        exception is tried again and counted. Is cancelled when it takes longer than the relay's policy says.
        """
