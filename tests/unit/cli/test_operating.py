"""What an operator does to one saga from the command line: what is sent, what is printed, and how it exits."""

import json
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from participant_sdk.completion_token import SIGNATURE_BYTES, CompletionIdentity, write_token
from participant_sdk.ids import new_saga_id
from participant_sdk.policies import RetryPolicy
from participant_sdk.rpc_errors import ErrorReason, error_details, status_with
from saga.v1 import coordinator_pb2, operator_pb2, saga_pb2
from shop.v1.shop_pb2 import PaymentCharged, PlaceOrder
from tests.unit.cli.scripted import Invoke, put_definition, put_saga
from tests.unit.client.fake_coordinator import FakeCoordinator

WHY = ("--reason", "seen", "--actor", "ann")


# ── The whole saga ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_pause_resume_and_terminate_say_how_the_saga_stands(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    saga_id = await put_saga(coordinator)
    printed = [await invoke(command, saga_id, *WHY) for command in ("pause", "resume", "terminate")]
    assert [result.stdout.rstrip() for result in printed] == [
        f"{saga_id} RUNNING paused",
        f"{saga_id} RUNNING",
        f"{saga_id} FAILED terminated",
    ]
    assert [(request.reason, request.actor) for request in coordinator.requests] == [("seen", "ann")] * 3  # type: ignore[attr-defined]


