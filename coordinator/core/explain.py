"""Why a saga stands where it stands, what will happen next and when: the answer for a person who looks at it at night.

It reads the state and the rules, and is told by `held_by` where calls are that are due. It changes nothing.
"""

from typing import Final, NamedTuple

from coordinator.core.choices import find_choices
from coordinator.core.explanation import Explanation, HeldBy, Wait, WaitReason, failure_in_words, in_words, person_in_words
from coordinator.core.plan import SagaPlan
from coordinator.core.point_of_no_return import has_passed, pivot_may_have_effect
from coordinator.core.state import SagaState
from coordinator.core.values import Instant, SagaStatus, TurnBackCause
from coordinator.core.waits import find_waits

_RANKS: Final = (
    WaitReason.PAUSED,
    WaitReason.INCIDENT,
    WaitReason.START_TIME,
    WaitReason.QUIESCENCE,
    WaitReason.NO_SUCH_PARTICIPANT,
    WaitReason.CIRCUIT_OPEN,
    WaitReason.BACKOFF,
    WaitReason.COMPLETION,
    WaitReason.CONCURRENCY_LIMIT,
    WaitReason.RATE_LIMIT,
    WaitReason.ATTEMPT_UNDER_WAY,
    WaitReason.PREDECESSORS,
    WaitReason.ENDED,
)
"""The most important first: what a person can do something about, then what is wrong, then what is as it should be."""


class _Next(NamedTuple):
    """One thing that may happen next."""

    text: str
    at: Instant | None
    """None: it may happen at any moment, or nobody knows."""


_NOTHING: Final = _Next("", None)


def explain(plan: SagaPlan, state: SagaState, now: Instant, held_by: HeldBy) -> Explanation:
    """Why the saga stands where it stands."""
    waits = sorted(find_waits(plan, state, now, held_by), key=lambda wait: _RANKS.index(wait.reason))
    following = _next_of(plan, state, waits, now)
    return Explanation(
        summary=_summary_of(plan, state, waits, now),
        waits=tuple(waits),
        next=following.text,
        next_at=following.at,
        choices=find_choices(plan, state, now),
    )


# ── What it says in one sentence ─────────────────────────────────────────────────────────────────────────────────────────────────


def _summary_of(plan: SagaPlan, state: SagaState, waits: list[Wait], now: Instant) -> str:
    assert state.status is not None, "only a saga that exists is explained"
    status = state.status.name
    if state.has_ended:
        return _end_of(state, waits, now)
    first = waits[0].description if waits else "It goes on at once."
    if state.turn_back_requested is not None:
        why = failure_in_words(state.turn_back_requested.failure)
        status += f", and it shall turn back ({why}) if its pivot turns out not to have taken effect"
    elif state.cause is not None:
        status += f", because {_cause_of(state)}"
    elif has_passed(plan, state):
        status += " past its point of no return: it only goes forward"
    return f"{status}. {first}"


def _end_of(state: SagaState, waits: list[Wait], now: Instant) -> str:
    assert state.status is not None, "only a saga that exists is explained"
    ended = "" if state.ended_at is None else f" since {in_words(state.ended_at, now)}"
    if state.terminated is not None:
        words = f"FAILED for good: terminated {person_in_words(state.terminated, now)}. Nothing was undone by that."
    elif state.status is SagaStatus.COMPENSATED:
        words = f"COMPENSATED{ended}, because {_cause_of(state)}. What may have taken effect is undone."
    else:
        words = f"{state.status.name}{ended}."
    if not waits:
        return f"{words} Nothing will happen any more."
    still = "Its hook is not done yet. " if state.is_unfinished else ""
    return f"{words} {still}{waits[0].description}"


def _cause_of(state: SagaState) -> str:
    why = "" if state.failure is None else f": {failure_in_words(state.failure)}"
    match state.cause:
        case TurnBackCause.STEP_REJECTED:
            return f"step {state.failed_step!r} was rejected{why}"
        case TurnBackCause.STEP_UNKNOWN:
            return f"step {state.failed_step!r} ran out of attempts or time{why}"
        case TurnBackCause.EXPRESSION_FAILED:
            return f"an expression of step {state.failed_step!r} failed{why}"
        case TurnBackCause.CANCELLED:
            return f"it was cancelled{why}"
        case TurnBackCause.TIME_LIMIT:
            return "its time limit was reached"
        case TurnBackCause.PAYLOAD_LIMIT:
            return "its input and outputs were too large together"
        case None:
            return "it turned back"


# ── What happens next ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _next_of(plan: SagaPlan, state: SagaState, waits: list[Wait], now: Instant) -> _Next:
    """The next thing that will happen by itself: what is under way may end at any moment, else time or a participant brings something."""
    under_way = next((wait for wait in waits if wait.reason is WaitReason.ATTEMPT_UNDER_WAY), None)
    if under_way is not None:
        return _Next(under_way.expected, None)
    if state.paused is not None:
        return _NOTHING  # its clocks run on, and are judged when it is resumed
    timed = [_Next(wait.expected, wait.until) for wait in waits if wait.expected and wait.until is not None]
    is_bounded = state.status is SagaStatus.RUNNING and state.turn_back_requested is None and not has_passed(plan, state)
    if is_bounded and state.deadline is not None:
        unless = ", unless its pivot took effect" if pivot_may_have_effect(plan, state, now) else ""
        timed.append(_Next(f"The time limit of the saga is over: it turns back{unless}.", state.deadline))
    untimed = next((wait.expected for wait in waits if wait.expected and wait.until is None), None)
    if not timed:
        return _NOTHING if untimed is None else _Next(untimed, None)
    first = min(timed, key=lambda one: one.at or now)
    return first if untimed is None else _Next(f"{untimed} Otherwise, at the time given: {first.text}", first.at)
