"""Everything that can happen to a saga, as functions of the saga and of whoever chooses."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from coordinator.core.errors import Refusal
from coordinator.core.inputs import (
    Accepted,
    Acknowledge,
    Cancel,
    ChangePolicy,
    Command,
    Heartbeat,
    KeyExpired,
    Misconfigured,
    Mismatched,
    NotSent,
    Outcome,
    Pause,
    PolicyChange,
    Rejected,
    Resolution,
    ResolvedCompensated,
    ResolvedRejected,
    ResolvedSkipped,
    ResolvedSucceeded,
    ResolveOutput,
    ResolveStep,
    Resume,
    RetryLater,
    RetryStep,
    Succeeded,
    Terminate,
    Unknown,
)
from coordinator.core.pending import pending
from coordinator.core.plan import RetryPolicy
from coordinator.core.state import IncidentState
from coordinator.core.values import AttemptKey, Direction, Failure, IncidentKind, Payload, StepId, StepStatus
from tests.builders import EXECUTE, seconds
from tests.property.core_life import DONE, UNDONE, Life
from tests.property.core_plans import Choices

INPUTS_TO_THE_END_MAX: Final = 400
"""Answers, timers and words of persons after which a saga that is treated well must have come to its end."""
LATE_ANSWERS_MAX: Final = 3
"""Per saga: they change little, and would crowd out what does."""
BEGUN: Final = 2
"""Events before persons act, so that most stories have begun."""
WAIT_S: Final = 20
"""Longer than any call."""
NOBODY: Final = StepId("nobody")
SAID: Final = Payload("shop.v1.Done", b"said")
CODES: Final = (4, 5, 6, 7, 9, 13, 14)
STUCK: Final = (
    StepStatus.EXECUTING,
    StepStatus.ACCEPTED,
    StepStatus.REJECTED,
    StepStatus.UNKNOWN,
    StepStatus.COMPENSATING,
    StepStatus.COMPENSATION_FAILED,
)


class Happening(NamedTuple):
    """One kind of thing that can happen."""

    happens: Callable[[Life, Choices], None]
    can_happen: Callable[[Life], bool]
    weight: int
    """How often, compared with the others, where chance chooses."""


# ── Participants ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def participant_does_it(life: Life, choices: Choices) -> None:
    attempt = _some_call(life, choices)
    life.answer(attempt, DONE if attempt.direction is EXECUTE else UNDONE, choices)


def answer_is_lost(life: Life, choices: Choices) -> None:
    life.answer(_some_call(life, choices), Unknown(failure=_failure(choices)), choices)


def participant_refuses(life: Life, choices: Choices) -> None:
    life.answer(_some_call(life, choices), Rejected(failure=_failure(choices), sealed=choices.chance("sealed")), choices)


def participant_accepts(life: Life, choices: Choices) -> None:
    life.answer(_some_call(life, choices), Accepted(time_limit_us=seconds(choices.one_of((60, 1), "time to finish"))), choices)


def participant_answers_anything(life: Life, choices: Choices) -> None:
    life.answer(_some_call(life, choices), _some_outcome(choices), choices)


def participant_completes(life: Life, choices: Choices) -> None:
    """With the token of this round or of an earlier one, in time, early, late or twice."""
    attempt = choices.one_of(sorted(_executions(life)), "token of")
    results: tuple[Succeeded | Rejected, ...] = (
        DONE,
        DONE,
        Succeeded(output=SAID),
        Rejected(failure=_failure(choices)),
        Rejected(failure=_failure(choices), sealed=True),
    )
    life.complete(attempt.step_id, attempt.round, choices.one_of(results, "result"), choices)


def participant_beats(life: Life, choices: Choices) -> None:
    attempt = choices.one_of(sorted(_executions(life)), "token of")
    limit_us = choices.one_of((None, seconds(5), 0), "time limit")
    progress = choices.one_of((None, Payload("shop.v1.Progress", b"half")), "progress")
    life.command(Heartbeat(step_id=attempt.step_id, round=attempt.round, time_limit_us=limit_us, progress=progress), choices)


def ghost_acts(life: Life, choices: Choices) -> None:
    life.let_ghost_act(choices.one_of(sorted(life.ghosts), "ghost"))


def answer_comes_that_nobody_waits_for(life: Life, choices: Choices) -> None:
    """Late, duplicate, of another round, or of a step that is not there. It moves nothing."""
    owed_next = [call.attempt._replace(number=call.attempt.number + 1) for call in life.owed_calls()]
    nobody = [AttemptKey(NOBODY, direction, 1, 1) for direction in Direction]
    other_round = [attempt._replace(round=attempt.round + 1) for attempt in life.under_way]
    attempt = choices.one_of(sorted({*life.ended(), *owed_next, *nobody, *other_round} - life.under_way), "attempt")
    before = life.story.statuses(), life.owed_calls()
    life.say_again(attempt, _some_outcome(choices), choices)
    assert (life.story.statuses(), life.owed_calls()) == before


# ── Time, crashes ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def time_passes(life: Life, choices: Choices) -> None:
    life.pass_time(choices.one_of((None, None, 0, 0.1, 1, 20), "seconds"), choices)


def coordinator_crashes(life: Life, choices: Choices) -> None:
    life.crash(choices, loses_last=choices.chance("not committed"), clock_steps_s=choices.one_of((0, 0, -5, 3_600), "clock steps"))


# ── Persons ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def somebody_steers(life: Life, choices: Choices) -> None:
    commands: tuple[Command, ...] = (Resume(actor="alice"), Pause(actor="alice"), Cancel(actor="alice"))
    life.command(choices.one_of((*commands, *commands[:2]), "command"), choices)


def somebody_terminates(life: Life, choices: Choices) -> None:
    life.command(Terminate(actor="alice"), choices)


def somebody_repairs(life: Life, choices: Choices) -> None:
    """Whatever stands, and whether it makes sense or not."""
    stuck = [step.plan.id for step in life.story.state.steps if step.status in STUCK]
    hooks = [life.story.state.hook_id] if life.story.state.hook_id is not None else []
    anything = [*life.plan.index_of, *hooks, NOBODY]
    step_id = choices.one_of(stuck or anything, "step") if choices.chance("stuck") else choices.one_of(anything, "step")
    given = choices.one_of((None, None, Payload("shop.v1.PlaceOrder", b"other")), "input")
    resolutions: tuple[Resolution, ...] = (ResolvedSucceeded(SAID), ResolvedSkipped(), ResolvedRejected(), ResolvedCompensated())
    commands: tuple[Command, ...] = (
        RetryStep(step_id=step_id, input=given),
        ResolveStep(step_id=step_id, resolution=choices.one_of(resolutions, "resolution")),
        ChangePolicy(step_id=step_id, change=_some_change(choices)),
        ResolveOutput(output=SAID),
        Acknowledge(incident_id=choices.one_of(range(1, len(life.story.state.incidents) + 2), "incident")),
    )
    again = RetryStep(step_id=step_id)
    life.command(choices.one_of((again, again, again, *commands[:2], *commands), "command"), choices)


HAPPENINGS: Final[dict[str, Happening]] = {
    "participant_does_it": Happening(participant_does_it, lambda life: bool(life.under_way), 60),
    "answer_is_lost": Happening(answer_is_lost, lambda life: bool(life.under_way), 30),
    "participant_refuses": Happening(participant_refuses, lambda life: bool(life.under_way), 20),
    "participant_accepts": Happening(participant_accepts, lambda life: bool(life.under_way), 12),
    "participant_answers_anything": Happening(participant_answers_anything, lambda life: bool(life.under_way), 12),
    "participant_completes": Happening(participant_completes, lambda life: bool(_executions(life)), 12),
    "participant_beats": Happening(participant_beats, lambda life: bool(_executions(life)), 4),
    "ghost_acts": Happening(ghost_acts, lambda life: bool(life.ghosts), 12),
    "answer_comes_that_nobody_waits_for": Happening(answer_comes_that_nobody_waits_for, lambda life: True, 3),
    "time_passes": Happening(time_passes, lambda life: True, 30),
    "coordinator_crashes": Happening(coordinator_crashes, lambda life: True, 10),
    "somebody_steers": Happening(somebody_steers, lambda life: len(life.story.journal) > BEGUN, 10),
    "somebody_terminates": Happening(somebody_terminates, lambda life: len(life.story.journal) > BEGUN, 1),
    "somebody_repairs": Happening(somebody_repairs, lambda life: len(life.story.journal) > BEGUN, 25),
}


# ── To the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def bring_to_its_end(life: Life, choices: Choices, check: Callable[[Life], None]) -> None:
    """From wherever it is: answered well, and with persons who repair what is stuck, the saga ends and its hook comes to rest."""
    repairs_by_retry = choices.chance("repaired by retrying")
    life.ghosts.clear()
    for _ in range(INPUTS_TO_THE_END_MAX):
        state = life.story.state
        if state.has_ended and not state.is_unfinished and not _open_incidents(life):
            break
        before = len(life.story.journal), life.now, len(life.under_way)
        _do_the_next_thing(life, choices, repairs_by_retry=repairs_by_retry)
        after = len(life.story.journal), life.now, len(life.under_way)
        assert after != before or life.newly_sent, "nothing more happens"
        check(life)
    assert life.story.state.has_ended
    assert not life.story.state.is_unfinished
    for incident in life.story.state.incidents:
        if incident.closed_at is None:
            assert life.command(Acknowledge(incident_id=incident.fact.id), choices) is None
    assert not life.story.state.needs_person


def _do_the_next_thing(life: Life, choices: Choices, *, repairs_by_retry: bool) -> None:
    owed, incidents = pending(life.plan, life.story.state), _open_incidents(life)
    if life.under_way:
        participant_does_it(life, choices)
    elif life.story.state.paused is not None:
        assert life.command(Resume(actor="bob"), choices) is None
    elif owed.calls or owed.wake_at is not None:
        life.pass_time(None, choices)
    else:
        assert incidents, "it stands still, and nobody is asked for"
        _repair(life, incidents[0], choices, by_retry=repairs_by_retry)


def _repair(life: Life, incident: IncidentState, choices: Choices, *, by_retry: bool) -> None:
    """A person who knows what helps: one of these is always taken, unless a call of a process that has died must be waited for."""
    step_id = incident.fact.step_id
    if step_id is None:
        assert life.command(ResolveOutput(output=SAID), choices) is None
        return
    tries: list[Command] = [RetryStep(step_id=step_id), RetryStep(step_id=step_id, input=SAID)]
    answers: list[Command] = [
        ResolveStep(step_id=step_id, resolution=resolution)
        for resolution in (ResolvedSucceeded(SAID), ResolvedSkipped(), ResolvedCompensated())
    ]
    refusals = set()
    for command in (*tries, *answers) if by_retry else (*answers, *tries):
        refusal = life.command(command, choices)
        if refusal is None:
            return
        refusals.add(refusal)
    assert Refusal.UNDER_WAY in refusals, f"nothing helps against {incident.fact.kind.name} of {step_id}"
    life.pass_time(WAIT_S, choices)


def _open_incidents(life: Life) -> list[IncidentState]:
    """Those that somebody can do something about."""
    return [one for one in life.story.state.incidents if one.closed_at is None and one.fact.kind is not IncidentKind.LATE_OUTCOME]


# ── What is chosen ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _some_call(life: Life, choices: Choices) -> AttemptKey:
    return choices.one_of(sorted(life.under_way), "call")


def _executions(life: Life) -> set[AttemptKey]:
    """One call for each token that participants hold."""
    return {attempt._replace(number=1) for attempt in life.sent.keys() - life.never_left if attempt.direction is EXECUTE}


def _failure(choices: Choices) -> Failure:
    return Failure(choices.one_of(CODES, "code"), "said so")


def _some_outcome(choices: Choices) -> Outcome:
    """Whatever the shell can make of an answer, to either kind of call."""
    failure = _failure(choices)
    outcomes: tuple[Outcome, ...] = (
        DONE,
        UNDONE,
        Rejected(failure=failure),
        Unknown(failure=failure),
        RetryLater(failure=failure, delay_us=seconds(2)),
        NotSent(failure=failure),
        Misconfigured(failure=failure),
        Mismatched(failure=failure),
        KeyExpired(failure=failure),
        Accepted(time_limit_us=seconds(60)),
    )
    return choices.one_of(outcomes, "outcome")


def _some_change(choices: Choices) -> PolicyChange:
    change = PolicyChange(execute_retry=RetryPolicy(attempts_max=choices.one_of((0, 1, 4), "attempts")))
    if choices.chance("its times too"):
        change = replace(change, attempt_timeout_us=seconds(3), execute_time_limit_us=seconds(20), recovery_time_limit_us=seconds(40))
    return change
