"""CompleteStep and HeartbeatStep: believed by their token, checked before anything is recorded, and answered as R24 says."""

import base64
from collections.abc import Awaitable, Callable

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import Int32Value

from coordinator.api.completions import PROGRESS_BYTES_MAX, heartbeat_answer
from coordinator.api.errors import RefusedError
from coordinator.codec.completion_tokens import CompletionTokens
from coordinator.core.events import LateOutcome
from coordinator.core.inputs import Cancel, Pause, RetryStep, Terminate
from coordinator.core.values import AttemptKey, Direction, SagaId, SagaStatus, StepId, StepKind, StepStatus
from coordinator.journal.memory_journal import MemoryDatabase
from participant_sdk.rpc_errors import error_reason, status_with
from saga.v1 import coordinator_pb2, participant_pb2
from tests.builders import SAGA, at, parallel, rejected, started, step
from tests.unit.api.refusals import violations
from tests.unit.api.stand import PAYLOAD_BYTES_MAX, Stand, accepted, done, opened, packed, refused_by_participant, text

OTHER = SagaId("01900000-0000-7000-8000-000000000002")


async def refusal_of(call: Awaitable[object]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        await call
    return caught.value


async def reason_of(call: Awaitable[object]) -> str:
    return error_reason((await refusal_of(call)).status)


def completion(token: str, value: str = "done") -> coordinator_pb2.CompleteStepRequest:
    return coordinator_pb2.CompleteStepRequest(completion_token=token, succeeded=participant_pb2.Succeeded(output=packed(value)))


def rejection(token: str, message: str = "denied", *, sealed: bool = True) -> coordinator_pb2.CompleteStepRequest:
    rejected = participant_pb2.Rejected(status=status_with(9, message), sealed=sealed)
    return coordinator_pb2.CompleteStepRequest(completion_token=token, rejected=rejected)


def beat(token: str, limit_s: int = 0, progress: str = "") -> coordinator_pb2.HeartbeatStepRequest:
    request = coordinator_pb2.HeartbeatStepRequest(completion_token=token)
    if limit_s:
        request.time_limit.FromSeconds(limit_s)
    if progress:
        request.progress.CopyFrom(packed(progress))
    return request


async def accept(stand: Stand, for_s: float = 60) -> str:
    """The first step of a saga is accepted; returns its token."""
    await stand.start()
    await stand.end("reserve", accepted(for_s))
    return stand.token("reserve")


async def status_of(stand: Stand, step_id: str) -> StepStatus:
    view = await stand.view()
    step = view.state.step(view.plan, StepId(step_id))
    assert step is not None
    return step.status


# ── Completions ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_accepted_step_is_completed_and_the_saga_goes_on(stand: Stand) -> None:
    token = await accept(stand)
    assert not (await stand.completions.complete(completion(token, "R-1"))).repeated
    view = await stand.view()
    assert view.state.steps[0].output == text("R-1")
    assert stand.dispatcher.sent() == {"charge execute 1"}


async def test_completion_may_be_repeated(stand: Stand) -> None:
    token = await accept(stand)
    await stand.completions.complete(completion(token))
    sequence = (await stand.view()).state.sequence
    assert (await stand.completions.complete(completion(token))).repeated
    assert (await stand.view()).state.sequence == sequence


async def test_completion_before_the_acceptance_is_kept(stand: Stand) -> None:
    await stand.start()
    assert not (await stand.completions.complete(completion(stand.token("reserve")))).repeated
    assert await status_of(stand, "reserve") is StepStatus.EXECUTING
    assert (await stand.completions.complete(completion(stand.token("reserve")))).repeated
    await stand.end("reserve", accepted())
    assert await status_of(stand, "reserve") is StepStatus.SUCCEEDED


async def test_sealed_rejection_turns_the_saga_back(stand: Stand) -> None:
    token = await accept(stand)
    await stand.completions.complete(rejection(token))
    view = await stand.view()
    assert view.state.status is SagaStatus.COMPENSATED
    assert view.state.failure is not None
    assert view.state.failure.message == "denied"


async def test_rejection_is_bounded_like_every_failure_of_participants(stand: Stand) -> None:
    token = await accept(stand)
    request = rejection(token)
    request.rejected.status.message = "x\0" * 5_000
    request.rejected.status.code = 0
    await stand.completions.complete(request)
    failure = (await stand.view()).state.failure
    assert failure is not None
    assert failure.code == 9  # OK is no reason to refuse
    assert len(failure.message) <= 1_024
    assert "\0" not in failure.message  # R28


async def test_completion_after_the_step_was_settled_is_too_late_and_in_the_history(stand: Stand) -> None:
    token = await accept(stand)
    await stand.give(Cancel())
    assert await reason_of(stand.completions.complete(completion(token))) == "STEP_NOT_WAITING"
    stored = await stand.views.require(SAGA)
    assert any(isinstance(event.fact, LateOutcome) for event in stored.events)


async def test_completion_after_the_saga_has_ended_is_too_late_and_in_the_history() -> None:
    database = MemoryDatabase()
    async with opened(database) as before:
        token = await accept(before)
        await before.give(Terminate(reason="written off"))
    async with opened(database) as after:
        assert await reason_of(after.completions.complete(completion(token))) == "STEP_NOT_WAITING"
        stored = await after.views.require(SAGA)
        assert isinstance(stored.events[-1].fact, LateOutcome)


async def test_completion_of_an_earlier_round_is_too_late(stand: Stand) -> None:
    await stand.fail()
    await stand.give(RetryStep(step_id=StepId("ship")))
    assert await reason_of(stand.completions.complete(completion(stand.token("ship", round_=1)))) == "STEP_NOT_WAITING"
    assert not (await stand.completions.complete(completion(stand.token("ship", round_=2)))).repeated


@pytest.mark.parametrize(
    ("request_", "field", "reason"),
    [
        (lambda token: completion("no token"), "completion_token", "COMPLETION_TOKEN_INVALID"),
        (lambda token: completion(""), "completion_token", "COMPLETION_TOKEN_INVALID"),
        (lambda token: completion(token[:-2] + "AA"), "completion_token", "COMPLETION_TOKEN_INVALID"),
        (lambda token: coordinator_pb2.CompleteStepRequest(completion_token=token), "result", "REQUEST_INVALID"),
    ],
)
async def test_completion_that_cannot_be_is_refused(
    stand: Stand, request_: Callable[[str], coordinator_pb2.CompleteStepRequest], field: str, reason: str
) -> None:
    token = await accept(stand)
    error = await refusal_of(stand.completions.complete(request_(token)))
    assert (set(violations(error)), error_reason(error.status)) == ({field}, reason)


async def test_token_of_another_coordinator_is_refused(stand: Stand) -> None:
    await accept(stand)
    forged = CompletionTokens(b"other" * 8).make(SAGA, AttemptKey(StepId("reserve"), Direction.EXECUTE, 1, 1))
    assert await reason_of(stand.completions.complete(completion(forged))) == "COMPLETION_TOKEN_INVALID"


async def test_token_cannot_be_turned_to_another_saga(stand: Stand) -> None:
    token = await accept(stand)
    content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    other = base64.urlsafe_b64encode(content.replace(bytes.fromhex(SAGA.replace("-", "")), bytes.fromhex(OTHER.replace("-", ""))))
    assert await reason_of(stand.completions.complete(completion(other.decode().rstrip("=")))) == "COMPLETION_TOKEN_INVALID"


async def test_genuine_token_of_a_saga_that_is_gone_is_not_found(stand: Stand) -> None:
    assert await reason_of(stand.completions.complete(completion(stand.token("reserve", saga_id=OTHER)))) == "SAGA_NOT_FOUND"


async def test_output_of_another_type_is_refused_and_nothing_is_recorded(stand: Stand) -> None:
    token = await accept(stand)
    request = completion(token)
    request.succeeded.output.Pack(Int32Value(value=1))
    sequence = (await stand.view()).state.sequence
    error = await refusal_of(stand.completions.complete(request))
    assert error_reason(error.status) == "INPUT_TYPE_MISMATCH"
    assert "google.protobuf.StringValue" in violations(error)["succeeded.output"]
    assert (await stand.view()).state.sequence == sequence
    assert not (await stand.completions.complete(completion(token))).repeated


async def test_output_that_cannot_be_decoded_is_refused(stand: Stand) -> None:
    token = await accept(stand)
    request = completion(token)
    request.succeeded.output.value = b"\xff\xff"
    assert await reason_of(stand.completions.complete(request)) == "INPUT_INVALID"


async def test_output_that_is_too_large_is_refused(stand: Stand) -> None:
    token = await accept(stand)
    assert await reason_of(stand.completions.complete(completion(token, "x" * PAYLOAD_BYTES_MAX))) == "PAYLOAD_TOO_LARGE"


async def test_output_is_kept_in_the_coordinators_serialisation(stand: Stand) -> None:  # R3
    token = await accept(stand)
    request = completion(token)
    request.succeeded.output.value = b"\x0a\x01x" + request.succeeded.output.value  # the same field twice: the last one counts
    await stand.completions.complete(request)
    assert (await stand.view()).state.steps[0].output == text("done")
    assert (await stand.completions.complete(completion(token))).repeated


# ── Heartbeats ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_heartbeat_extends_the_time_and_carries_progress(stand: Stand) -> None:
    token = await accept(stand, 60)
    await stand.clock.pass_time(50)
    answer = await stand.completions.heartbeat(beat(token, progress="half"))
    assert (answer.time_left.ToMilliseconds(), answer.cancelled, answer.turn_back_requested) == (60_000, False, False)
    assert (await stand.view()).state.steps[0].progress == text("half")
    assert (await stand.completions.heartbeat(beat(token, limit_s=300))).time_left.ToSeconds() == 300
    assert (await stand.completions.heartbeat(beat(token, limit_s=1))).time_left.ToSeconds() == 300  # never shortens


async def test_heartbeat_without_news_costs_no_event_and_is_answered_all_the_same(stand: Stand) -> None:
    token = await accept(stand, 60)
    await stand.clock.pass_time(1)
    sequence = (await stand.view()).state.sequence
    answer = await stand.completions.heartbeat(beat(token))
    assert (answer.time_left.ToSeconds(), answer.cancelled) == (59, False)
    assert (await stand.view()).state.sequence == sequence


async def test_heartbeat_that_overtakes_the_acceptance_is_told_to_go_on(stand: Stand) -> None:
    await stand.start()
    answer = await stand.completions.heartbeat(beat(stand.token("reserve")))
    assert (answer.time_left.ToSeconds(), answer.cancelled) == (10, False)


async def test_step_of_a_saga_that_turned_back_is_not_wanted_any_more(stand: Stand) -> None:
    token = await accept(stand)
    await stand.give(Cancel())
    answer = await stand.completions.heartbeat(beat(token))
    assert (answer.cancelled, answer.time_left.ToSeconds()) == (True, 0)


async def test_step_whose_time_is_over_is_not_wanted_any_more(stand: Stand) -> None:
    token = await accept(stand, 60)
    await stand.clock.pass_time(61)
    assert (await stand.completions.heartbeat(beat(token))).cancelled


async def test_step_of_a_terminated_saga_is_not_wanted_any_more(stand: Stand) -> None:
    token = await accept(stand)
    await stand.give(Terminate(reason="written off"))
    assert (await stand.completions.heartbeat(beat(token))).cancelled


async def test_step_of_a_paused_saga_is_still_wanted(stand: Stand) -> None:
    token = await accept(stand)
    await stand.give(Pause())
    assert not (await stand.completions.heartbeat(beat(token))).cancelled


async def test_pivot_learns_that_its_saga_shall_turn_back(stand: Stand) -> None:  # R10
    await stand.start()
    await stand.end("reserve", done())
    await stand.end("charge", accepted())
    await stand.give(Cancel())
    answer = await stand.completions.heartbeat(beat(stand.token("charge")))
    assert (answer.cancelled, answer.turn_back_requested, answer.time_left.ToSeconds()) == (False, True, 60)


def test_only_the_pivot_is_told_that_the_saga_shall_turn_back() -> None:
    story = started(parallel(step("charge", kind=StepKind.PIVOT), step("look", kind=StepKind.READ_ONLY)))
    for name in ("charge", "look"):
        story.reply(name, accepted(60), 1)
    story.cancel(2)
    assert heartbeat_answer(story.state, story.step("charge"), at(3)).turn_back_requested
    assert not heartbeat_answer(story.state, story.step("look"), at(3)).turn_back_requested


def test_step_that_is_under_way_while_its_saga_turns_back_is_not_wanted_any_more() -> None:
    story = started(parallel("reserve", "charge"))
    story.reply("charge", rejected(sealed=True), 1)
    assert story.step("reserve").status is StepStatus.EXECUTING
    assert heartbeat_answer(story.state, story.step("reserve"), at(2)).cancelled


async def test_heartbeat_of_a_completed_step_is_too_late(stand: Stand) -> None:
    token = await accept(stand)
    await stand.completions.complete(completion(token))
    assert await reason_of(stand.completions.heartbeat(beat(token))) == "STEP_NOT_WAITING"


def without_slash() -> coordinator_pb2.HeartbeatStepRequest:
    return coordinator_pb2.HeartbeatStepRequest(progress=Any(type_url="no slash"))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (beat("", limit_s=367 * 86_400), "time_limit"),
        (beat("", progress="x" * PROGRESS_BYTES_MAX), "progress"),
        (without_slash(), "progress"),
        (beat("no token"), "completion_token"),
    ],
)
async def test_heartbeat_that_cannot_be_is_refused(stand: Stand, request_: coordinator_pb2.HeartbeatStepRequest, field: str) -> None:
    assert set(violations(await refusal_of(stand.completions.heartbeat(request_)))) == {field}


async def test_rejected_steps_are_not_completed_after_all(stand: Stand) -> None:
    await stand.start()
    await stand.end("reserve", refused_by_participant())
    assert await reason_of(stand.completions.complete(completion(stand.token("reserve")))) == "STEP_NOT_WAITING"
