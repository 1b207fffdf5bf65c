"""Sagas in every situation, to be explained."""

from dataclasses import replace

from coordinator.core.explain import explain
from coordinator.core.explanation import Explanation, HeldCall, WaitReason
from coordinator.core.inputs import Accepted, Cancel, Pause, Replied, Terminate
from coordinator.core.plan import ON_FAILURE, ON_SUCCESS, RetryPolicy, SagaPlan
from coordinator.core.values import Failure, StepKind
from tests.builders import (
    Story,
    at,
    attempt,
    diamond,
    fails,
    hook,
    key_expired,
    parallel,
    rejected,
    seconds,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)

WITH_PARTICIPANT = HeldCall(WaitReason.ATTEMPT_UNDER_WAY, "is with its participant")
NO_TARGET = HeldCall(WaitReason.NO_SUCH_PARTICIPANT, "cannot be sent: nobody serves it")
CIRCUIT = HeldCall(WaitReason.CIRCUIT_OPEN, "is held back", at(90), Failure(14, "connection refused"))
NO_PLACE = HeldCall(WaitReason.CONCURRENCY_LIMIT, "waits for its turn")
RATE = HeldCall(WaitReason.RATE_LIMIT, "waits for its turn")
TRIP = sequence("reserve", step("charge", kind=StepKind.PIVOT), step("ship", kind=StepKind.RETRIABLE))
ONCE = RetryPolicy(attempts_max=1)


def explained(story: Story, now: float, held: HeldCall | None = WITH_PARTICIPANT) -> Explanation:
    return explain(story.plan, story.state, at(now), lambda plan, key: held)


def waits(explanation: Explanation) -> list[tuple[WaitReason, str | None]]:
    return [(wait.reason, wait.step_id) for wait in explanation.waits]


def pending() -> Story:
    story = Story(TRIP)
    story.start(0, start_at=60)
    return story


def running() -> Story:
    return started(TRIP, limit_s=600)


def in_backoff() -> Story:
    story = running()
    story.reply("reserve", unknown(), 1)
    return story


def paused() -> Story:
    story = in_backoff()
    story.feed(Pause(actor="ann", reason="audit"), 1.01)
    return story


def accepted() -> Story:
    story = running()
    story.reply("reserve", Accepted(time_limit_us=seconds(300)), 1)
    return story


def past_the_point_of_no_return() -> Story:
    story = running()
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", succeeded(), 2)
    return story


def failed() -> Story:
    story = past_the_point_of_no_return()
    story.reply("ship", rejected(sealed=True), 3)
    return story


def turn_back_requested() -> Story:
    story = running()
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", unknown(), 2)
    story.feed(Cancel(reason="changed my mind", actor="bob"), 2.01)
    return story


def quiescent() -> Story:
    story = started(parallel("a", "b"))
    story.reply("a", rejected(sealed=True), 1)
    return story


def undoing() -> Story:
    story = started(diamond())
    for name in "abc":
        story.reply(name, succeeded(), 1)
    story.reply("d", rejected(sealed=True), 2)
    return story


def with_hook(plan: SagaPlan) -> SagaPlan:
    return replace(plan, on_success=hook(ON_SUCCESS), on_failure=hook(ON_FAILURE))


def calling_hook() -> Story:
    story = started(with_hook(sequence("a")))
    story.reply("a", succeeded(), 1)
    return story


def hook_failed() -> Story:
    story = calling_hook()
    story.feed(Replied(attempt=attempt("on_success", 1), outcome=rejected(sealed=True), sent_at=at(2)), 2)
    return story


def output_failed() -> Story:
    story = started(sequence("a", output=fails))
    story.reply("a", succeeded(), 1)
    return story


def undo_exhausted() -> Story:
    story = started(sequence("a", "b"))
    story.reply("a", succeeded(), 1)
    story.reply("b", rejected(sealed=True), 2)
    story.undo("a", key_expired(), 3)
    return story


def pivot_unknown() -> Story:
    story = started(sequence(step("charge", kind=StepKind.PIVOT, retry=ONCE)))
    story.reply("charge", unknown(), 1)
    return story


def completed() -> Story:
    story = started(sequence("a"))
    story.reply("a", succeeded(), 1)
    return story


def compensated_saga() -> Story:
    story = started(sequence("a"))
    story.reply("a", rejected(sealed=True), 1)
    return story


def terminated() -> Story:
    story = failed()
    story.feed(Terminate(actor="bob", reason="written off"), 4)
    return story
