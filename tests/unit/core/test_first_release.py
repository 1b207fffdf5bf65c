"""Journals that the first release wrote go on: their events do not tell which steps were reached by them."""

from coordinator.core.record import replay
from coordinator.core.values import SagaStatus
from tests.builders import SAGA, Story, diamond, fails, rejected, sequence, snapshot, started, step, succeeded


def _as_the_first_release_wrote_it(story: Story) -> Story:
    story.journal = [event._replace(reached=()) for event in story.journal]
    return story


def test_steps_that_followed_are_inferred() -> None:
    story = started(diamond(limit_s=60))
    for when, name in enumerate("ab", start=1):
        story.reply(name, succeeded(), when)
    before = snapshot(story.state), story.owed()
    _as_the_first_release_wrote_it(story).crash()
    assert (snapshot(story.state), story.owed()) == before


def test_saga_of_the_first_release_that_turned_back_goes_on() -> None:
    story = started(sequence("a", "b"))
    story.reply("a", succeeded(), 1)
    story.reply("b", rejected(), 2)
    before = snapshot(story.state), story.owed()
    _as_the_first_release_wrote_it(story).crash()
    assert (snapshot(story.state), story.owed()) == before


def test_what_an_expression_made_is_never_inferred() -> None:  # R3
    story = started(sequence("a", step("b", input=fails, copies_input=False)))
    story.reply("a", succeeded(), 1)
    state = replay(story.plan, SAGA, [event._replace(reached=()) for event in story.journal[:2]])
    assert (state.status, state.steps[1].execute, state.steps[1].failure) == (SagaStatus.RUNNING, None, None)
