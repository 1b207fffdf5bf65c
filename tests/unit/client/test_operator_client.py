"""The operator's client over a real socket: what it sends, what it repeats, and what it raises."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import status_pb2

from participant_sdk.client import (
    AttemptUnderWay,
    CoordinatorError,
    CoordinatorUnavailable,
    IncidentNotFound,
    InvalidRequest,
    NoLongerSelected,
    NotNow,
    PointOfNoReturnPassed,
    Resolution,
    SagaAlreadyEnded,
    SagaClient,
    SagaNotFound,
    SagaSelection,
    StepNotFound,
)
from participant_sdk.ids import new_saga_id
from participant_sdk.policies import RetryPolicy
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from saga.v1 import operator_pb2, saga_pb2
from shop.v1.shop_pb2 import PaymentCharged, PlaceOrder
from tests.unit.client.fake_coordinator import FakeCoordinator, unavailable

PAUSE = operator_pb2.BULK_ACTION_PAUSE


@pytest.fixture
def saga_id(coordinator: FakeCoordinator) -> str:
    saga_id = new_saga_id()
    coordinator.sagas[saga_id] = saga_pb2.Saga(id=saga_id, status=saga_pb2.SAGA_STATUS_RUNNING)
    return saga_id


def _refusal(reason: ErrorReason) -> status_pb2.Status:
    return status_with(grpc.StatusCode.FAILED_PRECONDITION, "because", error_details(reason))


# ── One saga, one step ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_explain_returns_what_the_coordinator_says(client: SagaClient, coordinator: FakeCoordinator, saga_id: str) -> None:
    explained = operator_pb2.ExplainSagaResponse(summary="It waits for charge.", choices=["RetryStep charge"])
    coordinator.operator.explanations[saga_id] = explained
    assert await client.operator.explain(saga_id.upper()) == explained


async def test_pause_resume_and_terminate_send_who_and_why(client: SagaClient, coordinator: FakeCoordinator, saga_id: str) -> None:
    paused = await client.operator.pause(saga_id, reason="move", actor="ann")
    assert (paused.paused.reason, paused.paused.actor) == ("move", "ann")
    assert not (await client.operator.resume(saga_id, reason="moved", actor="ann")).HasField("paused")
    terminated = await client.operator.terminate(saga_id, reason="by hand", actor="ann")
    assert (terminated.status, terminated.terminated.reason) == (saga_pb2.SAGA_STATUS_FAILED, "by hand")
    assert coordinator.requests == [
        operator_pb2.PauseSagaRequest(saga_id=saga_id, reason="move", actor="ann"),
        operator_pb2.ResumeSagaRequest(saga_id=saga_id, reason="moved", actor="ann"),
        operator_pb2.TerminateSagaRequest(saga_id=saga_id, reason="by hand", actor="ann"),
    ]


async def test_retry_step_sends_another_input_only_if_there_is_one(client: SagaClient, coordinator: FakeCoordinator, saga_id: str) -> None:
    await client.operator.retry_step(saga_id, "charge")
    await client.operator.retry_step(saga_id, "charge", message=PlaceOrder(card="visa"), reason="new card", actor="ann")
    first, second = coordinator.received(operator_pb2.RetryStepRequest)
    assert first == operator_pb2.RetryStepRequest(saga_id=saga_id, step_id="charge")
    expected = operator_pb2.RetryStepRequest(saga_id=saga_id, step_id="charge", reason="new card", actor="ann")
    expected.input.Pack(PlaceOrder(card="visa"))
    assert second == expected


@pytest.mark.parametrize(
    ("ended", "resolution"),
    [
        (Resolution.SKIPPED, "skipped"),
        (Resolution.REJECTED, "rejected"),
        (Resolution.COMPENSATED, "compensated"),
        (PaymentCharged(payment_id="p-17"), "succeeded"),
    ],
)
async def test_resolve_step_says_how_it_ended(
    client: SagaClient, coordinator: FakeCoordinator, saga_id: str, ended: Resolution | PaymentCharged, resolution: str
) -> None:
    await client.operator.resolve_step(saga_id, "charge", ended, reason="seen at the bank", actor="ann")
    (request,) = coordinator.received(operator_pb2.ResolveStepRequest)
    assert (request.WhichOneof("resolution"), request.step_id) == (resolution, "charge")
    assert (request.reason, request.actor) == ("seen at the bank", "ann")
    if isinstance(ended, PaymentCharged):
        assert PaymentCharged.FromString(request.succeeded.value) == ended


async def test_change_step_policy_sends_only_what_is_given(client: SagaClient, coordinator: FakeCoordinator, saga_id: str) -> None:
    retry = RetryPolicy(max_attempts=3)
    await client.operator.change_step_policy(
        saga_id, "charge", execute_retry=retry, attempt_timeout=timedelta(seconds=60), reason="slow", actor="ann"
    )
    expected = operator_pb2.ChangeStepPolicyRequest(
        saga_id=saga_id,
        step_id="charge",
        policy=saga_pb2.StepPolicy(execute_retry=retry.to_message(), attempt_timeout=Duration(seconds=60)),
        reason="slow",
        actor="ann",
    )
    assert coordinator.requests == [expected]


async def test_resolve_output_sends_a_typed_output(client: SagaClient, coordinator: FakeCoordinator, saga_id: str) -> None:
    await client.operator.resolve_output(saga_id, PaymentCharged(payment_id="p-17"), reason="by hand")
    (request,) = coordinator.received(operator_pb2.ResolveOutputRequest)
    assert PaymentCharged.FromString(request.output.value) == PaymentCharged(payment_id="p-17")


async def test_acknowledge_incident_says_which_and_why(client: SagaClient, coordinator: FakeCoordinator, saga_id: str) -> None:
    assert (await client.operator.acknowledge_incident(saga_id, 2, reason="refunded", actor="ann")).id == saga_id
    expected = operator_pb2.AcknowledgeIncidentRequest(saga_id=saga_id, incident_id=2, reason="refunded", actor="ann")
    assert coordinator.requests == [expected]


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (ErrorReason.SAGA_ALREADY_ENDED, SagaAlreadyEnded),
        (ErrorReason.STEP_NOT_FOUND, StepNotFound),
        (ErrorReason.INCIDENT_NOT_FOUND, IncidentNotFound),
        (ErrorReason.SAGA_STATUS, NotNow),
        (ErrorReason.SAGA_QUARANTINED, NotNow),
        (ErrorReason.STEP_STATUS, NotNow),
        (ErrorReason.STEP_INPUT_FIXED, NotNow),
        (ErrorReason.STEP_NOT_WAITING, NotNow),
        (ErrorReason.ATTEMPT_UNDER_WAY, AttemptUnderWay),
        (ErrorReason.POINT_OF_NO_RETURN_PASSED, PointOfNoReturnPassed),
        (ErrorReason.COMPLETION_TOKEN_INVALID, InvalidRequest),
        (ErrorReason.SELECTION_TOO_LARGE, InvalidRequest),
        (ErrorReason.SAGA_NOT_FOUND, SagaNotFound),
    ],
)
async def test_refusal_raises_by_reason_and_is_not_repeated(
    client: SagaClient, coordinator: FakeCoordinator, saga_id: str, reason: ErrorReason, error: type[CoordinatorError]
) -> None:
    coordinator.failures["RetryStep"].append(_refusal(reason))
    with pytest.raises(error) as caught:
        await client.operator.retry_step(saga_id, "charge")
    assert type(caught.value) is error
    assert (caught.value.reason, caught.value.saga_id, caught.value.may_be_done) == (reason, saga_id, False)
    assert len(coordinator.requests) == 1


async def test_refusal_after_a_lost_answer_says_that_it_may_be_done(client: SagaClient, coordinator: FakeCoordinator, saga_id: str) -> None:
    coordinator.failures["TerminateSaga"].extend([unavailable(), _refusal(ErrorReason.SAGA_ALREADY_ENDED)])
    with pytest.raises(SagaAlreadyEnded, match="may have done it") as caught:
        await client.operator.terminate(saga_id, reason="by hand")
    assert caught.value.may_be_done
    assert len(coordinator.requests) == 2


async def test_pause_whose_answer_is_lost_is_repeated(client: SagaClient, coordinator: FakeCoordinator, saga_id: str) -> None:
    coordinator.operator.lost_replies["PauseSaga"].append(unavailable())
    assert (await client.operator.pause(saga_id, reason="move")).paused.reason == "move"
    first, second = coordinator.requests
    assert first == second


async def test_id_that_is_no_uuid_is_not_sent(client: SagaClient, coordinator: FakeCoordinator) -> None:
    with pytest.raises(InvalidRequest, match="UUID"):
        await client.operator.pause("order-42")
    assert coordinator.requests == []


async def test_operator_of_a_closed_client_refuses_calls(client: SagaClient, saga_id: str) -> None:
    await client.operator.pause(saga_id)
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.operator.resume(saga_id)


# ── Many sagas ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_incidents_reads_every_page_with_the_same_conditions(client: SagaClient, coordinator: FakeCoordinator) -> None:
    coordinator.operator.page_size = 2
    coordinator.operator.incidents = [operator_pb2.SagaIncident(incident=saga_pb2.Incident(id=number)) for number in range(1, 6)]
    kinds = [saga_pb2.INCIDENT_KIND_PIVOT_UNKNOWN]
    found = [each.incident.id async for each in client.operator.incidents(include_closed=True, kinds=kinds, definition="place-order")]
    assert found == [1, 2, 3, 4, 5]
    requests = coordinator.received(operator_pb2.ListIncidentsRequest)
    assert [request.page_token for request in requests] == ["", "2", "4"]
    assert {(request.include_closed, tuple(request.kinds), request.definition_name) for request in requests} == {
        (True, tuple(kinds), "place-order")
    }


async def test_dry_run_asks_for_everything_that_is_selected(client: SagaClient, coordinator: FakeCoordinator) -> None:
    selection = SagaSelection(
        statuses=[saga_pb2.SAGA_STATUS_FAILED],
        definition="place-order",
        labels={"region": "eu"},
        created_from=datetime(2030, 1, 1, tzinfo=UTC),
        created_before=datetime(2030, 1, 2, tzinfo=UTC),
        paused=False,
        needs_person=True,
        incident_kinds=[saga_pb2.INCIDENT_KIND_STEP_EXHAUSTED],
    )
    assert [each async for each in client.operator.dry_run(selection, PAUSE)] == []
    expected = operator_pb2.SagaSelection(
        statuses=[saga_pb2.SAGA_STATUS_FAILED],
        definition_name="place-order",
        labels={"region": "eu"},
        paused=False,
        needs_person=True,
        incident_kinds=[saga_pb2.INCIDENT_KIND_STEP_EXHAUSTED],
    )
    expected.created_from.FromDatetime(datetime(2030, 1, 1))  # noqa: DTZ001 - protobuf reads naive as UTC
    expected.created_before.FromDatetime(datetime(2030, 1, 2))  # noqa: DTZ001
    assert coordinator.requests == [operator_pb2.ActOnSagasRequest(selection=expected, action=PAUSE, dry_run=True)]


async def test_acting_tells_what_became_of_each(client: SagaClient, coordinator: FakeCoordinator) -> None:
    coordinator.operator.results = [
        operator_pb2.ActOnSagasResponse(saga=saga_pb2.Saga(id="a")),
        operator_pb2.ActOnSagasResponse(saga=saga_pb2.Saga(id="b"), error=_refusal(ErrorReason.SAGA_ALREADY_ENDED)),
    ]
    acting = client.operator.act_on_sagas(SagaSelection(definition="x"), PAUSE, saga_ids=["a", "b"], reason="move", actor="ann")
    first, second = [each async for each in acting]
    assert (first.saga.id, first.refusal, first.found) == ("a", None, 2)
    assert isinstance(second.refusal, SagaAlreadyEnded)
    (request,) = coordinator.received(operator_pb2.ActOnSagasRequest)
    assert (request.dry_run, list(request.saga_ids), request.reason, request.actor) == (False, ["a", "b"], "move", "ann")


async def test_saga_that_is_selected_no_more_is_a_refusal_of_its_own(client: SagaClient, coordinator: FakeCoordinator) -> None:
    error = _refusal(ErrorReason.NO_LONGER_SELECTED)
    coordinator.operator.results = [operator_pb2.ActOnSagasResponse(saga=saga_pb2.Saga(id="a"), error=error)]
    (result,) = [each async for each in client.operator.act_on_sagas(SagaSelection(definition="x"), PAUSE, saga_ids="a", reason="move")]
    assert isinstance(result.refusal, NoLongerSelected)


async def test_acting_that_is_cut_off_is_not_repeated_and_says_how_far_it_came(client: SagaClient, coordinator: FakeCoordinator) -> None:
    coordinator.operator.results = [operator_pb2.ActOnSagasResponse(saga=saga_pb2.Saga(id=name)) for name in "abc"]
    coordinator.operator.break_after.append(2)
    acting = client.operator.act_on_sagas(SagaSelection(definition="x"), PAUSE, saga_ids="abc", reason="move")
    assert [(await anext(acting)).saga.id for _ in range(2)] == ["a", "b"]
    with pytest.raises(CoordinatorUnavailable, match="2 sagas were answered for, nobody knows about the others"):
        await anext(acting)
    assert len(coordinator.requests) == 1


async def test_dry_run_is_repeated_until_the_coordinator_is_there(client: SagaClient, coordinator: FakeCoordinator) -> None:
    coordinator.operator.results = [operator_pb2.ActOnSagasResponse(saga=saga_pb2.Saga(id="a"))]
    coordinator.operator.break_after.extend([0, 0])
    assert [each.saga.id async for each in client.operator.dry_run(SagaSelection(definition="x"), PAUSE)] == ["a"]
    assert len(coordinator.requests) == 3


async def test_dry_run_that_is_cut_off_tells_nothing_twice(client: SagaClient, coordinator: FakeCoordinator) -> None:
    coordinator.operator.results = [operator_pb2.ActOnSagasResponse(saga=saga_pb2.Saga(id=name)) for name in "ab"]
    coordinator.operator.break_after.append(1)
    with pytest.raises(CoordinatorUnavailable):
        _ = [each async for each in client.operator.dry_run(SagaSelection(definition="x"), PAUSE)]
    assert len(coordinator.requests) == 1


async def test_selection_with_a_naive_instant_is_not_sent(client: SagaClient, coordinator: FakeCoordinator) -> None:
    selection = SagaSelection(created_from=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="time zone"):
        await anext(client.operator.dry_run(selection, PAUSE))
    assert coordinator.requests == []


async def test_participants_are_those_of_the_coordinator(client: SagaClient, coordinator: FakeCoordinator) -> None:
    coordinator.operator.participants = [operator_pb2.ParticipantStanding(name="payments", under_way=3)]
    assert list(await client.operator.participants()) == coordinator.operator.participants


async def test_nodes_are_listed_and_cordoned(client: SagaClient, coordinator: FakeCoordinator) -> None:
    coordinator.operator.nodes += [operator_pb2.Node(id="a", alive=True), operator_pb2.Node(id="b")]
    assert list(await client.operator.nodes()) == coordinator.operator.nodes
    await client.operator.cordon("a")
    await client.operator.cordon("a", cordoned=False)
    assert coordinator.requests[-2:] == [
        operator_pb2.CordonNodeRequest(node_id="a", cordoned=True),
        operator_pb2.CordonNodeRequest(node_id="a"),
    ]
