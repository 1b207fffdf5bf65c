"""One saga is one trace, across processes and across a crash (E9): real processes, real sockets, a real OTLP receiver."""

import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import SagaClient
from saga.v1 import saga_pb2
from tests.integration.definitions import three_steps
from tests.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.processes import ROOT, CoordinatorProcess, free_port, python_environment, wait_until_serving

QUICK_EXPORT = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@asynccontextmanager
async def bookkeeper_process(directory: Path, coordinator: str, environment: dict[str, str]) -> AsyncIterator[None]:
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "tests.bookkeeper_process", str(directory), coordinator, address]
    with (directory / "books.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=python_environment(environment), stdout=log, stderr=log)
    try:
        await wait_until_serving(address, process)
        yield
    finally:
        process.terminate()
        process.wait(20)


async def refused_saga(client: SagaClient) -> saga_pb2.Saga:
    handle = await client.start("three-steps", StringValue(value="refuse"))
    return await handle.wait(timeout=timedelta(minutes=1))


def of_service(spans: list[ReceivedSpan], service: str) -> list[ReceivedSpan]:
    return [span for span in spans if span.service == service]


async def test_compensated_saga_is_one_trace(tmp_path: Path) -> None:  # E9
    async with OtlpReceiver() as receiver:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, **QUICK_EXPORT}
        with CoordinatorProcess(tmp_path, environment=environment) as coordinator:
            await coordinator.start()
            async with bookkeeper_process(tmp_path, coordinator.address, environment), SagaClient(coordinator.address) as client:
                await client.register(three_steps())
                saga = await refused_saga(client)
                await receiver.wait_for(lambda spans: len(spans) >= 11)
        spans = receiver.spans
    assert len({span.trace_id for span in spans}) == 1
    assert spans[0].trace_id == saga.traceparent.split("-")[1]
    assert Counter((span.service, span.name) for span in spans) == {
        ("saga-coordinator", "saga three-steps"): 1,
        **{("saga-coordinator", f"execute books.{step}"): 1 for step in ("first", "second", "third")},
        **{("saga-coordinator", f"compensate books.{step}"): 1 for step in ("first", "second")},
        **{("books", f"execute books.{step}"): 1 for step in ("first", "second", "third")},
        **{("books", f"compensate books.{step}"): 1 for step in ("first", "second")},
    }
    check_shape(spans)


def check_shape(spans: list[ReceivedSpan]) -> None:
    """Attempts stand below the root, the participant's spans below their attempts, compensations are linked to what they undo."""
    assert len({span.span_id for span in spans}) == len(spans), "no span twice"
    by_id = {span.span_id: span for span in spans}
    (root,) = [span for span in spans if span.name == "saga three-steps"]
    executed = {
        # The participant's spans know which attempts there were, also those whose own span died with its process.
        *((span.attributes["saga.step"], span.parent_span_id) for span in of_service(spans, "books") if span.name.startswith("execute")),
    }
    for span in of_service(spans, "saga-coordinator"):
        if span is root:
            continue
        assert span.parent_span_id == root.span_id
        if span.name.startswith("compensate"):
            (link,) = span.links
            assert (span.attributes["saga.step"], link.span_id) in executed
    for span in of_service(spans, "books"):
        parent = by_id.get(span.parent_span_id)
        if parent is not None:  # the attempt's span may have died with its process before it was exported
            assert (parent.service, parent.name) == ("saga-coordinator", span.name)


@pytest.mark.full
async def test_trace_goes_on_after_the_coordinator_was_killed(tmp_path: Path) -> None:  # E9, R29
    async with OtlpReceiver() as receiver:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, **QUICK_EXPORT}
        with CoordinatorProcess(tmp_path, environment=environment, module="tests.crashing_coordinator") as coordinator:
            await coordinator.start()
            async with bookkeeper_process(tmp_path, coordinator.address, environment), SagaClient(coordinator.address) as client:
                await client.register(three_steps())
                coordinator.terminate()
                await coordinator.start({"CRASH_AT": "released:3"})  # two steps are done, the third is under way
                handle = await client.start("three-steps", StringValue(value="refuse"))
                await coordinator.wait()
                await coordinator.start()
                saga = await handle.wait(timeout=timedelta(minutes=1))
                await receiver.wait_for(lambda spans: any(span.name == "saga three-steps" for span in spans))
                await receiver.wait_for(lambda spans: len([span for span in spans if span.name == "compensate books.first"]) == 2)
        spans = receiver.spans
    assert saga.status == saga_pb2.SAGA_STATUS_COMPENSATED
    assert {span.trace_id for span in spans} == {saga.traceparent.split("-")[1]}
    check_shape(spans)
    names = Counter((span.service, span.name) for span in spans)
    assert names["saga-coordinator", "execute books.third"] >= 1
    assert names["saga-coordinator", "compensate books.first"] == names["books", "compensate books.first"] == 1
