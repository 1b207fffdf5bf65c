"""`saga explain`, `saga incidents` and `saga participants`: what people and programs are told."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from coordinator.cli.explaining import render_explanation
from participant_sdk.rpc_errors import error_details, status_with
from saga.v1 import operator_pb2, saga_pb2
from tests.unit.cli.scripted import Invoke, put_saga
from tests.unit.client.fake_coordinator import FakeCoordinator

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
DOWN = status_with(14, "connection refused", error_details("DOWN"))


def _at(seconds: float) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(NOW + timedelta(seconds=seconds))
    return timestamp


def _explained(saga_id: str = "x") -> operator_pb2.ExplainSagaResponse:
    definition = saga_pb2.DefinitionReference(name="place-order", version=3)
    return operator_pb2.ExplainSagaResponse(
        saga=saga_pb2.Saga(id=saga_id, definition=definition, status=saga_pb2.SAGA_STATUS_RUNNING),
        summary="It waits until charge is tried again.",
        waits=[
            operator_pb2.WaitExplanation(
                reason=operator_pb2.WAIT_REASON_BACKOFF,
                step_id="charge",
                description="attempt 3 failed",
                until=_at(4),
                error=DOWN,
                participant="payments",
            ),
            operator_pb2.WaitExplanation(
                reason=operator_pb2.WAIT_REASON_PAUSED, person=saga_pb2.PersonAction(actor="ann", reason="\x1b[31mmove")
            ),
        ],
        next="charge is tried a fourth time",
        next_at=_at(4),
        choices=[
            "RetryStep charge",
            "RetryStep ship (with an input)",
            "ResolveStep charge (succeeded, skipped)",
            "CancelSaga",
            "ResolveOutput",
            "Something newer",
            "TerminateSaga",
            "AcknowledgeIncident 3",
        ],
    )


def _drawn(explained: operator_pb2.ExplainSagaResponse) -> list[str]:
    console = Console(width=160, no_color=True)
    with console.capture() as captured:
        console.print(render_explanation(explained, now=NOW))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_explanation_says_why_until_when_what_next_and_what_to_type() -> None:
    lines = _drawn(_explained())
    assert lines[:2] == ["place-order v3  x  RUNNING", "It waits until charge is tried again."]
    assert " ".join(lines[4].split()) == "charge attempt 3 failed; last error: DOWN connection refused; until: in 4.00 s, 12:00:04 UTC"
    assert " ".join(lines[5].split()) == "the saga paused by ann: \N{REPLACEMENT CHARACTER}[31mmove"
    assert lines[7:] == [
        "next   charge is tried a fourth time (in 4.00 s, 12:00:04 UTC)",
        "",
        "you can saga retry x charge",
        "you can saga retry x ship --input JSON",
        "you can saga resolve x charge --succeeded JSON|--skipped --reason …",
        "you can saga cancel x",
        "you can saga resolve-output x JSON --reason …",
        "you can Something newer",
        "you can saga terminate x --reason …",
        "you can saga acknowledge x 3 --reason …",
    ]


def test_error_that_the_description_has_already_is_not_said_twice() -> None:
    explained = _explained()
    explained.waits[0].description = "attempt 3 failed: connection refused"
    assert "last error" not in "\n".join(_drawn(explained))


def test_what_the_summary_says_already_is_not_repeated() -> None:
    explained = _explained()
    del explained.waits[1]
    explained.summary = "RUNNING: attempt 3 failed."
    assert not any("waits" in line for line in _drawn(explained))


def test_instant_that_the_description_has_already_is_not_said_twice() -> None:
    explained = _explained()
    explained.waits[0].description = "It is tried again at 2030-01-01 12:00:04 UTC"
    assert "until:" not in "\n".join(_drawn(explained))


@pytest.mark.parametrize(("seconds", "words"), [(-3, "due since 11:59:57 UTC"), (86400, "in 1 d 0 h, 2030-01-02 12:00:00 UTC")])
def test_instant_is_said_as_far_as_it_is(seconds: float, words: str) -> None:
    explained = _explained()
    explained.next_at.CopyFrom(_at(seconds))
    assert f"next   charge is tried a fourth time ({words})" in _drawn(explained)


def test_explanation_of_an_ended_saga_is_short() -> None:
    explained = _explained()
    for name in ("waits", "next", "next_at", "choices"):
        explained.ClearField(name)
    assert len(_drawn(explained)) == 2


async def test_explain_prints_json_for_programs(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    saga_id = await put_saga(coordinator)
    coordinator.operator.explanations[saga_id] = _explained(saga_id)
    assert "It waits until charge is tried again." in (await invoke("explain", saga_id)).stdout
    printed = json.loads((await invoke("explain", saga_id, "--json")).stdout)
    assert (printed["waits"][0]["reason"], printed["choices"][0]) == ("WAIT_REASON_BACKOFF", "RetryStep charge")


# ── Incidents ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _incident(number: int, *, is_closed: bool = False) -> operator_pb2.SagaIncident:
    opened = Timestamp()
    opened.FromDatetime(datetime.now(UTC) - timedelta(minutes=5))
    incident = saga_pb2.Incident(id=number, kind=saga_pb2.INCIDENT_KIND_PIVOT_UNKNOWN, step_id="charge", error=DOWN, opened_at=opened)
    if is_closed:
        incident.closed_at.FromDatetime(opened.ToDatetime() + timedelta(seconds=7))
    definition = saga_pb2.DefinitionReference(name="place-order", version=3)
    return operator_pb2.SagaIncident(saga_id=f"saga-{number}", definition=definition, incident=incident)


async def test_incidents_say_which_saga_since_when_and_why(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    coordinator.operator.incidents = [_incident(1), _incident(2, is_closed=True)]
    result = await invoke("incidents", "--kind", "pivot_unknown", "--definition", "place-order", "--all")
    (_, first, second) = (" ".join(line.split()) for line in result.stdout.splitlines())
    assert first.startswith("saga-1 1 open 5 min")
    assert first.endswith("place-order v3, charge: pivot unknown: DOWN connection refused")
    assert second.startswith("saga-2 2 closed 7.00 s place-order")
    (request,) = coordinator.received(operator_pb2.ListIncidentsRequest)
    expected = operator_pb2.ListIncidentsRequest(
        page_size=200, include_closed=True, kinds=[saga_pb2.INCIDENT_KIND_PIVOT_UNKNOWN], definition_name="place-order"
    )
    assert request == expected


async def test_incidents_stop_at_the_limit(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    coordinator.operator.incidents = [_incident(number) for number in range(1, 5)]
    lines = (await invoke("incidents", "--limit", "2", "--json")).stdout.splitlines()
    assert [json.loads(line)["incident"]["id"] for line in lines] == [1, 2]


async def test_no_incident_is_good_news_for_people_and_nothing_for_programs(invoke: Invoke) -> None:
    assert (await invoke("incidents")).stdout.strip() == "nothing waits for a person"
    assert (await invoke("incidents", "--json")).stdout == ""


# ── Participants ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_participants_show_whose_circuit_is_open(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    open_until = Timestamp()
    open_until.FromDatetime(datetime.now(UTC) + timedelta(hours=2, seconds=20))
    well = operator_pb2.ParticipantStanding(
        name="inventory", targets=["127.0.0.1:1"], under_way=3, concurrency=100, circuit=operator_pb2.CIRCUIT_STATE_CLOSED
    )
    ill = operator_pb2.ParticipantStanding(
        name="payments",
        waiting=7,
        concurrency=10,
        rate_per_second=2.5,
        circuit=operator_pb2.CIRCUIT_STATE_OPEN,
        open_until=open_until,
        last_error=DOWN,
    )
    coordinator.operator.participants = [well, ill]
    _, first, second = (" ".join(line.split()) for line in (await invoke("participants")).stdout.splitlines())
    assert first == "inventory closed 3 of 100 0 any 127.0.0.1:1"
    assert second == "payments open, 2 h 0 min 0 of 10 7 2.5 nowhere DOWN connection refused"
    printed = [json.loads(line) for line in (await invoke("participants", "--json")).stdout.splitlines()]
    assert [each["name"] for each in printed] == ["inventory", "payments"]
