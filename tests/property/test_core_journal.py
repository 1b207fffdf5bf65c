"""A journal that was tampered with is corrupt or harmless, and never breaks whoever reads it (P5)."""

from dataclasses import replace
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.course import SagaCourse
from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import Event, SagaStarted
from coordinator.core.inputs import Acknowledge, Outcome, ResolvedSkipped
from coordinator.core.pending import call_participant, pending
from coordinator.core.plan import RetryPolicy, SagaPlan
from coordinator.core.record import replay
from coordinator.core.values import SagaStatus, StepKind, idempotency_key
from tests.builders import (
    INPUT,
    SAGA,
    Story,
    accepted,
    compensated,
    diamond,
    fails,
    hook,
    never,
    rejected,
    retry_later,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)

ONCE: Final = RetryPolicy(attempts_max=1)
EVENTS_MAX: Final = 14


def _told(story: Story, *said: tuple[str, Outcome]) -> Story:
    for when, (step_id, outcome) in enumerate(said, start=1):
        story.reply(step_id, outcome, when)
    return story


def _backward() -> list[Story]:
    undone = _told(started(diamond(), limit_s=60), ("a", succeeded()), ("b", unknown()), ("c", rejected()))
    undone.recover(5)
    undone.wake(30)
    failed = _told(started(sequence(step("a", undo=ONCE), "b")), ("a", succeeded()), ("b", retry_later(1)), ("b", rejected()))
    failed.undo("a", unknown(), 9)
    failed.retry("a", 10)
    delayed = Story(sequence("a"))
    delayed.start(0, start_at=5)
    delayed.wake(5)
    delayed.reply("a", unknown(), 6)
    delayed.cancel(7)
    cancelled = _told(started(sequence("a", "b")), ("a", succeeded()))
    cancelled.cancel(2)
    cancelled.reply("b", rejected(), 3)
    cancelled.undo("a", compensated(), 4)
    return [undone, failed, delayed, cancelled]


def _with_everything() -> SagaPlan:
    c = step("c", kind=StepKind.RETRIABLE, retry=ONCE)
    plan = sequence("a", step("left", when=never), step("pivot", kind=StepKind.PIVOT, retry=ONCE), c, output=fails)
    return replace(plan, on_success=hook("on_success"), on_failure=hook("on_failure"))


def _forward() -> list[Story]:
    resolved = _told(started(_with_everything()), ("a", accepted(60)))
    resolved.beat("a", 30)
    resolved.complete("a", succeeded(), 31)
    resolved.cancel(32)
    resolved.reply("pivot", unknown(), 33)
    resolved.retry("pivot", 34)
    resolved.complete("pivot", succeeded(), 35)
    resolved.reply("pivot", unknown(), 36)
    resolved.reply("c", rejected(), 37)
    resolved.retry("c", 38, given=INPUT)
    resolved.reply("c", unknown(), 39)
    resolved.resolve("c", ResolvedSkipped(), 40)
    resolved.complete("c", succeeded(), 41, round_=2)
    resolved.feed(Acknowledge(incident_id=resolved.state.incidents[-1].fact.id), 42)
    terminated = _told(started(_with_everything()), ("a", succeeded()))
    terminated.pause(2)
    terminated.recover(3)
    terminated.terminate(4)
    terminated.reply("pivot", succeeded(), 5)
    terminated.reply("on_failure", succeeded(), 6)
    return [resolved, terminated, _told(started(diamond()), *((name, succeeded()) for name in "abcd"))]


STORIES: Final = [*_backward(), *_forward()]


def _renumbered(story: Story, kept: list[Event]) -> list[Event]:
    """Events of any story, as if they were of this one."""
    return [
        event._replace(
            sequence=sequence,
            fact=replace(event.fact, definition=story.plan.key) if isinstance(event.fact, SagaStarted) else event.fact,
        )
        for sequence, event in enumerate(kept, start=1)
    ]


@given(st.data())
def test_tampered_journal_is_corrupt_or_replays(draws: st.DataObject) -> None:
    """Events are left out, doubled, put elsewhere, mixed with those of another saga, and torn from the steps that were reached by them."""
    story, other = draws.draw(st.tuples(st.sampled_from(STORIES), st.sampled_from(STORIES)))
    begun = story.journal[: draws.draw(st.integers(0, len(story.journal)))]
    mixed = draws.draw(st.lists(st.sampled_from(story.journal + other.journal), max_size=EVENTS_MAX))
    torn = [event._replace(reached=()) if draws.draw(st.integers(0, 9)) == 0 else event for event in mixed]
    try:
        state = replay(story.plan, SAGA, _renumbered(story, begun + torn))
    except CorruptJournalError:
        return
    for call in pending(story.plan, state).calls:
        call_participant(story.plan, state, call.attempt)


@given(st.data())
def test_tampered_journal_never_breaks_whoever_follows_its_course(draws: st.DataObject) -> None:
    story = draws.draw(st.sampled_from(STORIES))
    course = SagaCourse()
    for event in _renumbered(story, draws.draw(st.lists(st.sampled_from(story.journal), max_size=EVENTS_MAX))):
        try:
            course.follow(event)
        except CorruptJournalError:
            return


@given(st.sampled_from(STORIES), st.data())
def test_any_prefix_of_a_journal_replays_and_owes_what_is_not_recorded(story: Story, draws: st.DataObject) -> None:  # P1
    prefix = story.journal[: draws.draw(st.integers(0, len(story.journal)))]
    state = replay(story.plan, SAGA, prefix)
    owed = pending(story.plan, state)
    for call in owed.calls:
        effect = call_participant(story.plan, state, call.attempt)
        assert effect.key == idempotency_key(SAGA, call.attempt.step_id, call.attempt.direction, call.attempt.round)
        assert call.attempt not in {getattr(event.fact, "attempt", None) for event in prefix}
    if state.status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED) and state.hook is None:
        assert owed == ((), None)
