"""What a saga waits for: one sentence for each thing, and the facts behind it. It reads the state and the rules, and changes nothing."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from coordinator.core.explanation import HeldBy, HeldCall, Wait, WaitReason, failure_in_words, in_words, person_in_words
from coordinator.core.pending import execution_limit
from coordinator.core.plan import SagaPlan, StepPlan
from coordinator.core.point_of_no_return import has_passed
from coordinator.core.state import MAY_HAVE_EFFECT, CallState, SagaState, StepState
from coordinator.core.values import AttemptKey, Direction, IncidentKind, Instant, SagaStatus, StepKind, StepStatus

NAMES_MAX: Final = 5
"""Steps that are named in one sentence; the others are counted."""

_INCIDENTS: Final[dict[IncidentKind, str]] = {
    IncidentKind.COMPENSATION_EXHAUSTED: "could not be undone, and is not tried again by itself",
    IncidentKind.KEY_EXPIRED: "is no longer remembered by its participant, which cannot say what happened",
    IncidentKind.QUARANTINED: "was set aside: its journal cannot be read or written",
    IncidentKind.STEP_REJECTED: "must succeed, because the saga cannot turn back any more, and was rejected",
    IncidentKind.STEP_EXHAUSTED: "must succeed, because the saga cannot turn back any more, and ran out of attempts or time",
    IncidentKind.PIVOT_UNKNOWN: "is the pivot, and nobody knows whether it took effect",
    IncidentKind.EXPRESSION_FAILED: "has an expression that failed where the saga cannot turn back any more",
    IncidentKind.TYPE_MISMATCH: "has a participant that takes or returns other message types than the definition says",
    IncidentKind.LATE_OUTCOME: "was resolved or retried by a person, and what its participant said later contradicts that",
    IncidentKind.HOOK_FAILED: "did not succeed; the outcome of the saga stays",
}


def find_waits(plan: SagaPlan, state: SagaState, now: Instant, held_by: HeldBy) -> Iterator[Wait]:
    """Everything that the saga waits for, in the order of its steps; nothing once it has ended and its hook is at rest."""
    if state.paused is not None:
        yield Wait(
            reason=WaitReason.PAUSED,
            description=f"The saga was paused {person_in_words(state.paused, now)}. Nothing new starts until somebody resumes it.",
            person=state.paused,
        )
    yield from _find_incidents(state, now)
    if state.status is SagaStatus.PENDING and state.start_at is not None and not state.has_ended:
        words = f"The saga begins at {in_words(state.start_at, now)}."
        yield Wait(reason=WaitReason.START_TIME, description=words, expected="The saga begins.", until=state.start_at)
    if not state.has_ended:
        for index, step in enumerate(state.steps):
            yield from _find_for_step(plan, state, step, now, held_by)
            yield from _find_predecessors(plan, state, index)
    if state.hook is not None:
        yield from _find_for_step(plan, state, state.hook, now, held_by)


def _find_incidents(state: SagaState, now: Instant) -> Iterator[Wait]:
    open_ones = [incident for incident in state.incidents if incident.closed_at is None]
    # What contradicts a person later stops nothing: it is told after what does.
    for incident in sorted(open_ones, key=lambda one: one.fact.kind is IncidentKind.LATE_OUTCOME):
        fact = incident.fact
        if fact.step_id is None:
            what = "The saga cannot say what it returns, because the expression for that failed"
        else:
            what = f"{'Hook' if fact.step_id == state.hook_id else 'Step'} {fact.step_id!r} {_INCIDENTS[fact.kind]}"
        opened = f"incident {fact.id}, opened at {in_words(incident.opened_at, now)}"
        yield Wait(
            reason=WaitReason.INCIDENT,
            description=f"A person is needed ({opened}): {what}: {failure_in_words(fact.failure)}.",
            step_id=fact.step_id,
            failure=fact.failure,
            incident_id=fact.id,
        )


def _find_for_step(plan: SagaPlan, state: SagaState, step: StepState, now: Instant, held_by: HeldBy) -> Iterator[Wait]:
    if step.status is StepStatus.ACCEPTED and step.accepted_until is not None:
        yield _completion(plan, state, step, step.accepted_until, now)
    elif step.status is StepStatus.EXECUTING and step.execute is not None:
        if state.status is SagaStatus.COMPENSATING and step is not state.hook:
            yield _quiescence(state, step, now)
        else:
            yield from _find_for_call(plan, state, _Call(step, step.execute, Direction.EXECUTE), now, held_by)
    elif step.status is StepStatus.COMPENSATING and step.compensate is not None:
        yield from _find_for_call(plan, state, _Call(step, step.compensate, Direction.COMPENSATE), now, held_by)


class _Call(NamedTuple):
    """A call that a step owes."""

    step: StepState
    call: CallState
    direction: Direction

    @property
    def plan(self) -> StepPlan:
        return self.step.plan

    @property
    def attempt(self) -> AttemptKey:
        return AttemptKey(self.plan.id, self.direction, self.call.round, self.call.number + 1)

    @property
    def verb(self) -> str:
        return "execute" if self.direction is Direction.EXECUTE else "undo"

    @property
    def name(self) -> str:
        """Example: "Attempt 2 to undo step 'reserve'"."""
        return f"Attempt {self.attempt.number} to {self.verb} step {self.plan.id!r}"

    @property
    def is_sent(self) -> str:
        """Example: "Attempt 2 to undo step 'reserve' is sent to participant 'inventory'"."""
        return f"{self.name} is sent to participant {self.plan.participant!r}"


def _find_for_call(plan: SagaPlan, state: SagaState, owed: _Call, now: Instant, held_by: HeldBy) -> Iterator[Wait]:
    is_paused = state.paused is not None
    if not is_paused and owed.call.not_before > now:
        yield _backoff(plan, state, owed, now)
        return
    if is_paused and not state.may_be_under_way(owed.step, owed.call, now):
        return  # it is not due while the saga is paused: there is nothing to say beyond that
    held = held_by(owed.plan, owed.attempt)
    if held is not None:
        yield _held(plan, state, owed, held, now)
    elif not is_paused:
        words = f"{owed.name} is due, and is handed over as soon as what was decided is in the journal."
        reason, participant = WaitReason.ATTEMPT_UNDER_WAY, owed.plan.participant
        yield Wait(reason=reason, description=words, expected=f"{owed.is_sent}.", step_id=owed.plan.id, participant=participant)


def _held(plan: SagaPlan, state: SagaState, owed: _Call, held: HeldCall, now: Instant) -> Wait:
    participant, until = owed.plan.participant, held.until
    match held.reason:
        case WaitReason.ATTEMPT_UNDER_WAY:
            expected = f"Participant {participant!r} answers {owed.name[0].lower()}{owed.name[1:]}, or the time for that is over."
        case WaitReason.NO_SUCH_PARTICIPANT:
            until = _gives_up_at(plan, state, owed)
            expected = f"{owed.is_sent} as soon as that registers; if it does not, {_after_giving_up(plan, state, owed.step)}."
        case WaitReason.CIRCUIT_OPEN:
            expected = f"Participant {participant!r} is tried again, with one call first."
        case _:
            expected = f"{owed.is_sent} when its turn comes."
    return Wait(
        reason=held.reason,
        description=f"{owed.name} {held.description}.{_outlook(plan, state, owed, now)}",
        expected=expected,
        step_id=owed.plan.id,
        until=until,
        failure=held.failure or owed.call.failure,
        participant=participant,
    )


def _backoff(plan: SagaPlan, state: SagaState, owed: _Call, now: Instant) -> Wait:
    call, when, until = owed.call, in_words(owed.call.not_before, now), owed.call.not_before
    failed = ""
    if call.failure is not None:
        failed = f"Attempt {call.number} to {owed.verb} step {owed.plan.id!r} did not succeed: {failure_in_words(call.failure)}. "
    limit = execution_limit(plan, state, owed.step, call) if owed.direction is Direction.EXECUTE else None
    if limit is not None and limit <= call.not_before:
        after, whose = _after_giving_up(plan, state, owed.step), f"the time of step {owed.plan.id!r}"
        if limit == state.deadline:
            after, whose, until = "the saga turns back", "the time limit of the saga", limit
        words = f"{failed}No further attempt is sent: {whose} is over at {in_words(limit, now)}, before one is due at {when}; then {after}."
        expected = f"{whose[0].upper()}{whose[1:]} is over: {after}."
    else:
        sent = f"Attempt {owed.attempt.number} is sent to participant {owed.plan.participant!r}" if failed else owed.is_sent
        words = f"{failed}{sent} at {when}.{_outlook(plan, state, owed, now)}"
        expected = f"{owed.is_sent}."
    return Wait(
        reason=WaitReason.BACKOFF,
        description=words,
        expected=expected,
        step_id=owed.plan.id,
        until=until,
        failure=call.failure,
        participant=owed.plan.participant,
    )


def _outlook(plan: SagaPlan, state: SagaState, owed: _Call, now: Instant) -> str:
    """How long it is tried, and what follows then; begins with a space. Empty if nothing bounds it that is known yet."""
    policy = owed.plan.execute_retry if owed.direction is Direction.EXECUTE else owed.plan.compensate_retry
    until = _gives_up_at(plan, state, owed)
    bounds = [f"until {in_words(until, now)}"] if until is not None and until > now else []
    if policy.attempts_max:
        bounds.append(f"{policy.attempts_max} times at most, {owed.call.failures} of which are used")
    if not bounds:
        return ""
    return f" It is tried {', and '.join(bounds)}; then {_after_giving_up(plan, state, owed.step)}."


def _gives_up_at(plan: SagaPlan, state: SagaState, owed: _Call) -> Instant | None:
    if owed.direction is Direction.EXECUTE:
        limit = execution_limit(plan, state, owed.step, owed.call)
        if limit is not None:
            return limit
    first = owed.call.failed_first_at
    return None if first is None else Instant(first + owed.plan.recovery_time_limit_us)


def _after_giving_up(plan: SagaPlan, state: SagaState, step: StepState) -> str:
    if step.status is StepStatus.COMPENSATING or step is state.hook:
        return "a person is asked"
    if step.plan.kind is StepKind.BEST_EFFORT:
        return "the saga goes on without it"
    if has_passed(plan, state):
        return "a person is asked"
    if step.plan.kind is StepKind.PIVOT and (step.in_doubt or step.status is StepStatus.ACCEPTED):
        return "a person is asked whether it took effect"
    if step.plan.kind is StepKind.PIVOT:
        beyond = " until they are used up" if step.plan.execute_retry.attempts_max else ""  # R10: the limits of step and saga do not end it
        return f"the saga turns back, unless the step may have taken effect: then it is tried on{beyond}"
    return "the saga turns back"


def _completion(plan: SagaPlan, state: SagaState, step: StepState, until: Instant, now: Instant) -> Wait:
    participant = step.plan.participant
    after = f"then {_after_giving_up(plan, state, step)}"
    judged = "that is judged when the saga is resumed" if state.paused is not None else after
    return Wait(
        reason=WaitReason.COMPLETION,
        description=f"Step {step.plan.id!r} was accepted by participant {participant!r}, which completes it later. If it has not by "
        f"{in_words(until, now)}, nobody knows whether it took effect; {judged}.",
        expected=f"Participant {participant!r} completes step {step.plan.id!r}, or the time for that is over; {after}.",
        step_id=step.plan.id,
        until=until,
        participant=participant,
    )


def _quiescence(state: SagaState, step: StepState, now: Instant) -> Wait:
    end = "until its attempt has come to rest" if state.quiet_at is None else f"until {in_words(state.quiet_at, now)} at most"
    return Wait(
        reason=WaitReason.QUIESCENCE,
        description=f"The saga turned back while an attempt of step {step.plan.id!r} was under way. Its answer is awaited {end}, "
        "because nothing is undone while something is still being done.",
        expected="Attempts that were under way have ended, or are given up; what was done is undone.",
        step_id=step.plan.id,
        until=state.quiet_at,
        participant=step.plan.participant,
    )


def _find_predecessors(plan: SagaPlan, state: SagaState, index: int) -> Iterator[Wait]:
    step, step_id = state.steps[index], plan.steps[index].id
    if state.status in (SagaStatus.RUNNING, SagaStatus.FAILED) and state.cause is None and step.status is StepStatus.WAITING:
        if step.waits_for:
            before = [plan.steps[place] for place in plan.predecessors[index] if not _is_done(state.steps[place])]
            words = f"Step {step_id!r} is executed after {_listed(before)}."
        elif state.turn_back_requested is not None:
            words = f"Step {step_id!r} is not begun until it is known whether the pivot took effect."
        else:
            return
        yield Wait(reason=WaitReason.PREDECESSORS, description=words, step_id=step_id)
    elif state.cause is not None and state.is_quiet and step.status in MAY_HAVE_EFFECT and step.plan.is_compensated:
        after = _undone_before(plan, state, index)
        words = f"Step {step_id!r} is undone after {_listed(after)}." if after else f"Step {step_id!r} is to be undone."
        yield Wait(reason=WaitReason.PREDECESSORS, description=words, step_id=step_id)


def _undone_before(plan: SagaPlan, state: SagaState, index: int) -> list[StepPlan]:
    """The next steps after this one in the graph that must be undone before it."""
    found: dict[int, StepPlan] = {}
    seen, ahead = {index}, list(plan.successors[index])
    while ahead:
        place = ahead.pop()
        if place in seen:
            continue
        seen.add(place)
        if _is_undone(state.steps[place]):
            ahead += plan.successors[place]
        else:
            found[place] = plan.steps[place]
    return [found[place] for place in sorted(found)]


def _is_done(step: StepState) -> bool:
    if step.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED):
        return True
    return step.plan.kind is StepKind.BEST_EFFORT and step.is_at_rest


def _is_undone(step: StepState) -> bool:
    if step.status in (StepStatus.COMPENSATING, StepStatus.COMPENSATION_FAILED):
        return False
    return step.status not in MAY_HAVE_EFFECT or not step.plan.is_compensated


def _listed(steps: list[StepPlan]) -> str:
    names = [f"{step.id!r}" for step in steps[:NAMES_MAX]]
    if len(steps) > NAMES_MAX:
        names.append(f"{len(steps) - NAMES_MAX} more")
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:]))) or "what comes before it"
