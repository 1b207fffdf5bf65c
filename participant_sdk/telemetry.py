"""Spans and log fields of a participant. Uses the OpenTelemetry API only, so that it costs next to nothing unless a service sets
up a tracer provider, by itself or by `configure_otlp`.
"""

import logging
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import grpc
from google.rpc import status_pb2
from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider, Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from saga.v1 import participant_pb2

if TYPE_CHECKING:
    from participant_sdk.step_context import Step

SAGA_ID: Final = "saga.id"
SAGA_STEP: Final = "saga.step"
SAGA_ATTEMPT: Final = "saga.attempt"
SAGA_OUTCOME: Final = "saga.outcome"
RPC_SYSTEM: Final = "rpc.system"
RPC_SERVICE: Final = "rpc.service"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS_CODE: Final = "rpc.grpc.status_code"
TRACE_ID: Final = "trace_id"

SERVICE_NAME: Final = participant_pb2.DESCRIPTOR.services_by_name["ParticipantService"].full_name

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_NOT_TRACING: Final = (ProxyTracerProvider, NoOpTracerProvider)
"""What stands for a provider while none is set up."""
_TRACE_HEADERS: Final = frozenset({"traceparent", "tracestate"})

logger = logging.getLogger("participant_sdk")

CallRequest: TypeAlias = participant_pb2.ExecuteRequest | participant_pb2.CompensateRequest
CallAnswer: TypeAlias = participant_pb2.ExecuteResponse | participant_pb2.CompensateResponse | status_pb2.Status


class CallSpan:
    """The server span of one call: current within `with`, and ended there."""

    def __init__(self, span: Span, context: Context) -> None:
        """`context`: what becomes current."""
        self._span = span
        self._context = context
        self._is_recording = span.is_recording()
        self._has_status = False

    def __enter__(self) -> Self:
        self._token = context_api.attach(self._context)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        context_api.detach(self._token)
        if error is not None:
            self.fail(grpc.StatusCode.CANCELLED.value[0], f"the call was cut short: {type(error).__name__}")
        if self._is_recording:
            self._span.end()

    def conclude(self, answer: CallAnswer) -> None:
        """Writes down how the call was answered."""
        if not self._is_recording:
            return
        if isinstance(answer, status_pb2.Status):
            self.fail(answer.code, answer.message)
            return
        self._span.set_attribute(SAGA_OUTCOME, answer.WhichOneof("outcome") or "unknown")
        self._span.set_attribute(RPC_STATUS_CODE, grpc.StatusCode.OK.value[0])

    def fail(self, code: int, message: str) -> None:
        """Writes down that the call ended with an error, once: what comes first is the cause."""
        if not self._is_recording or self._has_status:
            return
        self._has_status = True
        self._span.set_attribute(SAGA_OUTCOME, "unknown")
        self._span.set_attribute(RPC_STATUS_CODE, code)
        self._span.set_status(Status(StatusCode.ERROR, message))


class ServerSpans:
    """Makes the spans of the calls that a server answers."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """`provider`: None for the global one, also if it is set up later."""
        self._provider = provider
        self._tracer = trace.get_tracer("participant_sdk", tracer_provider=provider)

    def of(self, direction: str, request: CallRequest, metadata: Iterable[tuple[str, str | bytes]]) -> CallSpan:
        """The span of a call, below the caller's: `execute inventory.reserve`."""
        parent = _parent(metadata)
        if isinstance(self._provider or trace.get_tracer_provider(), _NOT_TRACING):
            # Nobody records anything: the caller's context is carried on, for logs and further calls, and a span would cost as much again.
            return CallSpan(trace.INVALID_SPAN, parent)
        attributes = _attributes(direction, request)
        span = self._tracer.start_span(f"{direction} {request.action}", context=parent, kind=SpanKind.SERVER, attributes=attributes)
        return CallSpan(span, trace.set_span_in_context(span, parent))


def record_error(error: BaseException) -> None:
    """Adds what a handler raised to the span of its call."""
    span = trace.get_current_span()
    if span.is_recording():
        span.record_exception(error)


def log_fields(step: "Step") -> Mapping[str, object]:
    """The `extra` of a log line about a step: its ids, and that of the trace if there is one."""
    fields: dict[str, object] = {SAGA_ID: step.saga_id, SAGA_STEP: step.step_id, SAGA_ATTEMPT: step.attempt}
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        fields[TRACE_ID] = trace.format_trace_id(context.trace_id)
    return fields


def _parent(metadata: Iterable[tuple[str, str | bytes]]) -> Context:
    carrier = {key: value for key, value in metadata if key in _TRACE_HEADERS and isinstance(value, str)}
    # Always a context of its own: what happens to be current in the server's task is nobody's parent.
    return _PROPAGATOR.extract(carrier, Context()) if carrier else Context()


def _attributes(direction: str, request: CallRequest) -> Mapping[str, str | int]:
    return {
        SAGA_ID: request.saga_id,
        SAGA_STEP: request.step_id,
        SAGA_ATTEMPT: request.attempt,
        RPC_SYSTEM: "grpc",
        RPC_SERVICE: SERVICE_NAME,
        RPC_METHOD: direction.capitalize(),
    }
