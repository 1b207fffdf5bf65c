"""What operators send: bounded, with a reason where one is due, and of the types that the definition says."""

from collections.abc import Callable

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.wrappers_pb2 import Int32Value

from coordinator.api import operator_requests as asked
from coordinator.api.errors import RefusedError
from coordinator.codec.definitions import CompiledDefinition, compile_definition
from coordinator.core.inputs import (
    ChangePolicy,
    Pause,
    PolicyChange,
    Resolution,
    ResolvedCompensated,
    ResolvedRejected,
    ResolvedSkipped,
    ResolvedSucceeded,
    ResolveOutput,
    ResolveStep,
    Resume,
    RetryStep,
    Terminate,
)
from coordinator.core.plan import RetryPolicy
from coordinator.core.values import StepId
from participant_sdk.rpc_errors import error_reason
from saga.v1 import operator_pb2, saga_pb2
from tests.builders import SAGA, seconds
from tests.unit.api.refusals import refused
from tests.unit.api.stand import PAYLOAD_BYTES_MAX, STRING, packed, text, trip


@pytest.fixture(scope="module")
def compiled() -> CompiledDefinition:
    definition = trip()
    definition.on_success.CopyFrom(saga_pb2.HookDefinition(action="mail.send", input_type=STRING, output_type=STRING))
    return compile_definition(definition, FileDescriptorSet())


def test_commands_for_whole_sagas_carry_who_and_why() -> None:
    who = {"reason": "audit", "actor": "ann"}
    assert asked.pause_command(operator_pb2.PauseSagaRequest(**who)) == Pause(reason="audit", actor="ann")
    assert asked.resume_command(operator_pb2.ResumeSagaRequest(**who)) == Resume(reason="audit", actor="ann")
    terminate = operator_pb2.TerminateSagaRequest(**who)
    assert asked.terminate_command(terminate) == Terminate(reason="audit", actor="ann")


LONG = {"reason": "r" * 1_025, "actor": "a\0"}
LONG_RETRY = operator_pb2.RetryStepRequest(reason=LONG["reason"], actor=LONG["actor"])


@pytest.mark.parametrize(
    ("check", "fields"),
    [
        (lambda: asked.pause_command(operator_pb2.PauseSagaRequest(**LONG)), {"reason", "actor"}),
        (lambda: asked.resume_command(operator_pb2.ResumeSagaRequest(**LONG)), {"reason", "actor"}),
        (lambda: asked.terminate_command(operator_pb2.TerminateSagaRequest()), {"reason"}),
        (
            lambda: asked.check_retry(LONG_RETRY),
            {"step_id", "reason", "actor"},
        ),
        (lambda: asked.check_retry(operator_pb2.RetryStepRequest(step_id="s" * 65)), {"step_id"}),
        (lambda: asked.check_resolution(operator_pb2.ResolveStepRequest(step_id="ship")), {"reason", "resolution"}),
        (lambda: asked.check_output_resolution(operator_pb2.ResolveOutputRequest()), {"reason", "output"}),
        (lambda: asked.policy_command(operator_pb2.ChangeStepPolicyRequest(step_id="ship")), {"policy"}),
    ],
)
def test_what_is_missing_or_too_long_is_told_at_once(check: Callable[[], object], fields: set[str]) -> None:
    assert set(refused(check)) == fields


def retry(compiled: CompiledDefinition, step_id: str = "ship", value: str | None = None) -> RetryStep:
    request = operator_pb2.RetryStepRequest(saga_id=SAGA, step_id=step_id, reason="try", actor="ann")
    if value is not None:
        request.input.CopyFrom(packed(value))
    return asked.retry_command(request, compiled, PAYLOAD_BYTES_MAX)


def test_retry_takes_another_input_of_the_steps_type(compiled: CompiledDefinition) -> None:
    assert retry(compiled) == RetryStep(step_id=StepId("ship"), reason="try", actor="ann")
    assert retry(compiled, value="again").input == text("again")


