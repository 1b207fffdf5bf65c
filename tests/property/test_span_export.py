"""Our encoder of spans writes what the library's writes."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans as encode_spans_at_leisure
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from participant_sdk.span_export import EncodedSpan, EncodedSpanExporter, EncodingProcessor, put_together

RESOURCE = Resource({"service.name": "shop"}, "https://schemas.example/1")
SCOPES = (None, InstrumentationScope("sagas"), InstrumentationScope("handlers", "1.2", "https://schemas.example/2", {"a": 1}))

words = st.text(max_size=8)
long_words = st.text(min_size=30, max_size=150)
numbers = st.integers(-(2**63), 2**63 - 1)
plain = st.one_of(words, long_words, st.booleans(), numbers, st.sampled_from([0, 1, 0.0, 1.0]), st.floats(allow_nan=False))
rare = st.one_of(
    st.lists(words, max_size=3).map(tuple), st.binary(max_size=4), st.just("\ud800"), st.just({"a": "b"}), st.integers(2**63, 2**64)
)
attributes = st.one_of(
    st.dictionaries(words, plain, max_size=5),
    st.dictionaries(words, st.one_of(plain, rare), max_size=3),
    st.dictionaries(words, plain, max_size=4).map(lambda given: BoundedAttributes(2, given)),
)
instants = st.integers(0, 2**63)
trace_states = st.sampled_from([None, TraceState(), TraceState([("a", "b"), ("c", "d")])])
contexts = st.builds(
    lambda trace_id, span_id, is_remote, state: SpanContext(trace_id, span_id, is_remote, TraceFlags(TraceFlags.SAMPLED), state),
    st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans(), trace_states,
)  # fmt: skip
spans = st.builds(
    ReadableSpan,
    name=words,
    context=contexts,
    parent=st.none() | contexts,
    resource=st.just(RESOURCE),
    attributes=attributes,
    events=st.lists(st.builds(Event, words, attributes, instants), max_size=2),
    links=st.lists(st.builds(Link, contexts, attributes), max_size=2),
    kind=st.sampled_from(SpanKind),
    status=st.sampled_from([Status(), Status(StatusCode.OK), Status(StatusCode.ERROR), Status(StatusCode.ERROR, "no")]),
    start_time=instants,
    end_time=instants,
    instrumentation_scope=st.sampled_from(SCOPES),
)


@pytest.fixture(autouse=True, scope="module")
def _silence() -> Iterator[None]:
    """The library logs each attribute that it leaves out."""
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.common")
    logger.disabled, before = True, logger.disabled
    yield
    logger.disabled = before


def told(request: ExportTraceServiceRequest) -> list[tuple[object, ...]]:
    """What is said of every span, however the spans are put together."""
    return [
        (of_resource.resource, of_resource.schema_url, of_scope.scope, of_scope.schema_url, span)
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


@given(st.lists(spans, max_size=5))
def test_every_span_is_written_as_the_library_writes_it(batch: list[ReadableSpan]) -> None:
    assert told(put_together(map(EncodedSpan, batch))) == told(encode_spans_at_leisure(batch))


def test_span_that_cannot_be_written_is_lost_and_whoever_ends_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    exported = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(processor := EncodingProcessor(exported))
    for description in ("file \udcff is not there", "file is not there"):
        with provider.get_tracer("handlers").start_as_current_span("look") as span:
            span.set_status(Status(StatusCode.ERROR, description))
    processor.force_flush()
    assert len(exported.get_finished_spans()) == 1
    assert "a span is lost" in caplog.text
    provider.shutdown()


def test_library_asks_its_exporter_to_encode() -> None:
    """Where ours stands in: were it renamed, the library's own encoder would be used without a word."""
    assert vars(EncodedSpanExporter).keys() & vars(OTLPSpanExporter).keys() >= {"_translate_data"}
