"""What the client hands on of the caller's trace."""

from opentelemetry import trace

from participant_sdk.client import SagaClient
from shop.v1.shop_pb2 import PlaceOrder
from tests.unit.client.fake_coordinator import FakeCoordinator

CALLER = trace.SpanContext(trace_id=0xABC, span_id=0xDEF, is_remote=False, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))


async def test_start_within_a_span_hands_its_trace_on(client: SagaClient, coordinator: FakeCoordinator) -> None:
    with trace.use_span(trace.NonRecordingSpan(CALLER)):
        await client.start("place-order", PlaceOrder())
    version, trace_id, _, flags = str(coordinator.metadata[0]["traceparent"]).split("-")
    assert (version, trace_id, flags) == ("00", f"{0xABC:032x}", "01")


async def test_start_without_a_span_hands_nothing_on(client: SagaClient, coordinator: FakeCoordinator) -> None:
    await client.start("place-order", PlaceOrder())
    assert "traceparent" not in coordinator.metadata[0]
