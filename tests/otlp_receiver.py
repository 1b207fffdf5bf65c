"""A real OTLP/gRPC receiver of spans, in the loop of the test: what stands in for a collector or Jaeger.

It listens on a port of its own choosing and keeps that port when it is stopped and started again, with the spans received so far. It can
also be told to refuse or to hang, as collectors do.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceServicer, add_TraceServiceServicer_to_server
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

WAIT_TIME_LIMIT_S = 20.0

AttributeValue = str | bool | int | float


class Conduct(Enum):
    """How the receiver answers exports."""

    ACCEPT = auto()
    REFUSE = auto()
    """UNAVAILABLE at once."""
    HANG = auto()
    """Never, until the caller gives up or the receiver is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedLink:
    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedEvent:
    name: str
    time_ns: int
    attributes: dict[str, AttributeValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedSpan:
    """One span as it came over the wire; ids in lower-case hex."""

    service: str
    """service.name of the resource."""
    trace_id: str
    span_id: str
    parent_span_id: str
    """Empty without a parent."""
    name: str
    kind: str
    """Without its prefix. Example: "CLIENT"."""
    start_ns: int
    end_ns: int
    attributes: dict[str, AttributeValue]
    events: tuple[ReceivedEvent, ...]
    links: tuple[ReceivedLink, ...]
    is_error: bool
    status_message: str
    tracestate: str


class OtlpReceiver:
    """`async with OtlpReceiver() as receiver:` — give `receiver.endpoint` to a process as OTEL_EXPORTER_OTLP_ENDPOINT."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        """In the order of arrival. A span exported twice stands here twice."""
        self.numbers: dict[str, float] = {}
        """What each measure was when it was received last, by its name and the values of its attributes, with a slash between."""
        self.conduct = Conduct.ACCEPT
        self.exports = 0
        """Calls begun, whatever came of them."""
        self._changed = asyncio.Condition()
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def endpoint(self) -> str:
        """Example: "http://127.0.0.1:40123"."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listens; again on the same port if it was stopped."""
        assert self._server is None, "started already"
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add_TraceServiceServicer_to_server(_Servicer(self), server)  # type: ignore[no-untyped-call]  # the package has no stubs for it
        add_MetricsServiceServicer_to_server(_MetricsServicer(self), server)  # type: ignore[no-untyped-call]  # nor for this
        self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Closes the port and breaks off calls under way. Safe to call twice."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace=None)

    async def wait_for(self, condition: Callable[[Sequence[ReceivedSpan]], bool], *, time_limit_s: float = WAIT_TIME_LIMIT_S) -> None:
        """Waits until the spans received so far meet a condition. Raises TimeoutError, with what is there, if they do not in time."""
        await self._wait(lambda: condition(self.spans), time_limit_s)

    async def wait_for_exports(self, count: int, *, time_limit_s: float = WAIT_TIME_LIMIT_S) -> None:
        """Waits until so many calls have begun."""
        await self._wait(lambda: self.exports >= count, time_limit_s)

    def named(self, name: str) -> list[ReceivedSpan]:
        """The spans with that name."""
        return [span for span in self.spans if span.name == name]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def _wait(self, is_met: Callable[[], bool], time_limit_s: float) -> None:
        try:
            async with asyncio.timeout(time_limit_s), self._changed:
                await self._changed.wait_for(is_met)
        except TimeoutError as error:
            names = [span.name for span in self.spans]
            raise TimeoutError(f"not met in {time_limit_s} s; {self.exports} exports brought {names}") from error

    async def wait_for_numbers(self, condition: Callable[[Mapping[str, float]], bool], *, time_limit_s: float = WAIT_TIME_LIMIT_S) -> None:
        """Waits until the measures received last meet a condition."""
        await self._wait(lambda: condition(self.numbers), time_limit_s)

    async def take_numbers(self, request: ExportMetricsServiceRequest) -> None:
        """One export of measures."""
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = (metric.sum if metric.HasField("sum") else metric.gauge).data_points
                    for point in points:
                        name = "/".join((metric.name, *map(str, _attributes_of(point.attributes).values())))
                        self.numbers[name] = point.as_double if point.HasField("as_double") else point.as_int
        async with self._changed:
            self._changed.notify_all()

    async def take(self, request: ExportTraceServiceRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        """One export."""
        self.exports += 1
        if self.conduct is Conduct.ACCEPT:
            self.spans.extend(_spans_of(request))
        async with self._changed:
            self._changed.notify_all()
        match self.conduct:
            case Conduct.REFUSE:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "told to refuse")
            case Conduct.HANG:
                await asyncio.Event().wait()
            case Conduct.ACCEPT:
                pass


class _MetricsServicer(MetricsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    async def Export(  # noqa: N802 - the name in the contract
        self, request: ExportMetricsServiceRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> ExportMetricsServiceResponse:
        await self._receiver.take_numbers(request)
        return ExportMetricsServiceResponse()


class _Servicer(TraceServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    async def Export(  # noqa: N802 - the name in the contract
        self, request: ExportTraceServiceRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> ExportTraceServiceResponse:
        await self._receiver.take(request, context)
        return ExportTraceServiceResponse()


def _spans_of(request: ExportTraceServiceRequest) -> list[ReceivedSpan]:
    return [
        _span_of(span, str(_attributes_of(resource_spans.resource.attributes).get("service.name", "")))
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def _span_of(span: Span, service: str) -> ReceivedSpan:
    return ReceivedSpan(
        service=service,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes_of(span.attributes),
        events=tuple(
            ReceivedEvent(name=event.name, time_ns=event.time_unix_nano, attributes=_attributes_of(event.attributes))
            for event in span.events
        ),
        links=tuple(ReceivedLink(trace_id=link.trace_id.hex(), span_id=link.span_id.hex()) for link in span.links),
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        status_message=span.status.message,
        tracestate=span.trace_state,
    )


def _attributes_of(pairs: Sequence[KeyValue]) -> dict[str, AttributeValue]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
