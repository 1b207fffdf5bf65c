"""When tracing is on, and what the standard OTEL_* variables change."""

import logging

import pytest

from coordinator.telemetry.otlp import resource_of
from coordinator.telemetry.setup import configure_telemetry, sample_ratio_from_environment

ENDPOINT, DISABLED = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        ENDPOINT,
        DISABLED,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_TRACES_EXPORTER",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
    ):
        monkeypatch.delenv(name, raising=False)


def is_tracing_with(monkeypatch: pytest.MonkeyPatch, **variables: str) -> bool:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    telemetry = configure_telemetry()
    is_tracing = telemetry.is_tracing
    telemetry.shutdown()
    telemetry.shutdown()
    assert len(telemetry.observers) == (2 if is_tracing else 1)
    return is_tracing


@pytest.mark.parametrize("name", [ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_collector_named_turns_tracing_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert is_tracing_with(monkeypatch, **{name: NOWHERE})


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {ENDPOINT: ""},
        {ENDPOINT: NOWHERE, DISABLED: "True"},
        {ENDPOINT: NOWHERE, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_no_collector_or_sdk_disabled_leaves_tracing_off_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str]
) -> None:
    assert not is_tracing_with(monkeypatch, **variables)
    assert not caplog.records


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
        {"OTEL_EXPORTER_OTLP_COMPRESSION": "zip"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "7"},
    ],
)
def test_variable_that_cannot_be_used_leaves_tracing_off_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str]
) -> None:
    assert not is_tracing_with(monkeypatch, **{ENDPOINT: NOWHERE, **variables})
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.messages[0].startswith("tracing is off: ")


def test_service_is_named_by_the_coordinator_unless_the_environment_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resource_of("saga-coordinator").attributes["service.name"] == "saga-coordinator"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=from-attributes,deployment.environment=test")
    assert resource_of("saga-coordinator").attributes["service.name"] == "from-attributes"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-name")
    attributes = resource_of("saga-coordinator").attributes
    assert (attributes["service.name"], attributes["deployment.environment"]) == ("from-name", "test")


@pytest.mark.parametrize(
    ("sampler", "argument", "ratio"),
    [
        ("", "", 0.5),
        ("always_on", "", 1.0),
        ("parentbased_always_on", "", 1.0),
        ("parentbased_always_off", "", 0.0),
        ("traceidratio", "0.25", 0.25),
        ("parentbased_traceidratio", "", 1.0),
    ],
)
def test_sampler_of_the_environment_wins_over_the_setting(
    monkeypatch: pytest.MonkeyPatch, sampler: str, argument: str, ratio: float
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    assert sample_ratio_from_environment(0.5) == ratio


@pytest.mark.parametrize(
    ("sampler", "argument"), [("jaeger_remote", ""), ("traceidratio", "many"), ("traceidratio", "1.5"), ("traceidratio", "nan")]
)
def test_sampler_that_cannot_be_used_leaves_the_setting_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sampler: str, argument: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    assert sample_ratio_from_environment(0.5) == 0.5
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
