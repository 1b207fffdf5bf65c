"""The client's spans and the context that it hands on. Costs next to nothing as long as no provider is configured."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

# The W3C form whatever OTEL_PROPAGATORS says: the coordinator stores it with the saga and reads nothing else.
_PROPAGATOR: Final = TraceContextTextMapPropagator()

Metadata = tuple[tuple[str, str], ...]


@contextmanager
def start_span(definition_name: str, saga_id: str) -> Iterator[None]:
    """A span around one start with all its repetitions; the saga's root span is its child."""
    tracer = trace.get_tracer("participant_sdk.client")
    attributes = {
        "rpc.system": "grpc",
        "rpc.service": "saga.v1.SagaService",
        "rpc.method": "StartSaga",
        "saga.id": saga_id,
        "saga.definition": definition_name,
    }
    with tracer.start_as_current_span(f"start {definition_name}", kind=trace.SpanKind.CLIENT, attributes=attributes):
        yield


def trace_metadata() -> Metadata:
    """The current span context as gRPC metadata; empty if there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return tuple(carrier.items())
