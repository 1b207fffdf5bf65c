"""A journal that was tampered with is corrupt or harmless, and never breaks whoever reads it (P5)."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.errors import CorruptJournalError
from coordinator.core.events import Event, SagaStarted
from coordinator.core.inputs import Outcome
from coordinator.core.pending import call_participant, pending
from coordinator.core.plan import RetryPolicy
from coordinator.core.state import replay
from coordinator.core.values import SagaStatus
from tests.builders import SAGA, Story, compensated, diamond, rejected, retry_later, sequence, started, step, succeeded, unknown

ONCE = RetryPolicy(attempts_max=1)


def _told(story: Story, *said: tuple[str, Outcome]) -> Story:
    for when, (step_id, outcome) in enumerate(said, start=1):
        story.reply(step_id, outcome, when)
    return story


def _stories() -> list[Story]:
    undone = _told(started(diamond(), limit_s=60), ("a", succeeded()), ("b", unknown()), ("c", rejected()))
    undone.recover(5)
    undone.wake(30)
    failed = _told(started(sequence(step("a", undo=ONCE), "b")), ("a", succeeded()), ("b", retry_later(1)), ("b", rejected()))
    failed.undo("a", unknown(), 9)
    delayed = Story(sequence("a"))
    delayed.start(0, start_at=5)
    delayed.wake(5)
    delayed.reply("a", unknown(), 6)
    delayed.cancel(7)
    cancelled = _told(started(sequence("a", "b")), ("a", succeeded()))
    cancelled.cancel(2)
    cancelled.reply("b", rejected(), 3)
    cancelled.undo("a", compensated(), 4)
    return [undone, failed, delayed, cancelled, _told(started(diamond()), *((name, succeeded()) for name in "abcd"))]


STORIES = _stories()


@given(st.data())
def test_tampered_journal_is_corrupt_or_replays(draws: st.DataObject) -> None:
    story, other = draws.draw(st.tuples(st.sampled_from(STORIES), st.sampled_from(STORIES)))
    facts = [event.fact for event in draws.draw(st.permutations(story.journal + other.journal))]
    kept = [facts[place] for place in draws.draw(st.lists(st.integers(0, len(facts) - 1), max_size=12))]
    facts = draws.draw(st.sampled_from([[event.fact for event in story.journal[:1]], []])) + kept
    events = [
        Event(sequence, story.journal[0].occurred_at, replace(fact, definition=story.plan.key) if isinstance(fact, SagaStarted) else fact)
        for sequence, fact in enumerate(facts, start=1)
    ]
    try:
        state = replay(story.plan, SAGA, events)
    except CorruptJournalError:
        return
    for call in pending(story.plan, state).calls:
        call_participant(story.plan, state, call.attempt)


@given(st.sampled_from(STORIES), st.data())
def test_any_prefix_of_a_journal_replays_and_owes_what_is_not_recorded(story: Story, draws: st.DataObject) -> None:
    prefix = story.journal[: draws.draw(st.integers(0, len(story.journal)))]
    state = replay(story.plan, SAGA, prefix)
    for call in pending(story.plan, state).calls:
        effect = call_participant(story.plan, state, call.attempt)
        assert effect.key == f"{SAGA}/{call.attempt.step_id}/{call.attempt.direction.name.lower()}/1"
        assert call.attempt not in {getattr(event.fact, "attempt", None) for event in prefix}
    if state.status in (SagaStatus.COMPLETED, SagaStatus.COMPENSATED, SagaStatus.FAILED):
        assert pending(story.plan, state) == ((), None)
