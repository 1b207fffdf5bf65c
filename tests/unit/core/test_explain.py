"""Why a saga stands where it stands: true for every state, with what comes next and when, and with choices that are not refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from coordinator.core.explanation import Explanation, HeldCall, WaitReason, in_words
from coordinator.core.inputs import Accepted, ChangePolicy, Pause, PolicyChange, ResolvedSucceeded, RetryStep
from coordinator.core.plan import RetryPolicy
from coordinator.core.values import Failure, Payload, StepId, StepKind
from tests.builders import (
    Story,
    at,
    rejected,
    retry_later,
    seconds,
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
    compensated_saga,
    completed,
    explained,
    failed,
    hook_failed,
    in_backoff,
    output_failed,
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

AFTER_RESERVE = [(WaitReason.PREDECESSORS, "charge"), (WaitReason.PREDECESSORS, "ship")]


@pytest.mark.parametrize(
    ("story", "held", "expected"),
    [
        (pending, None, [(WaitReason.START_TIME, None)]),
        (running, WITH_PARTICIPANT, [(WaitReason.ATTEMPT_UNDER_WAY, "reserve"), *AFTER_RESERVE]),
        (running, None, [(WaitReason.ATTEMPT_UNDER_WAY, "reserve"), *AFTER_RESERVE]),
        (running, NO_TARGET, [(WaitReason.NO_SUCH_PARTICIPANT, "reserve"), *AFTER_RESERVE]),
        (running, CIRCUIT, [(WaitReason.CIRCUIT_OPEN, "reserve"), *AFTER_RESERVE]),
        (running, NO_PLACE, [(WaitReason.CONCURRENCY_LIMIT, "reserve"), *AFTER_RESERVE]),
        (running, RATE, [(WaitReason.RATE_LIMIT, "reserve"), *AFTER_RESERVE]),
        (in_backoff, None, [(WaitReason.BACKOFF, "reserve"), *AFTER_RESERVE]),
        (paused, None, [(WaitReason.PAUSED, None), *AFTER_RESERVE]),
        (accepted, None, [(WaitReason.COMPLETION, "reserve"), *AFTER_RESERVE]),
        (turn_back_requested, None, [(WaitReason.BACKOFF, "charge"), (WaitReason.PREDECESSORS, "ship")]),
        (failed, None, [(WaitReason.INCIDENT, "ship")]),
        (output_failed, None, [(WaitReason.INCIDENT, None)]),
        (pivot_unknown, None, [(WaitReason.INCIDENT, "charge")]),
        (quiescent, WITH_PARTICIPANT, [(WaitReason.QUIESCENCE, "b")]),
        (
            undoing,
            WITH_PARTICIPANT,
            [(WaitReason.ATTEMPT_UNDER_WAY, "b"), (WaitReason.ATTEMPT_UNDER_WAY, "c"), (WaitReason.PREDECESSORS, "a")],
        ),
        (undo_exhausted, None, [(WaitReason.INCIDENT, "a")]),
        (calling_hook, WITH_PARTICIPANT, [(WaitReason.ATTEMPT_UNDER_WAY, "on_success")]),
        (hook_failed, None, [(WaitReason.INCIDENT, "on_success")]),
    ],
)
def test_saga_says_what_it_waits_for(
    story: Callable[[], Story], held: HeldCall | None, expected: list[tuple[WaitReason, str | None]]
) -> None:
    now = 2.011 if story is turn_back_requested else 1.011 if story in (in_backoff, paused) else 4
    explanation = explained(story(), now, held)
    assert waits(explanation) == expected
    assert explanation.waits[0].description in explanation.summary  # the most important one is in the one sentence


@pytest.mark.parametrize(
    ("story", "held", "said", "at_s"),
    [
        (pending, None, "The saga begins.", 60),
        (
            running,
            WITH_PARTICIPANT,
            "Participant 'reserve' answers attempt 1 to execute step 'reserve', or the time for that is over.",
            None,
        ),
        (running, None, "Attempt 1 to execute step 'reserve' is sent to participant 'reserve'.", None),
        (
            running,
            NO_TARGET,
            "Attempt 1 to execute step 'reserve' is sent to participant 'reserve' as soon as that registers; if it does not, "
            "the saga turns back.",
            300,
        ),
        (running, CIRCUIT, "Participant 'reserve' is tried again, with one call first.", 90),
        (
            running,
            NO_PLACE,
            "Attempt 1 to execute step 'reserve' is sent to participant 'reserve' when its turn comes. Otherwise, at the time given: "
            "The time limit of the saga is over: it turns back.",
            600,
        ),
        (paused, None, "", None),
        (
            accepted,
            None,
            "Participant 'reserve' completes step 'reserve', or the time for that is over; then the saga turns back.",
            301,
        ),
        (failed, None, "", None),
        (quiescent, None, "Attempts that were under way have ended, or are given up; what was done is undone.", 11.5),
        (undo_exhausted, None, "", None),
    ],
)
def test_saga_says_what_comes_next_and_when(story: Callable[[], Story], held: HeldCall | None, said: str, at_s: float | None) -> None:
    explanation = explained(story(), 4, held)
    assert (explanation.next, explanation.next_at) == (said, None if at_s is None else at(at_s))


def test_backoff_tells_the_error_the_next_attempt_and_what_follows() -> None:
    story = in_backoff()
    (owed,) = story.owed()
    explanation = explained(story, 1, None)
    wait = explanation.waits[0]
    assert (wait.until, wait.failure, wait.participant) == (owed.not_before, Failure(14, "said so"), "reserve")
    assert wait.description == (
        f"Attempt 1 to execute step 'reserve' did not succeed: said so. Attempt 2 is sent to participant 'reserve' at "
        f"{in_words(owed.not_before, at(1))}. It is tried until 1970-01-01 00:05:00 UTC (in 4 min 59 s); then the saga turns back."
    )
    assert (explanation.next, explanation.next_at) == (
        "Attempt 2 to execute step 'reserve' is sent to participant 'reserve'.",
        owed.not_before,
    )


def test_number_of_attempts_is_told() -> None:
    story = started(sequence(step("a", retry=RetryPolicy(attempts_max=5))))
    story.reply("a", unknown(), 1)
    assert "and 5 times at most, 1 of which are used; then the saga turns back." in explained(story, 1, None).waits[0].description


def test_attempt_that_comes_after_the_time_limit_of_the_saga_is_not_promised() -> None:  # R13
    story = started(sequence(step("a", kind=StepKind.BEST_EFFORT)), limit_s=60)
    story.reply("a", retry_later(90), 1)
    explanation = explained(story, 2, None)
    assert explanation.waits[0].description == (
        "Attempt 1 to execute step 'a' did not succeed: said so. No further attempt is sent: the time limit of the saga is over at "
        "1970-01-01 00:01:00 UTC (in 58 s), before one is due at 1970-01-01 00:01:31 UTC (in 1 min 29 s); then the saga turns back."
    )
    assert (explanation.next, explanation.next_at) == ("The time limit of the saga is over: the saga turns back.", at(60))


def test_attempt_that_comes_after_the_limit_that_a_person_gave_its_step_is_not_promised() -> None:  # R13
    story = started(sequence(step("a", kind=StepKind.BEST_EFFORT)))
    story.reply("a", retry_later(90), 1)
    story.feed(ChangePolicy(step_id=StepId("a"), change=PolicyChange(execute_time_limit_us=seconds(60))), 2)
    explanation = explained(story, 3, None)
    assert "No further attempt is sent: the time of step 'a' is over at 1970-01-01 00:01:00 UTC" in explanation.waits[0].description
    assert (explanation.next, explanation.next_at) == ("The time of step 'a' is over: the saga goes on without it.", at(91))


@pytest.mark.parametrize(
    ("policy", "end"),
    [(RetryPolicy(), "then it is tried on."), (RetryPolicy(attempts_max=3), "then it is tried on until they are used up.")],
)
def test_pivot_is_tried_on_only_as_long_as_it_has_attempts(policy: RetryPolicy, end: str) -> None:  # R10
    story = started(sequence(step("charge", kind=StepKind.PIVOT, retry=policy)))
    story.reply("charge", retry_later(1), 1)
    assert explained(story, 1.5, None).waits[0].description.endswith(f"unless the step may have taken effect: {end}")


@pytest.mark.parametrize(
    ("kind", "after"),
    [(StepKind.COMPENSATABLE, "the saga turns back"), (StepKind.BEST_EFFORT, "the saga goes on without it")],
)
def test_what_follows_a_step_that_is_given_up_depends_on_its_kind(kind: StepKind, after: str) -> None:
    story = started(sequence(step("a", kind=kind)))
    story.reply("a", unknown(), 1)
    assert explained(story, 1, None).waits[0].description.endswith(f"; then {after}.")


def test_pivot_in_doubt_is_given_up_only_by_asking_a_person() -> None:  # R10
    assert "then a person is asked whether it took effect." in explained(turn_back_requested(), 2.011, None).waits[0].description


def test_saga_that_shall_turn_back_says_why() -> None:
    summary = explained(turn_back_requested(), 2.011, None).summary
    assert summary.startswith("RUNNING, and it shall turn back (changed my mind) if its pivot turns out not to have taken effect.")


def test_pause_tells_who_when_and_why() -> None:
    wait = explained(paused(), 11.01, None).waits[0]
    assert wait.person is not None
    assert (wait.person.actor, wait.person.reason, wait.person.at) == ("ann", "audit", at(1.01))
    assert wait.description.startswith("The saga was paused by ann at 1970-01-01 00:00:01 UTC (10 s ago): audit.")


def test_attempt_under_way_is_told_while_a_saga_is_paused() -> None:
    story = running()
    story.feed(Pause(), 1)
    explanation = explained(story, 2)
    assert waits(explanation)[:2] == [(WaitReason.PAUSED, None), (WaitReason.ATTEMPT_UNDER_WAY, "reserve")]
    assert explanation.next.startswith("Participant 'reserve' answers")
    story.reply("reserve", unknown(), 3)
    assert (explained(story, 4).next, waits(explained(story, 4))[:1]) == ("", [(WaitReason.PAUSED, None)])


def test_acceptance_of_a_paused_saga_is_judged_later() -> None:
    story = accepted()
    story.feed(Pause(), 2)
    explanation = explained(story, 3, None)
    assert waits(explanation)[1] == (WaitReason.COMPLETION, "reserve")
    assert "judged when the saga is resumed" in explanation.waits[1].description
    assert explanation.next_at is None


@pytest.mark.parametrize(
    ("story", "said"),
    [
        (failed, "Step 'ship' must succeed, because the saga cannot turn back any more, and was rejected: said so."),
        (output_failed, "The saga cannot say what it returns, because the expression for that failed: division by zero."),
        (pivot_unknown, "Step 'charge' is the pivot, and nobody knows whether it took effect: said so."),
        (hook_failed, "Hook 'on_success' did not succeed; the outcome of the saga stays: said so."),
        (undo_exhausted, "Step 'a' is no longer remembered by its participant, which cannot say what happened: said so."),
    ],
)
def test_incident_says_what_a_person_is_needed_for(story: Callable[[], Story], said: str) -> None:
    wait = explained(story(), 5, None).waits[0]
    assert wait.incident_id == 1
    assert wait.description.startswith("A person is needed (incident 1, opened at ")
    assert wait.description.endswith(said)


def test_incident_that_stops_nothing_is_told_after_what_stops_the_saga() -> None:
    story = running()
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", Accepted(time_limit_us=seconds(1)), 2)
    story.wake(3.5)
    story.resolve("charge", ResolvedSucceeded(Payload("shop.v1.Done", b"said")), 4)
    story.complete("charge", rejected(), 5)
    story.reply("ship", rejected(sealed=True), 6)
    explanation = explained(story, 7)
    assert [wait.step_id for wait in explanation.waits] == ["ship", "charge"]
    assert "Step 'ship' must succeed" in explanation.summary


def test_closed_incident_is_not_waited_for() -> None:
    story = failed()
    story.feed(RetryStep(step_id=StepId("ship")), 4)
    assert waits(explained(story, 5)) == [(WaitReason.ATTEMPT_UNDER_WAY, "ship")]


def test_undo_names_what_is_undone_before_it() -> None:
    assert explained(undoing(), 3).waits[2].description == "Step 'a' is undone after 'b' and 'c'."


def test_very_many_predecessors_are_counted() -> None:
    names = [f"s{number}" for number in range(9)]
    plan = sequence(*names, "last")
    wide = replace(plan, predecessors=(*((),) * 9, tuple(range(9))))
    wait = explained(started(wide), 1).waits[-1]
    assert wait.description == "Step 'last' is executed after 's0', 's1', 's2', 's3', 's4' and 4 more."


@pytest.mark.parametrize(
    ("story", "summary"),
    [
        (completed, "COMPLETED since 1970-01-01 00:00:01 UTC (9 s ago). Nothing will happen any more."),
        (
            compensated_saga,
            "COMPENSATED since 1970-01-01 00:00:01 UTC (9 s ago), because step 'a' was rejected: said so. "
            "What may have taken effect is undone. Nothing will happen any more.",
        ),
        (
            terminated,
            "FAILED for good: terminated by bob at 1970-01-01 00:00:04 UTC (6 s ago): written off. Nothing was undone by that. "
            "Nothing will happen any more.",
        ),
    ],
)
def test_saga_that_has_ended_waits_for_nothing(story: Callable[[], Story], summary: str) -> None:
    assert explained(story(), 10) == Explanation(summary=summary, waits=(), next="", next_at=None, choices=())


def test_hook_is_told_after_the_end() -> None:
    explanation = explained(calling_hook(), 3)
    assert explanation.summary.startswith("COMPLETED since 1970-01-01 00:00:01 UTC (2 s ago). Its hook is not done yet. Attempt 1")
    assert explanation.next.startswith("Participant 'on_success' answers")
