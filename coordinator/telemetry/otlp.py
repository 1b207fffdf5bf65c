"""The way of spans to a collector: a bounded queue, a thread of its own, and an end that no collector can delay.

Imported only when there is a collector: the SDK and its exporter take 0.25 s and 6 MiB to import.
"""

import logging
import os
import threading
from typing import Final

from opentelemetry.sdk.environment_variables import OTEL_BSP_MAX_QUEUE_SIZE
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource

from coordinator.telemetry.spans import SpanObserver
from participant_sdk.span_export import EncodedSpanExporter, EncodingProcessor

SPANS_QUEUED_MAX: Final = 16_384
"""Spans that wait for the collector at most, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise; more are dropped. The SDK's own 2,048 are
half a second at 1,000 three-step sagas/s; these take 9.4 MiB (measured, 0.6 KiB each) while the collector is away."""
CANCEL_TIME_LIMIT_S: Final = 1.0
"""How long an export that was cut off may take to notice."""

_logger = logging.getLogger(__name__)


class OtlpPipeline:
    """Sends spans through OTLP/gRPC, as the standard OTEL_EXPORTER_OTLP_* and OTEL_BSP_* variables say.

    A collector that is away, slow or broken costs spans and nothing else: the queue is bounded and drops, and `close` is bounded and cuts
    off. Raises whatever the exporter raises about variables that it cannot read.
    """

    def __init__(self, service_name: str) -> None:
        self._exporter = EncodedSpanExporter()
        queued_max = None if os.environ.get(OTEL_BSP_MAX_QUEUE_SIZE) else SPANS_QUEUED_MAX
        self._processor = EncodingProcessor(self._exporter, max_queue_size=queued_max)
        self.observer = SpanObserver(self._processor, resource_of(service_name))

    def close(self, time_limit_s: float) -> None:
        """Sends what is queued, but for no longer than the limit; what is left then is lost. Blocks: call it outside the loop."""
        # The processor's own limit is 30 s and cannot be set from outside. Closing the exporter under it ends the call in flight.
        closing = threading.Thread(target=self._processor.shutdown, name="close-otlp", daemon=True)
        closing.start()
        closing.join(time_limit_s)
        if not closing.is_alive():
            return
        _logger.warning("the collector did not take all spans within %.1f s; the rest is lost", time_limit_s)
        self._exporter.shutdown()
        closing.join(CANCEL_TIME_LIMIT_S)


def resource_of(service_name: str) -> Resource:
    """Who the spans are from: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over the name given here."""
    return Resource.create({SERVICE_NAME: service_name}).merge(OTELResourceDetector().detect())
