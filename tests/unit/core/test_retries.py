"""When the next attempt is due: numbers, counters, pace, limits (R1, R7, R13)."""

from coordinator.core.events import AttemptFailed, Fact, StepCompensationFailed, StepRejected, StepUnknown
from coordinator.core.inputs import Outcome
from coordinator.core.plan import RetryPolicy, StepPlan
from coordinator.core.values import Instant, SagaId, StepId
from tests.builders import (
    COMPENSATE,
    DEFAULT_RETRY,
    EXECUTE,
    Owed,
    Story,
    at,
    compensated,
    not_sent,
    rejected,
    retry_later,
    saga_input,
    seconds,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)


def _retry_at(facts: tuple[Fact, ...]) -> Instant:
    (fact,) = facts
    assert isinstance(fact, AttemptFailed)
    return fact.retry_at


def _undoing(retry: RetryPolicy = DEFAULT_RETRY, undo: RetryPolicy = DEFAULT_RETRY) -> Story:
    story = started(sequence(step("reserve", retry=retry, undo=undo), "charge"))
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", rejected(), 2)
    return story


def test_failed_attempt_owes_the_next_number_after_its_backoff() -> None:  # R1
    story = started(sequence("charge"))
    retry_at = _retry_at(story.reply("charge", unknown(), 1))
    assert at(1.1) <= retry_at <= at(1.2)
    assert story.owed() == (Owed("charge", EXECUTE, 2, retry_at),)


def test_backoff_grows_with_counted_failures() -> None:
    story = started(sequence("charge"))
    _retry_at(story.reply("charge", unknown(), 1))
    assert at(2.2) <= _retry_at(story.reply("charge", unknown(), 2)) <= at(2.4)
    assert at(3.4) <= _retry_at(story.reply("charge", unknown(), 3)) <= at(3.8)


def test_unsent_calls_back_off_on_their_own_counter() -> None:  # R7
    story = started(sequence("charge"))
    for when in (1, 2, 3):
        story.reply("charge", not_sent(), when)
    assert at(4.8) <= _retry_at(story.reply("charge", not_sent(), 4)) <= at(5.6)
    assert at(6.1) <= _retry_at(story.reply("charge", unknown(), 6)) <= at(6.2)


def test_retry_later_is_due_at_the_participants_pace() -> None:  # R6
    assert _retry_at(started(sequence("charge")).reply("charge", retry_later(7), 1)) == at(8)


def test_retry_later_at_once_still_leaves_the_first_backoff_between() -> None:
    assert _retry_at(started(sequence("charge")).reply("charge", retry_later(0), 1)) == at(1.2)


def test_retry_later_does_not_slow_down_what_comes_after_it() -> None:  # R7
    story = started(sequence("charge"))
    story.reply("charge", retry_later(1), 1)
    assert at(3.1) <= _retry_at(story.reply("charge", unknown(), 3)) <= at(3.2)


def test_numbers_go_on_whatever_the_outcome() -> None:  # R1
    story = started(sequence("charge"))
    outcomes: list[Outcome] = [unknown(), retry_later(0), not_sent(), unknown()]
    for number, outcome in enumerate(outcomes, start=1):
        story.reply("charge", outcome, number)
        assert story.owed()[0].number == number + 1
    assert (story.call("charge").failures, story.call("charge").postponed, story.call("charge").faults) == (2, 2, 0)


def test_retry_that_would_fall_on_the_step_limit_is_not_made() -> None:
    story = started(sequence(step("charge", limit_s=10)))
    assert isinstance(story.reply("charge", unknown(), 10)[0], StepUnknown)
    story = started(sequence(step("charge", limit_s=10)))
    assert isinstance(story.reply("charge", not_sent(), 9.99)[0], StepRejected)


def test_step_limit_runs_from_the_moment_the_step_is_due() -> None:
    story = started(sequence("reserve", step("charge", limit_s=10)))
    story.reply("reserve", succeeded(), 100)
    _retry_at(story.reply("charge", unknown(), 105))
    assert story.effect("charge").send_before == at(110)


def test_compensation_has_its_own_policy_and_counter() -> None:  # R13
    story = _undoing(retry=RetryPolicy(attempts_max=1), undo=RetryPolicy(attempts_max=2))
    assert _retry_at(story.undo("reserve", unknown(), 3)) > at(3)
    assert story.owed()[0][:3] == ("reserve", COMPENSATE, 2)
    assert isinstance(story.undo("reserve", unknown(), 4)[0], StepCompensationFailed)


def test_compensation_is_not_bounded_by_step_or_saga_limits() -> None:  # R13
    story = started(sequence(step("reserve", limit_s=5), "charge", limit_s=10))
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", rejected(), 2)
    _retry_at(story.undo("reserve", unknown(), 1_000))
    assert story.effect("reserve", COMPENSATE).send_before is None
    story.undo("reserve", compensated(), 2_000)
    assert story.wake_at() is None


def test_compensation_limit_runs_from_its_first_failed_attempt() -> None:
    story = started(sequence(step("reserve", undo_limit_s=60), "charge"))
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", rejected(), 2)
    _retry_at(story.undo("reserve", unknown(), 500))
    _retry_at(story.undo("reserve", unknown(), 559))
    assert isinstance(story.undo("reserve", unknown(), 560)[0], StepCompensationFailed)


def test_default_compensation_goes_on_for_a_day() -> None:
    story = _undoing()
    _retry_at(story.undo("reserve", unknown(), 3))
    _retry_at(story.undo("reserve", not_sent(), 86_300))
    assert isinstance(story.undo("reserve", unknown(), 3 + 86_400)[0], StepCompensationFailed)


def test_two_sagas_do_not_retry_at_the_same_instant() -> None:
    first, second = Story(sequence("charge")), Story(sequence("charge"), SagaId("01900000-0000-7000-8000-000000000002"))
    for story in (first, second):
        story.start()
    assert _retry_at(first.reply("charge", unknown(), 1)) != _retry_at(second.reply("charge", unknown(), 1))


def test_backoff_constants_are_those_of_the_protocol() -> None:
    default = RetryPolicy()
    assert (default.initial_backoff_us, default.multiplier, default.backoff_max_us) == (seconds(0.2), 2.0, seconds(30))
    plan = StepPlan(id=StepId("charge"), action="payments.charge", input=saga_input)
    limits = (plan.attempt_timeout_us, plan.execute_time_limit_us, plan.recovery_time_limit_us)
    assert limits == (seconds(10), seconds(300), seconds(86_400))
