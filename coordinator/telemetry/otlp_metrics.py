"""The way of measures to a collector. Imported only when there is one."""

from collections.abc import Callable, Iterable, Sequence

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from coordinator.telemetry import names
from coordinator.telemetry.measures import Measure
from coordinator.telemetry.otlp import resource_of

Observe = Callable[[CallbackOptions], Iterable[Observation]]


class OtlpMetrics:
    """Reads measures every minute, or as OTEL_METRIC_EXPORT_INTERVAL says, and sends them as OTEL_EXPORTER_OTLP_* say. Raises whatever the
    exporter raises about variables that it cannot read.
    """

    def __init__(self, service_name: str, measures: Sequence[Measure]) -> None:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        self._provider = MeterProvider(metric_readers=[reader], resource=resource_of(service_name), shutdown_on_exit=False)
        meter = self._provider.get_meter(names.SCOPE_NAME)
        for measure in measures:
            make = meter.create_observable_counter if measure.only_grows else meter.create_observable_gauge
            make(measure.name, [_observing(measure)], measure.unit, measure.description)

    def close(self, time_limit_s: float) -> None:
        """Sends them once more, within the limit. Blocks: call it outside the loop."""
        self._provider.shutdown(timeout_millis=1000 * time_limit_s)


def _observing(measure: Measure) -> Observe:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        for value, number in measure.read().items():
            yield Observation(number, {measure.attribute: value} if measure.attribute else {})

    return observe
