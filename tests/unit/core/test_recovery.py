"""After a crash: what was owed may have started (R29), and the journal must not contradict itself."""

from dataclasses import replace

import pytest

from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import Event, Fact, SagaBegan, SagaCompleted, SagaRecovered, SagaStarted, StepCompensated, StepSucceeded
from coordinator.core.record import replay
from coordinator.core.values import DefinitionKey, SagaStatus, StepStatus
from tests.builders import (
    COMPENSATE,
    EXECUTE,
    SAGA,
    Owed,
    Story,
    at,
    attempt,
    compensated,
    diamond,
    parallel,
    rejected,
    retry_later,
    sequence,
    snapshot,
    started,
    succeeded,
    unknown,
)


def test_recovery_puts_every_owed_attempt_in_doubt_and_owes_the_next() -> None:  # R29
    story = started(parallel("reserve", "charge"))
    story.reply("reserve", succeeded(), 1)
    facts = story.recover(5)
    assert facts == (SagaRecovered(in_doubt=(attempt("charge", 1),)),)
    assert story.owed() == (Owed("charge", EXECUTE, 2, at(5)),)
    assert story.step("charge").in_doubt


def test_attempt_in_backoff_keeps_its_pace_but_may_have_started() -> None:  # R29
    story = started(sequence("charge"))
    story.reply("charge", retry_later(60), 1)
    facts = story.recover(5)
    assert facts == (SagaRecovered(in_doubt=(attempt("charge", 2),)),)
    assert story.owed() == (Owed("charge", EXECUTE, 3, at(61)),)


def test_crash_uses_up_no_attempt_of_the_policy() -> None:  # R7, R29
    story = started(sequence("charge"))
    for when in range(1, 6):
        story.recover(when)
    assert (story.call("charge").number, story.call("charge").failures) == (5, 0)


def test_recovery_of_a_saga_that_undoes_repeats_the_compensation() -> None:  # R29
    story = started(sequence("reserve", "charge"))
    story.reply("reserve", succeeded(), 1)
    story.reply("charge", rejected(), 2)
    assert story.recover(5) == (SagaRecovered(in_doubt=(attempt("reserve", 1, COMPENSATE),)),)
    assert story.owed() == (Owed("reserve", COMPENSATE, 2, at(5)),)
    assert story.undo("reserve", compensated(handler_ran=False), 6)
    assert story.status is SagaStatus.COMPENSATED


def test_recovery_while_siblings_are_awaited_goes_on_waiting() -> None:  # R12, R29
    story = started(parallel("reserve", "charge"))
    story.reply("reserve", rejected(), 1)
    assert story.recover(5) == (SagaRecovered(in_doubt=(attempt("charge", 1),)),)
    assert (story.owed(), story.wake_at()) == ((), at(11.5))
    story.wake(11.5)
    # The call of the earlier process may have begun until 5, and takes 10 s at most.
    assert story.owed() == (Owed("charge", COMPENSATE, 1, at(15.5)),)


def test_recovery_after_the_wait_for_siblings_compensates_them() -> None:  # R12, R29
    story = started(parallel("reserve", "charge"))
    story.reply("reserve", rejected(), 1)
    story.recover(500)
    story.wake(500)
    assert story.owed() == (Owed("charge", COMPENSATE, 1, at(510.5)),)  # whether 497 s have passed, only a clock says that may have jumped


def test_recovery_of_a_pending_saga_goes_on_sleeping() -> None:
    story = Story(sequence("reserve"))
    story.start(start_at=60)
    assert story.recover(5) == ()
    assert story.wake_at() == at(60)
    assert story.wake(60) == (SagaBegan(),)


def test_reply_to_an_attempt_from_before_the_crash_decides_nothing() -> None:  # R29
    story = started(sequence("charge"))
    story.recover(5)
    assert story.reply("charge", succeeded(), 6, number=1) == ()
    assert story.reply("charge", succeeded(), 6, number=2)[0] == StepSucceeded(
        attempt=attempt("charge", 2), sent_at=at(6), output=succeeded().output
    )


def test_turning_back_after_a_recovery_awaits_what_may_be_under_way() -> None:  # R12, R29
    story = started(parallel("reserve", "charge"))
    story.recover(5)
    story.reply("reserve", rejected(), 6)
    assert story.statuses() == {"reserve": StepStatus.UNKNOWN, "charge": StepStatus.EXECUTING}
    assert story.wake_at() == at(16.5)


def test_replay_of_the_journal_equals_the_live_state() -> None:
    story = started(diamond(), limit_s=60)
    story.reply("a", succeeded(), 1)
    story.reply("b", unknown(), 2)
    story.reply("c", rejected(), 3)
    story.wake(20)
    live = snapshot(story.state)
    story.crash()
    assert snapshot(story.state) == live


# ── A journal that contradicts itself ────────────────────────────────────────────────────────────────────────────────────────────


def _started_events() -> list[Event]:
    return started(sequence("reserve", "charge")).journal


def _with(*facts: Fact) -> list[Event]:
    return [*_started_events(), *(Event(number, at(number), fact) for number, fact in enumerate(facts, start=2))]


DONE = StepSucceeded(attempt=attempt("reserve", 1), sent_at=None, output=succeeded().output)
UNDONE = StepCompensated(attempt=attempt("reserve", 1, COMPENSATE), sent_at=None, handler_ran=True)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([event._replace(sequence=2) for event in _started_events()], id="gap"),
        pytest.param(_started_events() * 2, id="same sequence twice"),
        pytest.param([Event(1, at(1), SagaBegan())], id="begins without a start"),
        pytest.param(_with(_started_events()[0].fact), id="starts twice"),
        pytest.param(_with(SagaBegan()), id="begins while running"),
        pytest.param(_with(DONE, DONE), id="step succeeds twice"),
        pytest.param(_with(UNDONE), id="compensated before compensation was owed"),
        pytest.param(_with(StepSucceeded(attempt=attempt("charge", 1), sent_at=None, output=succeeded().output)), id="step was not due"),
        pytest.param(_with(StepSucceeded(attempt=attempt("nobody", 1), sent_at=None, output=succeeded().output)), id="no such step"),
        pytest.param(_with(SagaRecovered(in_doubt=(attempt("charge", 1),))), id="doubt about what was not owed"),
        pytest.param(_with(SagaCompleted(output=None), SagaCompleted(output=None)), id="completes twice"),
    ],
)
def test_contradicting_journal_is_corrupt(events: list[Event]) -> None:
    with pytest.raises(CorruptJournalError):
        replay(sequence("reserve", "charge"), SAGA, events)


def test_journal_of_another_definition_is_corrupt() -> None:
    (event,) = _started_events()
    other = event._replace(fact=_of_another_definition(event.fact))
    with pytest.raises(CorruptJournalError, match="place-order"):
        replay(sequence("reserve", "charge"), SAGA, [other])


def _of_another_definition(fact: Fact) -> Fact:
    assert isinstance(fact, SagaStarted)
    return replace(fact, definition=DefinitionKey("place-order", 2))
