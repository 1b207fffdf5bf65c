"""Laws of explanations: whatever happens to whatever saga, it can be explained, and nothing that is said of it is untrue."""

from dataclasses import replace
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.choices import find_choices
from coordinator.core.decide import decide
from coordinator.core.errors import CommandRefusedError
from coordinator.core.explain import explain
from coordinator.core.explanation import Explanation, HeldCall, WaitReason
from coordinator.core.inputs import (
    Accepted,
    Cancel,
    Command,
    KeyExpired,
    Mismatched,
    NotSent,
    Outcome,
    Pause,
    Rejected,
    Replied,
    Resolution,
    ResolvedCompensated,
    ResolvedRejected,
    ResolvedSkipped,
    ResolvedSucceeded,
    ResolveStep,
    Resume,
    RetryStep,
    Terminate,
    Unknown,
    Wake,
)
from coordinator.core.pending import pending
from coordinator.core.plan import ON_FAILURE, ON_SUCCESS, RetryPolicy, SagaPlan
from coordinator.core.values import UNFINISHED, Failure, Instant, Payload, StepId, StepKind
from tests.builders import Story, at, compensated, fails, graph, hook, never, seconds, step, succeeded

FAILURE = Failure(14, "said so")
DONE = Payload("shop.v1.Done", b"done")
NAMES = ("a", "b", "p", "r", "s", "e")
HELD = HeldCall(WaitReason.ATTEMPT_UNDER_WAY, "is with its participant")
RESOLUTIONS: dict[str, Resolution] = {
    "succeeded": ResolvedSucceeded(DONE),
    "skipped": ResolvedSkipped(),
    "rejected": ResolvedRejected(),
    "compensated": ResolvedCompensated(),
}

policies = st.builds(RetryPolicy, attempts_max=st.sampled_from([0, 1, 2]))


@st.composite
def plans(draw: st.DrawFn) -> SagaPlan:
    """Compensatable steps, a pivot or none, retriable steps, and one that is nice to have."""
    kinds = {"a": StepKind.COMPENSATABLE, "b": StepKind.COMPENSATABLE, "r": StepKind.RETRIABLE, "s": StepKind.RETRIABLE}
    kinds |= {"p": StepKind.PIVOT, "e": StepKind.BEST_EFFORT}
    chosen = [name for name in NAMES if draw(st.booleans(), name)] or ["a"]
    before_pivot: list[str] = [name for name in ("a", "b") if name in chosen]
    after: dict[str, list[str]] = {"b": ["a"] if "a" in chosen and draw(st.booleans(), "chained") else [], "p": before_pivot}
    after |= {name: ["p"] if "p" in chosen else before_pivot for name in ("r", "s")}
    steps = [
        step(
            name,
            kind=kinds[name],
            retry=draw(policies),
            undo=draw(policies),
            when=draw(st.sampled_from([None, None, None, never])),
            input=draw(st.sampled_from([lambda values: values.input, lambda values: values.input, fails])),
            copies_input=False,
        )
        for name in chosen
    ]
    plan = graph(steps, {name: after.get(name, []) for name in chosen}, limit_s=draw(st.sampled_from([None, 60])))
    plan = replace(plan, output=draw(st.sampled_from([None, fails])))
    return replace(plan, on_success=hook(ON_SUCCESS), on_failure=hook(ON_FAILURE)) if draw(st.booleans(), "hooks") else plan


outcomes: st.SearchStrategy[Outcome] = st.sampled_from(
    [
        succeeded(),
        succeeded(),
        compensated(),
        Rejected(failure=FAILURE, sealed=True),
        Rejected(failure=FAILURE),
        Unknown(failure=FAILURE),
        NotSent(failure=FAILURE),
        KeyExpired(failure=FAILURE),
        Mismatched(failure=FAILURE),
        Accepted(time_limit_us=seconds(30)),
    ]
)
commands: st.SearchStrategy[Command] = st.one_of(
    st.sampled_from([Cancel(), Pause(), Resume(), Terminate()]),
    st.builds(RetryStep, step_id=st.sampled_from([*map(StepId, NAMES), ON_SUCCESS])),
    st.builds(
        ResolveStep, step_id=st.sampled_from([*map(StepId, NAMES), ON_FAILURE]), resolution=st.sampled_from(list(RESOLUTIONS.values()))
    ),
)


