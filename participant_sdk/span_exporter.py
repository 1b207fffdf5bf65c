"""The OTLP/gRPC exporter of OpenTelemetry with an encoder of its own. Imported only where spans are sent; needs the extra `otlp`.

The library's encoder takes two thirds of all that a span costs: it hashes the resource as JSON for every span, and makes messages for
attributes that are the same in thousands of spans. This one is about five times as fast and writes the same (`make bench-micro`).
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_spans_at_leisure
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, SpanFlags, Status
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind
from opentelemetry.trace.status import StatusCode
from opentelemetry.util.types import Attributes

ATTRIBUTES_KEPT_MAX: Final = 4_096
"""Encoded attributes that are kept for the next span with the same. Texts are bounded where they are made."""

_KINDS: Final = {
    SpanKind.INTERNAL: Span.SpanKind.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: Span.SpanKind.SPAN_KIND_SERVER,
    SpanKind.CLIENT: Span.SpanKind.SPAN_KIND_CLIENT,
    SpanKind.PRODUCER: Span.SpanKind.SPAN_KIND_PRODUCER,
    SpanKind.CONSUMER: Span.SpanKind.SPAN_KIND_CONSUMER,
}
_VALUES: Final[Mapping[Hashable, str]] = {str: "string_value", int: "int_value", bool: "bool_value", float: "double_value"}
_LOCAL: Final = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE: Final = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class SpanExporter(OTLPSpanExporter):
    """Configured by the standard OTEL_EXPORTER_OTLP_* variables, like its parent."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        return encode_spans(data)


def encode_spans(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """The request that the library's encoder makes, but that spans count as of one resource and scope only if they share those objects."""
    by_origin: dict[tuple[int, int], list[ReadableSpan]] = {}
    for span in spans:
        by_origin.setdefault((id(span.resource), id(span.instrumentation_scope)), []).append(span)
    return ExportTraceServiceRequest(resource_spans=[_of_one_origin(together) for together in by_origin.values()])


def _of_one_origin(spans: Sequence[ReadableSpan]) -> ResourceSpans:
    origin = encode_spans_at_leisure(spans[:1]).resource_spans[0]
    scope = origin.scope_spans[0]
    encoded = [_encode(span) or _encode_at_leisure(span) for span in spans]
    return ResourceSpans(
        resource=origin.resource,
        scope_spans=[ScopeSpans(scope=scope.scope, spans=encoded, schema_url=scope.schema_url)],
        schema_url=origin.schema_url,
    )


def _encode(span: ReadableSpan) -> Span | None:
    """A span as most are; None: it has something rare, which is left to the library."""
    context, parent, status = span.context, span.parent, span.status
    if context is None or span.dropped_attributes or span.dropped_events or span.dropped_links:
        return None
    try:
        return Span(
            trace_id=context.trace_id.to_bytes(16, "big"),
            span_id=context.span_id.to_bytes(8, "big"),
            trace_state=context.trace_state.to_header() if context.trace_state else "",
            parent_span_id=b"" if parent is None else parent.span_id.to_bytes(8, "big"),
            name=span.name,
            kind=_KINDS[span.kind],
            start_time_unix_nano=span.start_time or 0,
            end_time_unix_nano=span.end_time or 0,
            attributes=_attributes(span.attributes),
            events=[_event(event) for event in span.events],
            links=[_link(link) for link in span.links],
            status=_status(status.status_code, status.description),
            flags=_flags(parent),
        )
    except (TypeError, ValueError):  # what no field can hold: the library keeps the rest, and says so
        return None


def _encode_at_leisure(span: ReadableSpan) -> Span:
    return encode_spans_at_leisure([span]).resource_spans[0].scope_spans[0].spans[0]


def _event(event: Event) -> Span.Event:
    return Span.Event(
        name=event.name,
        time_unix_nano=event.timestamp,
        attributes=_attributes(event.attributes),
        dropped_attributes_count=event.dropped_attributes,
    )


def _link(link: Link) -> Span.Link:
    return Span.Link(
        trace_id=link.context.trace_id.to_bytes(16, "big"),
        span_id=link.context.span_id.to_bytes(8, "big"),
        attributes=_attributes(link.attributes),
        dropped_attributes_count=link.dropped_attributes,
        flags=_flags(link.context),
    )


def _flags(context: SpanContext | None) -> int:
    return _REMOTE if context is not None and context.is_remote else _LOCAL


def _attributes(attributes: Attributes) -> list[KeyValue]:
    if not attributes:
        return []
    kinds: Iterable[Hashable] = map(type, attributes.values())
    return list(map(_attribute, attributes.keys(), attributes.values(), kinds))


@lru_cache(ATTRIBUTES_KEPT_MAX)
def _attribute(name: str, value: Any, kind: Hashable) -> KeyValue:
    """`kind`: the type of the value, since True and 1 and 1.0 are one key."""
    if kind not in _VALUES:
        raise TypeError(f"{name} is of a kind that is rare: {kind}")
    return KeyValue(key=name, value=AnyValue(**{_VALUES[kind]: value}))


@lru_cache(ATTRIBUTES_KEPT_MAX)
def _status(code: StatusCode, description: str | None) -> Status:
    return Status(code=Status.StatusCode.ValueType(code.value), message=description or "")
