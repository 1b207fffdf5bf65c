"""What a person can do is what the saga would take; what moves by itself has a next thing; and the words that say it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from coordinator.core.decide import decide
from coordinator.core.errors import CommandRefusedError
from coordinator.core.explain import explain
from coordinator.core.explanation import HeldCall, WaitReason, duration_in_words, failure_in_words, in_words
from coordinator.core.inputs import Cancel, Command, Pause, Replied, ResolveOutput, Resume, RetryStep, Terminate
from coordinator.core.values import MICROS_PER_SECOND, AttemptKey, Failure, Instant, Payload, SagaStatus, StepId, StepKind
from saga.v1 import operator_pb2
from tests.builders import (
    Story,
    at,
    attempt,
    fails,
    graph,
    rejected,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)
from tests.unit.core.explained import (
    CIRCUIT,
    NO_PLACE,
    NO_TARGET,
    RATE,
    WITH_PARTICIPANT,
    accepted,
    calling_hook,
    explained,
    failed,
    hook_failed,
    in_backoff,
    output_failed,
    past_the_point_of_no_return,
    paused,
    pending,
    pivot_unknown,
    quiescent,
    running,
    terminated,
    turn_back_requested,
    undo_exhausted,
    undoing,
    waits,
)

# ── Choices ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        (pending, ["CancelSaga", "PauseSaga", "TerminateSaga"]),
        (running, ["CancelSaga", "PauseSaga", "TerminateSaga"]),
        (
            paused,
            [
                "ResumeSaga",
                "RetryStep reserve",
                "ResolveStep reserve (succeeded, skipped, rejected)",
                "ChangeStepPolicy reserve",
                "CancelSaga",
                "TerminateSaga",
            ],
        ),
        (accepted, ["CancelSaga", "PauseSaga", "TerminateSaga"]),
        (past_the_point_of_no_return, ["PauseSaga", "TerminateSaga"]),
        (failed, ["RetryStep ship (as it is or with an input)", "ResolveStep ship (succeeded, skipped)", "TerminateSaga"]),
        (output_failed, ["ResolveOutput", "CancelSaga", "TerminateSaga"]),
        (pivot_unknown, ["RetryStep charge", "ResolveStep charge (succeeded, skipped, rejected)", "CancelSaga", "TerminateSaga"]),
        (undo_exhausted, ["RetryStep a", "ResolveStep a (compensated)", "TerminateSaga"]),
        (hook_failed, ["RetryStep on_success (as it is or with an input)", "ResolveStep on_success (succeeded, skipped)"]),
        (calling_hook, []),
    ],
)
def test_choices_are_what_the_saga_would_take(story: Callable[[], Story], expected: list[str]) -> None:
    assert list(explained(story(), 5).choices) == expected


def test_steps_that_a_person_is_asked_for_come_first() -> None:
    after_pivot = {"a": ["charge"], "b": ["charge"]}
    steps = [step("charge", kind=StepKind.PIVOT), step("a", kind=StepKind.RETRIABLE), step("b", kind=StepKind.RETRIABLE)]
    story = started(graph(steps, after_pivot))
    story.reply("charge", succeeded(), 1)
    story.reply("b", rejected(sealed=True), 2)
    story.reply("a", unknown(), 3)
    explanation = explained(story, 3, None)
    assert waits(explanation) == [(WaitReason.INCIDENT, "b"), (WaitReason.BACKOFF, "a")]
    assert [choice for choice in explanation.choices if choice.startswith("RetryStep")] == [
        "RetryStep b (as it is or with an input)",
        "RetryStep a",
    ]
    assert explanation.next == "Attempt 2 to execute step 'a' is sent to participant 'a'."  # the others go on


def test_step_whose_expression_failed_can_be_tried_with_an_input_only() -> None:
    plan = sequence(step("a", kind=StepKind.PIVOT), step("b", kind=StepKind.RETRIABLE, input=fails, copies_input=False))
    story = started(plan)
    story.reply("a", succeeded(), 1)
    assert explained(story, 2).choices[0] == "RetryStep b (with an input)"


def test_output_check_that_refuses_every_blank_message_takes_no_choice_away() -> None:
    """Messages with required fields exist: that a blank one does not fit says nothing about what a person would give."""
    plan = sequence(step("a", kind=StepKind.PIVOT), step("b", kind=StepKind.RETRIABLE, check_output=lambda output: "required"))
    story = started(replace(plan, output=fails, check_saga_output=lambda output: "required"))
    story.reply("a", succeeded(), 1)
    story.reply("b", rejected(sealed=True), 2)
    assert "ResolveStep b (succeeded, skipped)" in explained(story, 3).choices
    story.feed(RetryStep(step_id=StepId("b")), 4)
    story.feed(Replied(attempt=attempt("b", 2, round_=2), outcome=succeeded(), sent_at=at(5)), 5)
    assert explained(story, 6).choices[0] == "ResolveOutput"


@pytest.mark.parametrize(
    ("choice", "command"),
    [
        ("CancelSaga", Cancel()),
        ("PauseSaga", Pause()),
        ("ResumeSaga", Resume()),
        ("TerminateSaga", Terminate()),
        ("ResolveOutput", ResolveOutput(output=Payload("", b""))),
    ],
)
@pytest.mark.parametrize(
    "story", [pending, running, in_backoff, paused, accepted, failed, turn_back_requested, quiescent, undoing, output_failed, terminated]
)
def test_choice_is_offered_exactly_if_it_changes_something(story: Callable[[], Story], choice: str, command: Command) -> None:
    told = story()
    try:
        takes = bool(decide(told.plan, told.state, command, at(5)))
    except CommandRefusedError:
        takes = False
    assert (choice in explained(told, 5).choices) == takes


# ── Laws ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "story",
    [pending, running, in_backoff, accepted, past_the_point_of_no_return, turn_back_requested, quiescent, undoing, calling_hook],
)
def test_saga_that_moves_by_itself_has_a_next_thing(story: Callable[[], Story]) -> None:
    for held in (None, WITH_PARTICIPANT, NO_TARGET, CIRCUIT, NO_PLACE, RATE):
        assert explained(story(), 4, held).next


def test_explaining_changes_nothing() -> None:
    story = failed()
    before = (story.state.sequence, story.status, story.statuses(), len(story.state.incidents))
    explained(story, 5)
    assert (story.state.sequence, story.status, story.statuses(), len(story.state.incidents)) == before
    assert story.status is SagaStatus.FAILED


def test_call_that_is_due_is_asked_for_by_its_own_name() -> None:
    asked: list[AttemptKey] = []
    story = undoing()

    def held_by(plan: object, key: AttemptKey) -> HeldCall | None:
        asked.append(key)
        return None

    explain(story.plan, story.state, at(3), held_by)
    assert asked == [call.attempt for call in story.owed_calls()]


def test_reasons_are_those_of_the_contract() -> None:
    names = {value.name.removeprefix("WAIT_REASON_"): value.number for value in operator_pb2.WaitReason.DESCRIPTOR.values if value.number}
    assert names == {reason.name: int(reason) for reason in WaitReason}


# ── Words ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("duration_s", "words"),
    [
        (0, "0 ms"),
        (0.25, "250 ms"),
        (1, "1 s"),
        (59.6, "1 min"),
        (75, "1 min 15 s"),
        (3_600, "1 h"),
        (3_605, "1 h"),  # two units, the second of which is none
        (90_000, "1 d 1 h"),
        (10 * 86_400, "10 d"),
    ],
)
def test_durations_read_in_their_two_largest_units(duration_s: float, words: str) -> None:
    assert duration_in_words(round(duration_s * MICROS_PER_SECOND)) == words


def test_instants_read_by_the_clock_and_from_now() -> None:
    assert in_words(at(86_400), at(86_340)) == "1970-01-02 00:00:00 UTC (in 1 min)"
    assert in_words(at(86_400), at(86_403)) == "1970-01-02 00:00:00 UTC (3 s ago)"
    assert in_words(Instant(-1), at(0)).startswith("1969-12-31 23:59:59 UTC")


def test_error_without_a_message_is_told_by_its_code_and_a_long_one_is_cut() -> None:
    assert failure_in_words(Failure(14, " ")) == "gRPC status 14, without a message"
    assert failure_in_words(Failure(14, "down.")) == "down"
    assert failure_in_words(Failure(14, "x" * 5_000)).endswith("x...")
