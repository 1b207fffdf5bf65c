"""What operators send, checked and turned into commands."""

from collections.abc import Iterator

from coordinator.api.checks import STEP_ID_CHARS_MAX, check_payload, find_in_person, find_in_text, refuse_if_any, step_of
from coordinator.codec.definitions import CompiledDefinition
from coordinator.codec.policies import policy_change_of
from coordinator.core.inputs import (
    Acknowledge,
    ChangePolicy,
    Pause,
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
from coordinator.core.values import Payload, StepId
from participant_sdk.definitions.policies import STEP_DURATIONS, STEP_RETRIES, find_policy_problems
from participant_sdk.definitions.problems import Problem
from saga.v1 import operator_pb2


def pause_command(request: operator_pb2.PauseSagaRequest) -> Pause:
    """The pause that a request asks for."""
    refuse_if_any(find_in_person(request.actor, request.reason))
    return Pause(reason=request.reason, actor=request.actor)


def resume_command(request: operator_pb2.ResumeSagaRequest) -> Resume:
    """The end of a pause that a request asks for."""
    refuse_if_any(find_in_person(request.actor, request.reason))
    return Resume(reason=request.reason, actor=request.actor)


def terminate_command(request: operator_pb2.TerminateSagaRequest) -> Terminate:
    """The termination that a request asks for."""
    refuse_if_any(find_in_person(request.actor, request.reason, is_reason_required=True))
    return Terminate(reason=request.reason, actor=request.actor)


def acknowledge_command(request: operator_pb2.AcknowledgeIncidentRequest) -> Acknowledge:
    """The acknowledgement that a request asks for."""
    refuse_if_any(find_in_person(request.actor, request.reason, is_reason_required=True))
    return Acknowledge(incident_id=request.incident_id, reason=request.reason, actor=request.actor)


def check_retry(request: operator_pb2.RetryStepRequest) -> None:
    """Refuses what is wrong whatever the saga is."""
    refuse_if_any((*_find_in_step_id(request.step_id), *find_in_person(request.actor, request.reason)))


def retry_command(request: operator_pb2.RetryStepRequest, compiled: CompiledDefinition, payload_bytes_max: int) -> RetryStep:
    """The new attempt that a checked request asks for."""
    given = None
    if request.HasField("input"):
        step = step_of(compiled, request.step_id)
        given = check_payload(
            request.input,
            "input",
            lambda message: compiled.canonical_step_input(step.id, message),
            expected_type=step.input_type,
            payload_bytes_max=payload_bytes_max,
        )
    return RetryStep(step_id=StepId(request.step_id), input=given, reason=request.reason, actor=request.actor)


def check_resolution(request: operator_pb2.ResolveStepRequest) -> None:
    """Refuses what is wrong whatever the saga is."""
    problems = [*_find_in_step_id(request.step_id), *find_in_person(request.actor, request.reason, is_reason_required=True)]
    if request.WhichOneof("resolution") is None:
        words = "expected how the step ended: succeeded with its output, skipped, rejected or compensated; found none of them"
        problems.append(Problem("resolution", words))
    refuse_if_any(problems)


def resolve_command(request: operator_pb2.ResolveStepRequest, compiled: CompiledDefinition, payload_bytes_max: int) -> ResolveStep:
    """The resolution that a checked request asks for."""
    resolution: Resolution
    match request.WhichOneof("resolution"):
        case "skipped":
            resolution = ResolvedSkipped()
        case "rejected":
            resolution = ResolvedRejected()
        case "compensated":
            resolution = ResolvedCompensated()
        case _:
            resolution = ResolvedSucceeded(_output_of(request, compiled, payload_bytes_max))
    return ResolveStep(step_id=StepId(request.step_id), resolution=resolution, reason=request.reason, actor=request.actor)


def policy_command(request: operator_pb2.ChangeStepPolicyRequest) -> ChangePolicy:
    """The change of a policy that a request asks for."""
    problems = [*_find_in_step_id(request.step_id), *find_in_person(request.actor, request.reason)]
    if not request.policy.ListFields():
        problems.append(Problem("policy", "expected at least one field that is to change, found none"))
    problems.extend(find_policy_problems(request.policy, "policy", durations=STEP_DURATIONS, retries=STEP_RETRIES))
    refuse_if_any(problems)
    return ChangePolicy(
        step_id=StepId(request.step_id), change=policy_change_of(request.policy), reason=request.reason, actor=request.actor
    )


def check_output_resolution(request: operator_pb2.ResolveOutputRequest) -> None:
    """Refuses what is wrong whatever the saga is."""
    problems = list(find_in_person(request.actor, request.reason, is_reason_required=True))
    if not request.HasField("output"):
        problems.append(Problem("output", "expected what the saga returns, found nothing"))
    refuse_if_any(problems)


def output_command(request: operator_pb2.ResolveOutputRequest, compiled: CompiledDefinition, payload_bytes_max: int) -> ResolveOutput:
    """The output that a checked request gives."""
    expected_type = compiled.output_type or None
    output = check_payload(
        request.output, "output", compiled.canonical_saga_output, expected_type=expected_type, payload_bytes_max=payload_bytes_max
    )
    return ResolveOutput(output=output, reason=request.reason, actor=request.actor)


def _output_of(request: operator_pb2.ResolveStepRequest, compiled: CompiledDefinition, payload_bytes_max: int) -> Payload:
    step = step_of(compiled, request.step_id)
    return check_payload(
        request.succeeded,
        "succeeded",
        lambda message: compiled.canonical_output(step.id, message),
        expected_type=step.output_type,
        payload_bytes_max=payload_bytes_max,
    )


def _find_in_step_id(step_id: str) -> Iterator[Problem]:
    if not step_id:
        yield Problem("step_id", "expected the id of a step, found nothing")
    yield from find_in_text(step_id, "step_id", STEP_ID_CHARS_MAX)
