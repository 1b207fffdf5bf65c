"""What a request tells of its caller beside what it asks for."""

from typing import Final, NamedTuple

from coordinator.api.errors import CallContext

FORWARDED: Final = "saga-forwarded"
"""Metadata of a request that another node has passed on."""


class Caller(NamedTuple):
    """Of one request."""

    time_left_s: float | None
    """Until its deadline; None: there is none."""
    traceparent: str
    """W3C trace context; empty: there is none."""
    tracestate: str


def caller_of(context: CallContext) -> Caller:
    """Who has made a call by itself."""
    metadata = dict(context.invocation_metadata() or ())
    return Caller(context.time_remaining(), _text(metadata.get("traceparent", "")), _text(metadata.get("tracestate", "")))


def is_forwarded(context: CallContext) -> bool:
    """Whether another node has passed the request on: then it is answered here, whatever comes of it."""
    return FORWARDED in dict(context.invocation_metadata() or ())


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("ascii", "replace")
