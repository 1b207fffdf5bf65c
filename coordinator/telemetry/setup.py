"""Turns telemetry on as the standard OTEL_* variables say, and off again. Without a collector tracing is off and costs nothing."""

import asyncio
import logging
import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from coordinator.engine.ports import Observer
from coordinator.telemetry import names
from coordinator.telemetry.log_observer import LogObserver
from coordinator.telemetry.measures import Measure

if TYPE_CHECKING:
    from coordinator.telemetry.otlp import OtlpPipeline
    from coordinator.telemetry.otlp_metrics import OtlpMetrics

FLUSH_TIME_LIMIT_S: Final = 3.0
"""How long the end of the process may wait for the collector to take the last spans."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_{}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_{}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SAMPLER: Final = "OTEL_TRACES_SAMPLER"
_SAMPLER_RATIO: Final = "OTEL_TRACES_SAMPLER_ARG"

_logger = logging.getLogger(__name__)


class Telemetry:
    """What shows the engine's facts to the world. Closing it sends the last spans; safe to close twice."""

    def __init__(self, pipeline: "OtlpPipeline | None", service_name: str = names.SERVICE_NAME) -> None:
        self._pipeline = pipeline
        self._service_name = service_name
        self._metrics: OtlpMetrics | None = None
        self.observers: tuple[Observer, ...] = (LogObserver(),) if pipeline is None else (LogObserver(), pipeline.observer)
        """For the engine."""

    @property
    def is_tracing(self) -> bool:
        """Whether spans are sent anywhere."""
        return self._pipeline is not None

    def measure(self, measures: Sequence[Measure]) -> None:
        """Sends these from now on, if OTEL_EXPORTER_OTLP_METRICS_ENDPOINT names a collector, or OTEL_METRICS_EXPORTER asks for the one that
        OTEL_EXPORTER_OTLP_ENDPOINT names. Not without being asked: Jaeger, at that endpoint, takes traces only. To be called once at most.
        """
        is_asked_for = bool(_variable("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")) or _variable("OTEL_METRICS_EXPORTER") == "otlp"
        if not is_asked_for or not _is_collector_named("METRICS") or not _is_protocol_known("METRICS"):
            return
        from coordinator.telemetry.otlp_metrics import OtlpMetrics  # noqa: PLC0415 - as for spans

        try:
            self._metrics = OtlpMetrics(self._service_name, measures)
        except Exception:  # whatever the SDK makes of a variable that it cannot read
            _logger.exception("no metrics are sent: the OTEL_* variables cannot be used; mend them and start again")

    def shutdown(self, *, time_limit_s: float = FLUSH_TIME_LIMIT_S) -> None:
        """Sends the last spans and measures within the limit, and gives the others up. Blocks for little more than that."""
        metrics, self._metrics = self._metrics, None
        if metrics is not None:
            metrics.close(time_limit_s)
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.close(time_limit_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.to_thread(self.shutdown)


def configure_telemetry(*, service_name: str = names.SERVICE_NAME) -> Telemetry:
    """Makes the observers of this process.

    Spans are sent if OTEL_EXPORTER_OTLP_ENDPOINT or …_TRACES_ENDPOINT names a collector, unless OTEL_SDK_DISABLED is true or
    OTEL_TRACES_EXPORTER is none. Variables that cannot be used turn tracing off, with an error in the log: they are no reason to leave
    sagas alone.
    """
    if not _is_collector_named("TRACES") or not _is_protocol_known("TRACES"):
        return Telemetry(None, service_name)
    # Imported here because most processes that start a coordinator, tests above all, have no collector: see otlp.py for what it costs.
    from coordinator.telemetry.otlp import OtlpPipeline  # noqa: PLC0415

    try:
        return Telemetry(OtlpPipeline(service_name), service_name)
    except Exception:  # whatever the SDK makes of a variable that it cannot read
        _logger.exception("tracing is off: the OTEL_* variables cannot be used; mend them and start again")
        return Telemetry(None, service_name)


def sample_ratio_from_environment(configured: float) -> float:
    """Share of sagas to trace where the caller has not decided it: OTEL_TRACES_SAMPLER if set, else what is configured.

    The sampler's `parentbased_` form and its plain one mean the same here, since a caller's decision is always followed.
    """
    sampler = _variable(_SAMPLER).removeprefix("parentbased_")
    match sampler:
        case "":
            return configured
        case "always_on":
            return 1.0
        case "always_off":
            return 0.0
        case "traceidratio":
            return _sampler_ratio(configured)
        case _:
            _logger.warning("%s is not a sampler that is known here: %.3f of all sagas are traced", _SAMPLER, configured)
            return configured


def _sampler_ratio(configured: float) -> float:
    text = _variable(_SAMPLER_RATIO)
    try:
        ratio = float(text or 1.0)
    except ValueError:
        ratio = -1.0
    if 0.0 <= ratio <= 1.0:
        return ratio
    _logger.warning("%s must be a number from 0 to 1, found %r: %.3f of all sagas are traced", _SAMPLER_RATIO, text, configured)
    return configured


def _is_collector_named(signal: str) -> bool:
    if _variable("OTEL_SDK_DISABLED") == "true" or _variable(f"OTEL_{signal}_EXPORTER") == "none":
        return False
    return any(_variable(name.format(signal)) for name in _ENDPOINTS)


def _is_protocol_known(signal: str) -> bool:
    protocol = next(filter(None, (_variable(name.format(signal)) for name in _PROTOCOLS)), "grpc")
    if protocol == "grpc":
        return True
    what = "tracing is off" if signal == "TRACES" else "no metrics are sent"
    _logger.error("%s: there is only OTLP/gRPC here, and OTEL_EXPORTER_OTLP_PROTOCOL asks for %r", what, protocol)
    return False


def _variable(name: str) -> str:
    """The value in lower case; empty if unset, which OpenTelemetry takes for the same."""
    return os.environ.get(name, "").strip().lower()