@st.composite
def stories(draw: st.DrawFn) -> tuple[Story, float]:
    """A saga to which a few things have happened, and the time since its start."""
    story, now = Story(draw(plans())), 0.0
    story.start(now, start_at=draw(st.sampled_from([None, None, 10.0])))
    for _ in range(draw(st.integers(0, 14))):
        now += draw(st.sampled_from([0.0, 0.05, 1.0, 40.0]))
        owed = pending(story.plan, story.state).calls
        match draw(st.sampled_from(["reply", "reply", "reply", "wake", "command"])):
            case "reply" if owed:
                call = draw(st.sampled_from(owed))
                story.feed(Replied(attempt=call.attempt, outcome=draw(outcomes), sent_at=at(now)), now)
            case "command":
                try_out(story, draw(commands), now)
            case _:
                story.feed(Wake(), now)
    return story, now


def try_out(story: Story, command: Command, now: float) -> None:
    try:
        story.feed(command, now)
    except CommandRefusedError:
        return  # not what this is about


def explained(story: Story, now: float) -> Explanation:
    return explain(story.plan, story.state, at(now), lambda plan, attempt: HELD)


@given(stories())
def test_saga_that_is_not_over_has_a_next_thing_or_asks_for_a_person(told: tuple[Story, float]) -> None:
    story, now = told
    explanation = explained(story, now)
    reasons = {wait.reason for wait in explanation.waits}
    assert explanation.summary
    if story.state.paused is not None:
        assert WaitReason.PAUSED in reasons
        assert "ResumeSaga" in explanation.choices
    elif story.state.status in UNFINISHED or story.state.is_unfinished:
        assert explanation.next
    elif not story.state.has_ended:
        assert WaitReason.INCIDENT in reasons
        assert explanation.choices
    assert (WaitReason.INCIDENT in reasons) == story.state.needs_person


@given(stories())
def test_every_call_that_is_owed_is_explained(told: tuple[Story, float]) -> None:
    story, now = told
    waiting = {(wait.step_id, wait.until) for wait in explained(story, now).waits}
    owed = pending(story.plan, story.state)
    for call in owed.calls:
        told_until: set[Instant | None] = {call.not_before if call.not_before > at(now) else None}
        if owed.wake_at is not None and at(now) < call.not_before >= owed.wake_at:
            told_until.add(owed.wake_at)  # the saga's time is over first, and the call is not sent
        assert waiting & {(call.attempt.step_id, until) for until in told_until}


@given(stories())
def test_promised_instant_is_not_later_than_the_next_wake(told: tuple[Story, float]) -> None:
    """What the engine sets its timer for is what a person is told, unless something may come before it."""
    story, now = told
    owed, explanation = pending(story.plan, story.state), explained(story, now)
    instants = [call.not_before for call in owed.calls if call.not_before > at(now)]
    instants += [owed.wake_at] if owed.wake_at is not None else []
    if explanation.next_at is not None:
        assert instants
        assert explanation.next_at == min(instants)


@given(stories())
def test_no_choice_is_refused(told: tuple[Story, float]) -> None:
    story, now = told
    when = max(at(now), story.state.updated_at)
    for command in chain.from_iterable(_commands_of(choice) for choice in find_choices(story.plan, story.state, at(now))):
        assert decide(story.plan, story.state, command, when)


def _commands_of(choice: str) -> list[Command]:
    verb, _, rest = choice.partition(" ")
    step_id, _, options = rest.partition(" ")
    match verb:
        case "CancelSaga":
            return [Cancel()]
        case "PauseSaga":
            return [Pause()]
        case "ResumeSaga":
            return [Resume()]
        case "TerminateSaga":
            return [Terminate()]
        case "RetryStep":
            return [RetryStep(step_id=StepId(step_id), input=DONE if options else None)]
        case "ResolveStep":
            return [ResolveStep(step_id=StepId(step_id), resolution=RESOLUTIONS[name]) for name in options.strip("()").split(", ")]
        case "ChangeStepPolicy" | "ResolveOutput":
            return []
        case _:
            pytest.fail(f"nobody knows how to {choice}")