async def test_acknowledge_closes_that_incident(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    saga_id = await put_saga(coordinator)
    assert (await invoke("acknowledge", saga_id, "2", *WHY)).stdout.split() == [saga_id, "RUNNING"]
    assert coordinator.requests == [operator_pb2.AcknowledgeIncidentRequest(saga_id=saga_id, incident_id=2, reason="seen", actor="ann")]


async def test_pause_says_who_asks_and_prints_json(invoke: Invoke, coordinator: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    result = await invoke("pause", saga_id := await put_saga(coordinator), "--json")
    printed = json.loads(result.stdout)
    assert (printed["id"], printed["paused"]["actor"]) == (saga_id, "ann")


@pytest.mark.parametrize("arguments", [("terminate",), ("resolve", "charge", "--skipped"), ("resolve-output", "{}"), ("acknowledge", "1")])
async def test_what_decides_for_the_saga_needs_a_reason(invoke: Invoke, coordinator: FakeCoordinator, arguments: tuple[str, ...]) -> None:
    command, *rest = arguments
    result = await invoke(command, await put_saga(coordinator), *rest)
    assert result.exit_code == 2
    assert "--reason" in result.stderr
    assert coordinator.requests == []


async def test_what_the_saga_forbids_is_refused_with_its_reason(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    info = error_details(ErrorReason.ATTEMPT_UNDER_WAY)
    coordinator.failures["ResolveStep"].append(status_with(grpc.StatusCode.FAILED_PRECONDITION, "attempt 2 is under way", info))
    result = await invoke("resolve", await put_saga(coordinator), "charge", "--skipped", *WHY, "--json")
    assert result.exit_code == 4
    error = json.loads(result.stderr)
    assert (error["error"], error["reason"]) == ("AttemptUnderWay", "ATTEMPT_UNDER_WAY")


async def test_cancel_that_waits_for_the_pivot_says_so(invoke: Invoke, coordinator: FakeCoordinator) -> None:  # R10
    saga_id = await put_saga(coordinator)
    coordinator.sagas[saga_id].turn_back_requested.actor = "ann"
    assert "turn-back requested" in (await invoke("cancel", saga_id)).stdout


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_retry_without_input_asks_for_no_definition(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    saga_id = await put_saga(coordinator)
    assert (await invoke("retry", saga_id, "charge", *WHY)).exit_code == 0
    assert coordinator.requests == [operator_pb2.RetryStepRequest(saga_id=saga_id, step_id="charge", reason="seen", actor="ann")]


@pytest.mark.parametrize("source", ["json", "file", "stdin"])
async def test_retry_reads_another_input_by_the_type_of_the_step(
    invoke: Invoke, coordinator: FakeCoordinator, tmp_path: Path, source: str
) -> None:
    put_definition(coordinator)
    text = '{"card": "visa"}'
    (tmp_path / "order.json").write_text(text, encoding="utf-8")
    given = {"json": text, "file": f"@{tmp_path / 'order.json'}", "stdin": "-"}[source]
    result = await invoke("retry", await put_saga(coordinator), "charge", "--input", given, stdin=text)
    assert result.exit_code == 0, result.stderr
    (request,) = coordinator.received(operator_pb2.RetryStepRequest)
    assert PlaceOrder.FromString(request.input.value) == PlaceOrder(card="visa")


async def test_retry_of_an_unknown_step_names_those_that_there_are(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    put_definition(coordinator).on_failure.input_type = "shop.v1.PlaceOrder"
    result = await invoke("retry", await put_saga(coordinator), "chrage", "--input", "{}")
    assert result.exit_code == 2
    assert "place-order v1 has no step 'chrage'; it has charge, on_failure" in result.stderr


@pytest.mark.parametrize("resolution", ["skipped", "rejected", "compensated"])
async def test_resolve_says_how_the_step_ended(invoke: Invoke, coordinator: FakeCoordinator, resolution: str) -> None:
    assert (await invoke("resolve", await put_saga(coordinator), "charge", f"--{resolution}", *WHY)).exit_code == 0
    (request,) = coordinator.received(operator_pb2.ResolveStepRequest)
    assert (request.WhichOneof("resolution"), request.reason, request.actor) == (resolution, "seen", "ann")


@pytest.mark.parametrize("step", ["charge", "on_success"])
async def test_resolve_as_succeeded_reads_the_output_by_its_type(invoke: Invoke, coordinator: FakeCoordinator, step: str) -> None:
    put_definition(coordinator).on_success.output_type = "shop.v1.PaymentCharged"
    result = await invoke("resolve", await put_saga(coordinator), step, "--succeeded", '{"payment_id": "p-17"}', *WHY)
    assert result.exit_code == 0, result.stderr
    (request,) = coordinator.received(operator_pb2.ResolveStepRequest)
    assert PaymentCharged.FromString(request.succeeded.value) == PaymentCharged(payment_id="p-17")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "exactly one of"),
        (("--skipped", "--rejected"), "exactly one of"),
        (("--skipped", "--succeeded", "{}"), "exactly one of"),
        (("--succeeded", '{"payment": "p"}'), 'no field named "payment"'),
        (("--succeeded", "@nowhere.json"), "cannot be read"),
    ],
)
async def test_resolve_that_says_nothing_clear_is_wrong_usage(
    invoke: Invoke, coordinator: FakeCoordinator, flags: tuple[str, ...], words: str
) -> None:
    put_definition(coordinator)
    result = await invoke("resolve", await put_saga(coordinator), "charge", *flags, *WHY)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not coordinator.received(operator_pb2.ResolveStepRequest)


async def test_resolve_output_reads_it_by_the_type_of_the_definition(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    put_definition(coordinator).output_type = "shop.v1.PaymentCharged"
    result = await invoke("resolve-output", await put_saga(coordinator), '{"payment_id": "p-17"}', *WHY)
    assert result.exit_code == 0, result.stderr
    (request,) = coordinator.received(operator_pb2.ResolveOutputRequest)
    assert PaymentCharged.FromString(request.output.value) == PaymentCharged(payment_id="p-17")


async def test_resolve_output_of_no_known_type_is_wrong_usage(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    put_definition(coordinator)
    result = await invoke("resolve-output", await put_saga(coordinator), "{}", *WHY)
    assert result.exit_code == 2
    assert "does not say of which type its output is" in result.stderr


# ── Policies ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _sent_policy(coordinator: FakeCoordinator) -> saga_pb2.StepPolicy:
    (request,) = coordinator.received(operator_pb2.ChangeStepPolicyRequest)
    return request.policy


async def test_policy_of_times_only_asks_for_nothing_else(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    saga_id = await put_saga(coordinator)
    flags = ("--attempt-timeout", "60", "--execute-time-limit", "61", "--recovery-time-limit", "62")
    assert (await invoke("policy", saga_id, "charge", *flags, *WHY)).exit_code == 0
    policy = saga_pb2.StepPolicy(
        attempt_timeout=Duration(seconds=60), execute_time_limit=Duration(seconds=61), compensate_time_limit=Duration(seconds=62)
    )
    expected = operator_pb2.ChangeStepPolicyRequest(saga_id=saga_id, step_id="charge", policy=policy, reason="seen", actor="ann")
    assert coordinator.requests == [expected]


async def test_policy_keeps_what_is_not_given(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    definition = put_definition(coordinator)
    retry = RetryPolicy(initial_backoff=timedelta(seconds=1), multiplier=3, non_retryable_codes=frozenset({grpc.StatusCode.ABORTED}))
    definition.steps[0].execute_retry.CopyFrom(retry.to_message())
    result = await invoke("policy", await put_saga(coordinator), "charge", "--max-attempts", "20")
    assert result.exit_code == 0, result.stderr
    expected = retry.to_message()
    expected.max_attempts = 20
    assert _sent_policy(coordinator) == saga_pb2.StepPolicy(execute_retry=expected)


async def test_policy_builds_on_the_last_change_of_that_step(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    put_definition(coordinator)
    saga_id = await put_saga(coordinator)
    for step, attempts in (("charge", 5), ("charge", 7), ("ship", 9)):
        changed = saga_pb2.StepPolicy(execute_retry=saga_pb2.RetryPolicy(max_attempts=attempts))
        event = saga_pb2.StepPolicyChanged(step_id=step, policy=changed)
        await coordinator.move(saga_id, saga_pb2.SAGA_STATUS_RUNNING, step_policy_changed=event)
    assert (await invoke("policy", saga_id, "charge", "--max-backoff", "300")).exit_code == 0
    expected = RetryPolicy(max_attempts=7, max_backoff=timedelta(seconds=300)).to_message()
    assert _sent_policy(coordinator).execute_retry == expected


async def test_policy_of_undoing_is_that_of_the_defaults_unless_the_step_says_so(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    put_definition(coordinator).defaults.compensate_retry.max_attempts = 3
    saga_id = await put_saga(coordinator)
    assert (await invoke("policy", saga_id, "charge", "--compensate", "--multiplier", "4")).exit_code == 0
    assert _sent_policy(coordinator) == saga_pb2.StepPolicy(compensate_retry=RetryPolicy(max_attempts=3, multiplier=4).to_message())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "expected at least one of --max-attempts"),
        (("--compensate",), "expected at least one of --max-attempts"),
        (("--initial-backoff", "60", "--max-backoff", "1"), "this makes no policy: backoffs must be"),
        (("--attempt-timeout", "0"), "--attempt-timeout"),
    ],
)
async def test_policy_that_is_none_is_wrong_usage(invoke: Invoke, coordinator: FakeCoordinator, flags: tuple[str, ...], words: str) -> None:
    put_definition(coordinator)
    result = await invoke("policy", await put_saga(coordinator), "charge", *flags)
    assert result.exit_code == 2
    assert words in result.stderr
    assert not coordinator.received(operator_pb2.ChangeStepPolicyRequest)


# ── Steps that finish later ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _token(saga_id: str) -> str:
    return write_token(CompletionIdentity(saga_id, "charge", 1), bytes(SIGNATURE_BYTES))


async def test_complete_reads_the_output_by_the_step_of_the_token(invoke: Invoke, coordinator: FakeCoordinator) -> None:  # R24
    put_definition(coordinator)
    saga_id = await put_saga(coordinator)
    arguments = ("complete", _token(saga_id), "--output", '{"payment_id": "p-17"}')
    first, again = await invoke(*arguments), await invoke(*arguments, "--json")
    assert first.stdout.rstrip() == f"{saga_id} charge"
    assert json.loads(again.stdout) == {"saga_id": saga_id, "step_id": "charge", "repeated": True}
    request, _ = coordinator.received(coordinator_pb2.CompleteStepRequest)
    assert PaymentCharged.FromString(request.succeeded.output.value) == PaymentCharged(payment_id="p-17")


async def test_complete_rejects_with_a_reason_for_programs(invoke: Invoke, coordinator: FakeCoordinator) -> None:
    token = _token(new_saga_id())
    assert (await invoke("complete", token, "--reject", "DENIED", "--message", "not this year")).exit_code == 0
    (request,) = coordinator.received(coordinator_pb2.CompleteStepRequest)
    assert request.rejected.status.message == "not this year"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{token}",), "either --output or --reject"),
        (("{token}", "--output", "{}", "--reject", "DENIED"), "either --output or --reject"),
        (("nonsense", "--reject", "DENIED"), "expected a completion token"),
    ],
)
async def test_complete_that_says_nothing_clear_is_wrong_usage(
    invoke: Invoke, coordinator: FakeCoordinator, arguments: tuple[str, ...], words: str
) -> None:
    token = _token(new_saga_id())
    result = await invoke("complete", *(token if each == "{token}" else each for each in arguments))
    assert result.exit_code == 2
    assert words in result.stderr
    assert coordinator.requests == []
