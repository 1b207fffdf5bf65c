"""What the span of a saga tells of the time between its start and its end."""

import pytest

from coordinator.core.inputs import (
    Accepted,
    Cancel,
    ChangePolicy,
    Command,
    Pause,
    PolicyChange,
    Resume,
    RetryStep,
    Terminate,
    Wake,
)
from coordinator.core.plan import ExpressionError, RetryPolicy, Values
from coordinator.core.values import Payload, StepId, StepKind
from coordinator.telemetry.moments import TEXT_CHARS_MAX
from tests.builders import at, rejected, seconds, sequence, step, succeeded, unknown
from tests.unit.telemetry.observed import Moment, Observed, seen

BY_BOB = {"saga.actor": "bob", "saga.reason": "because"}


def fails(_: Values) -> Payload:
    raise ExpressionError("no such field")


def moments_of(saga: Observed) -> tuple[Moment, ...]:
    return seen(saga.spans[-1]).moments


def test_steps_that_are_not_executed_are_told() -> None:
    optional = step("b", kind=StepKind.BEST_EFFORT, when=lambda _: False)
    unfit = step("c", kind=StepKind.BEST_EFFORT, input=fails, copies_input=False)
    saga = Observed(sequence("a", optional, unfit))
    saga.start()
    saga.reply("a", succeeded(), sent=1, ended=2)
    assert moments_of(saga) == (
        Moment("step left out", at(2), {"saga.step": "b"}),
        Moment(
            "step cannot be executed",
            at(2),
            {"saga.step": "c", "error.type": "INVALID_ARGUMENT", "error.message": "no such field"},
        ),
    )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (Pause(reason="because", actor="bob"), [Moment("saga paused", at(3), BY_BOB)]),
        (
            ChangePolicy(
                step_id=StepId("a"),
                change=PolicyChange(execute_retry=RetryPolicy(attempts_max=7), attempt_timeout_us=1),
                reason="because",
                actor="bob",
            ),
            [
                Moment(
                    "step policy changed",
                    at(3),
                    {"saga.step": "a", "saga.policy_changed": "execute_retry, attempt_timeout_us"} | BY_BOB,
                )
            ],
        ),
        (
            RetryStep(step_id=StepId("a"), reason="because", actor="bob"),
            [
                Moment(
                    "step retried",
                    at(3),
                    {"saga.step": "a", "saga.direction": "EXECUTE", "saga.round": 1, "saga.input_changed": False} | BY_BOB,
                )
            ],
        ),
    ],
    ids=["pause", "policy", "retry"],
)
def test_what_persons_do_is_told_with_actor_and_reason(command: Command, expected: list[Moment]) -> None:
    saga = Observed(sequence(step("a", retry=RetryPolicy(initial_backoff_us=seconds(60), backoff_max_us=seconds(60)))))
    saga.start()
    saga.reply("a", unknown(), sent=1, ended=2)
    saga.feed(command, 3)
    saga.feed(Terminate(), 5)
    assert [moment for moment in moments_of(saga) if moment.name != "saga terminated"] == expected


def test_saga_that_is_resumed_tells_it() -> None:
    saga = Observed(sequence("a"))
    saga.start()
    saga.feed(Pause(), 1)
    saga.feed(Resume(reason="because", actor="bob"), 2)
    saga.reply("a", succeeded(), sent=1, ended=3)
    assert moments_of(saga)[1] == Moment("saga resumed", at(2), BY_BOB)


def test_wish_to_turn_back_while_the_pivot_may_have_taken_effect_is_told() -> None:
    saga = Observed(sequence(step("a", kind=StepKind.PIVOT)))
    saga.start()
    saga.reply("a", Accepted(time_limit_us=seconds(60)), sent=1, ended=2)
    saga.feed(Cancel(reason="because", actor="bob"), 3)  # R10
    saga.feed(Wake(), 62)
    expected = {"saga.turn_back.cause": "CANCELLED", "saga.actor": "bob", "error.type": "CANCELLED", "error.message": "because"}
    assert moments_of(saga)[0] == Moment("turning back requested", at(3), expected)


def test_long_reason_of_a_person_is_cut() -> None:
    saga = Observed(sequence("a"))
    saga.start()
    saga.feed(Terminate(reason="x" * 10_000), 1)
    assert len(str(moments_of(saga)[0].attributes["saga.reason"])) == TEXT_CHARS_MAX


def test_refused_step_that_was_left_to_itself_is_no_moment() -> None:
    saga = Observed(sequence(step("a", kind=StepKind.BEST_EFFORT)))
    saga.start()
    saga.reply("a", rejected(), sent=1, ended=2)
    assert moments_of(saga) == ()