def test_retry_with_an_input_that_does_not_fit_is_refused(compiled: CompiledDefinition) -> None:
    request = operator_pb2.RetryStepRequest(step_id="ship")
    request.input.Pack(Int32Value(value=1))
    with pytest.raises(RefusedError) as caught:
        asked.retry_command(request, compiled, PAYLOAD_BYTES_MAX)
    assert error_reason(caught.value.status) == "INPUT_TYPE_MISMATCH"
    with pytest.raises(RefusedError) as caught:
        retry(compiled, value="x" * PAYLOAD_BYTES_MAX)
    assert error_reason(caught.value.status) == "PAYLOAD_TOO_LARGE"
    with pytest.raises(RefusedError) as caught:
        retry(compiled, "sail", "x")
    assert error_reason(caught.value.status) == "STEP_NOT_FOUND"


@pytest.mark.parametrize(
    ("field", "message", "resolution"),
    [
        ("skipped", saga_pb2.ResolvedSkipped(), ResolvedSkipped()),
        ("rejected", saga_pb2.ResolvedRejected(), ResolvedRejected()),
        ("compensated", saga_pb2.ResolvedCompensated(), ResolvedCompensated()),
        ("succeeded", packed("by hand"), ResolvedSucceeded(text("by hand"))),
    ],
)
@pytest.mark.parametrize("step_id", ["ship", "on_success"])
def test_every_resolution_becomes_a_command(
    compiled: CompiledDefinition, step_id: str, field: str, message: object, resolution: Resolution
) -> None:
    request = operator_pb2.ResolveStepRequest(step_id=step_id, reason="seen", actor="ann", **{field: message})  # type: ignore[arg-type]
    asked.check_resolution(request)
    expected = ResolveStep(step_id=StepId(step_id), resolution=resolution, reason="seen", actor="ann")
    assert asked.resolve_command(request, compiled, PAYLOAD_BYTES_MAX) == expected


def test_resolution_with_the_wrong_type_is_refused(compiled: CompiledDefinition) -> None:
    request = operator_pb2.ResolveStepRequest(step_id="ship", reason="seen")
    request.succeeded.Pack(Int32Value(value=1))
    found = refused(lambda: asked.resolve_command(request, compiled, PAYLOAD_BYTES_MAX))
    assert "google.protobuf.StringValue" in found["succeeded"]


def test_output_of_the_saga_is_of_its_type(compiled: CompiledDefinition) -> None:
    request = operator_pb2.ResolveOutputRequest(output=packed("paid"), reason="by hand", actor="ann")
    asked.check_output_resolution(request)
    expected = ResolveOutput(output=text("paid"), reason="by hand", actor="ann")
    assert asked.output_command(request, compiled, PAYLOAD_BYTES_MAX) == expected
    request.output.Pack(Int32Value(value=1))
    assert set(refused(lambda: asked.output_command(request, compiled, PAYLOAD_BYTES_MAX))) == {"output"}


def test_policy_changes_only_what_is_set() -> None:
    request = operator_pb2.ChangeStepPolicyRequest(step_id="ship", reason="slow", actor="ann")
    request.policy.attempt_timeout.FromSeconds(60)
    request.policy.execute_retry.max_attempts = 3
    expected = PolicyChange(attempt_timeout_us=seconds(60), execute_retry=RetryPolicy(attempts_max=3))
    assert asked.policy_command(request) == ChangePolicy(step_id=StepId("ship"), change=expected, reason="slow", actor="ann")


def test_policy_that_no_definition_could_have_is_refused() -> None:
    request = operator_pb2.ChangeStepPolicyRequest(step_id="ship")
    request.policy.attempt_timeout.FromSeconds(0)
    request.policy.compensate_retry.multiplier = 0.5
    request.policy.execute_retry.non_retryable_codes.append(17)
    assert set(refused(lambda: asked.policy_command(request))) == {
        "policy.attempt_timeout",
        "policy.compensate_retry.multiplier",
        "policy.execute_retry.non_retryable_codes[0]",
    }
