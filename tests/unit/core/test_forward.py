"""Going forward through graphs of every shape, and the whole effects that are owed (R1, R3, R14)."""

from coordinator.core.effects import CallParticipant
from coordinator.core.events import SagaCompleted
from coordinator.core.values import SagaStatus, StepId
from tests.builders import (
    COMPENSATE,
    DEFINITION,
    EXECUTE,
    INPUT,
    SAGA,
    TRACE,
    Story,
    at,
    attempt,
    diamond,
    graph,
    output_of,
    parallel,
    rejected,
    saga_input,
    seconds,
    sequence,
    started,
    step,
    succeeded,
    unknown,
)


def test_sequence_runs_one_step_after_the_other() -> None:  # R14
    story = started(sequence("a", "b", "c"))
    for name in "abc":
        assert story.owed_steps() == {(name, EXECUTE)}
        story.reply(name, succeeded(), 1)
    assert (story.status, story.owed()) == (SagaStatus.COMPLETED, ())


def test_diamond_waits_for_both_sides() -> None:  # R14
    story = started(diamond())
    assert story.owed_steps() == {("a", EXECUTE)}
    story.reply("a", succeeded(), 1)
    assert story.owed_steps() == {("b", EXECUTE), ("c", EXECUTE)}
    story.reply("c", succeeded(), 2)
    assert story.owed_steps() == {("b", EXECUTE)}
    story.reply("b", succeeded(), 3)
    assert story.owed_steps() == {("d", EXECUTE)}


def test_wide_parallel_runs_together_and_completes_with_the_last() -> None:  # R14
    names = [f"s{number}" for number in range(50)]
    story = started(parallel(*names))
    assert story.owed_steps() == {(name, EXECUTE) for name in names}
    for name in names[:-1]:
        assert SagaCompleted(output=None) not in story.reply(name, succeeded(), 1)
    assert story.reply(names[-1], succeeded(), 1)[-1] == SagaCompleted(output=None)


def test_unrelated_failure_of_nobody_holds_up_a_sibling() -> None:
    story = started(graph([step(name) for name in "abc"], {"c": ["a"]}))
    story.reply("b", unknown(), 1)
    story.reply("a", succeeded(), 1)
    assert ("c", EXECUTE) in story.owed_steps()


def test_output_of_the_saga_is_read_when_the_last_step_succeeded() -> None:
    story = started(sequence("a", "b", output=output_of(1)))
    story.reply("a", succeeded(b"first"), 1)
    story.reply("b", succeeded(b"second"), 2)
    assert (story.state.output, story.state.ended_at) == (succeeded(b"second").output, at(2))


def test_step_may_take_the_whole_output_of_an_earlier_one() -> None:  # R3
    story = started(sequence("a", step("b", input=output_of(0))))
    story.reply("a", succeeded(b"first"), 1)
    assert story.effect("b").input == succeeded(b"first").output


def test_execution_effect_says_everything_the_call_needs() -> None:  # R1
    story = started(sequence(step("charge", timeout_s=3, limit_s=30)), when=5)
    story.reply("charge", unknown(), 6)
    plan = story.plan.steps[0]
    assert story.effect("charge") == CallParticipant(
        saga_id=SAGA, definition=DEFINITION, attempt=attempt("charge", 2), action="charge.do",
        key=f"{SAGA}/charge/execute/1", execute_key=f"{SAGA}/charge/execute/1", input=INPUT, first_attempt_at=at(5),
        timeout_us=seconds(3), send_before=at(35), output=None, input_type="", output_type="", check_output=plan.check_output, trace=TRACE,
    )  # fmt: skip


def test_compensation_effect_carries_its_own_key_and_that_of_the_execution() -> None:  # R1
    story = started(sequence("charge", "ship"), when=5)
    story.reply("charge", succeeded(b"receipt"), 6)
    story.reply("ship", rejected(), 7)
    effect = story.effect("charge", COMPENSATE)
    assert (effect.key, effect.execute_key) == (f"{SAGA}/charge/compensate/1", f"{SAGA}/charge/execute/1")
    assert (effect.input, effect.output) == (INPUT, succeeded(b"receipt").output)
    assert (effect.first_attempt_at, effect.send_before) == (at(5), None)


def test_every_attempt_of_a_round_carries_the_same_key_and_input() -> None:  # R1, R3
    story = started(sequence("charge"))
    effects = []
    for when in (1, 2, 3):
        effects.append(story.effect("charge"))
        story.reply("charge", unknown(), when)
    story.recover(4)
    effects.append(story.effect("charge"))
    assert [effect.attempt.number for effect in effects] == [1, 2, 3, 5]
    assert {(effect.key, effect.input) for effect in effects} == {(f"{SAGA}/charge/execute/1", INPUT)}


def test_plan_names_participant_and_places() -> None:
    plan = diamond()
    assert plan.steps[0].participant == "a"
    assert plan.successors == ((1, 2), (3,), (3,), ())
    assert plan.index_of == {StepId(name): place for place, name in enumerate("abcd")}
    assert plan.backward_order == (3, 2, 1, 0)


def test_nothing_is_owed_before_the_start() -> None:
    story = Story(sequence(step("a", input=saga_input)))
    assert (story.owed(), story.wake_at(), story.status) == ((), None, None)
