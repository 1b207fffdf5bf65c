"""Exporting spans through OTLP, for services that set up no OpenTelemetry of their own. Needs the extra `otlp`."""

import logging
import os
from collections.abc import Callable
from typing import Final

from opentelemetry import trace

logger = logging.getLogger(__name__)

_ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def configure_otlp(service_name: str) -> Callable[[], None]:
    """Exports spans through OTLP/gRPC if an endpoint is named in the environment; everything else is left to `OTEL_*` variables.

    `service_name` is used unless OTEL_SERVICE_NAME says otherwise. Does nothing, and says so once in the log, without an endpoint,
    without the extra `otlp`, or if the service has set up a tracer provider before. Returns what to call at the end of the
    process: it sends what is still waiting, within the time that OTEL_* variables allow.
    """
    if not any(os.environ.get(variable) for variable in _ENDPOINT_VARIABLES):
        logger.debug("no spans are exported: %s is not set", _ENDPOINT_VARIABLES[1])
        return _nothing
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        logger.debug("the service has set up a tracer provider of its own")
        return _nothing
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - optional
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - optional

        from participant_sdk.span_export import EncodedSpanExporter, EncodingProcessor  # noqa: PLC0415 - optional
    except ImportError as error:
        logger.warning("no spans are exported: install saga-coordinator[otlp] (%s)", error)
        return _nothing
    name = os.environ.get("OTEL_SERVICE_NAME") or service_name
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(EncodingProcessor(EncodedSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def _nothing() -> None:
    pass
