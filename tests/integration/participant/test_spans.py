"""Spans and log lines of a participant."""

import logging

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from participant_sdk import ParticipantServer, configure_otlp
from saga.v1 import participant_pb2, participant_pb2_grpc
from tests.integration.participant.till import Till, compensate, execute

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
TRACEPARENT = (("traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01"), ("tracestate", "vendor=1"))


async def spans_of(*requests: participant_pb2.ExecuteRequest | participant_pb2.CompensateRequest) -> list[ReadableSpan]:
    """Sends the requests, one after the other; returns the spans of the participant."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with (
        ParticipantServer(Till(), coordinator=None, tracer_provider=provider) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = participant_pb2_grpc.ParticipantServiceStub(channel)
        for request in requests:
            try:
                if isinstance(request, participant_pb2.ExecuteRequest):
                    await stub.Execute(request, metadata=TRACEPARENT)
                else:
                    await stub.Compensate(request, metadata=TRACEPARENT)
            except grpc.aio.AioRpcError:
                continue
    provider.shutdown()
    return list(exporter.get_finished_spans())


async def test_call_is_a_server_span_below_that_of_its_caller() -> None:
    request = execute("fine")
    executed, compensated = await spans_of(request, compensate("fine"))
    assert (executed.name, compensated.name) == ("execute till.take", "compensate till.take")
    assert executed.kind is SpanKind.SERVER
    assert executed.parent is not None
    assert trace.format_trace_id(executed.parent.trace_id) == TRACE_ID
    assert trace.format_span_id(executed.parent.span_id) == PARENT_ID
    assert executed.parent.trace_state.get("vendor") == "1"
    assert dict(executed.attributes or {}) == {
        "saga.id": request.saga_id,
        "saga.step": "take",
        "saga.attempt": 2,
        "rpc.system": "grpc",
        "rpc.service": "saga.v1.ParticipantService",
        "rpc.method": "Execute",
        "rpc.grpc.status_code": 0,
        "saga.outcome": "succeeded",
    }
    assert executed.status.status_code is StatusCode.UNSET


async def test_refusal_is_an_answer_and_no_error_of_the_span() -> None:
    (span,) = await spans_of(execute("reject"))
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["saga.outcome"] == "rejected"


async def test_failure_is_recorded_once() -> None:
    (span,) = await spans_of(execute("bug"))
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "KeyError: 'boom'"
    assert [event.name for event in span.events] == ["exception"]
    assert (span.attributes or {})["rpc.grpc.status_code"] == grpc.StatusCode.UNKNOWN.value[0]


async def test_failing_handler_is_logged_with_its_ids(caplog: pytest.LogCaptureFixture) -> None:
    request = execute("bug")
    with caplog.at_level(logging.ERROR, logger="participant_sdk"):
        await spans_of(request)
    (record,) = [each for each in caplog.records if each.name == "participant_sdk.invocation"]
    assert record.exc_info is not None
    fields = vars(record)
    assert (fields["saga.id"], fields["saga.step"], fields["saga.attempt"]) == (request.saga_id, "take", 2)
    assert fields["trace_id"] == TRACE_ID


def test_nothing_is_exported_without_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    before = trace.get_tracer_provider()
    configure_otlp("till")()
    assert trace.get_tracer_provider() is before
