"""Why a saga does not move: the core's answer, with what the dispatcher knows of its calls, told in the time of the saga."""

from dataclasses import replace
from typing import Final, assert_never

from coordinator.api.views import SagaViews
from coordinator.codec.explanations import explanation_message
from coordinator.codec.sagas import quarantined_message, saga_without_payloads
from coordinator.core.explain import explain
from coordinator.core.explanation import Explanation, HeldCall, Wait, WaitReason, duration_in_words, failure_in_words, in_words
from coordinator.core.plan import StepPlan
from coordinator.core.values import AttemptKey, Code, Failure, Instant, SagaId
from coordinator.engine.ports import CallPlace, Circuit, Clock, ParticipantStanding, StoredSaga, Whereabouts
from saga.v1 import operator_pb2

NO_REASON: Final = Failure(Code.INTERNAL, "its journal cannot be read")


class Explanations:
    """Explains sagas: those that are held from memory, the others from the journal."""

    def __init__(self, clock: Clock, views: SagaViews, whereabouts: Whereabouts) -> None:
        self._clock = clock
        self._views = views
        self._whereabouts = whereabouts

    async def explain(self, saga_id: SagaId) -> operator_pb2.ExplainSagaResponse:
        """Why a saga stands where it stands. Refuses with NOT_FOUND if there is none."""
        found = await self._views.current(saga_id)
        if isinstance(found, StoredSaga):
            return explanation_message(quarantined_message(found, found.quarantined or NO_REASON), explain_quarantined(found))
        plan, state, now = found
        ahead_us = now - self._clock.now()

        def held_by(step: StepPlan, attempt: AttemptKey) -> HeldCall | None:
            place = self._whereabouts.place_of(step.participant, saga_id, attempt)
            standing = self._whereabouts.standing_of(step.participant)
            if standing.open_until is not None:
                standing = replace(standing, open_until=Instant(standing.open_until + ahead_us))
            return held_call(step, place, standing, now)

        return explanation_message(saga_without_payloads(plan, state), explain(plan, state, now, held_by))


def held_call(step: StepPlan, place: CallPlace, standing: ParticipantStanding, now: Instant) -> HeldCall | None:
    """Why a call that is due has not ended; None: the dispatcher does not have it."""
    participant, failure = step.participant, standing.last_failure
    match place:
        case CallPlace.NOT_HERE:
            return None
        case CallPlace.UNDER_WAY:
            timeout = duration_in_words(step.attempt_timeout_us)
            return HeldCall(
                WaitReason.ATTEMPT_UNDER_WAY, f"is with participant {participant!r}, which has at most {timeout} in all to answer"
            )
        case CallPlace.NO_TARGET:
            why = standing.unreadable or "it has not registered, and is not configured"
            words = f"cannot be sent: no place of participant {participant!r} that serves {step.action!r} is known; {why}"
            return HeldCall(WaitReason.NO_SUCH_PARTICIPANT, words, failure=failure)
        case CallPlace.CIRCUIT_OPEN:
            return HeldCall(WaitReason.CIRCUIT_OPEN, _circuit_words(standing, now), standing.open_until, failure)
        case CallPlace.NO_PLACE:
            words = (
                f"waits for its turn: {standing.under_way} of at most {standing.concurrency} calls to participant {participant!r} "
                f"are under way, and {standing.waiting} wait"
            )
            return HeldCall(WaitReason.CONCURRENCY_LIMIT, words)
        case CallPlace.RATE:
            words = (
                f"waits for its turn: at most {standing.rate_per_second:g} calls per second are sent to participant {participant!r}, "
                f"and {standing.waiting} wait"
            )
            return HeldCall(WaitReason.RATE_LIMIT, words)
        case _:
            assert_never(place)


def explain_quarantined(saga: StoredSaga) -> Explanation:
    """Why a saga that the journal has set aside does not move: nothing of it is read or written, so nobody can do anything to it here."""
    failure = saga.quarantined or NO_REASON
    words = (
        f"The coordinator has set this saga aside, so that the others can go on: {failure_in_words(failure)}. "
        "Its log says more. Its participants have to be looked at by hand; its row shows how far it had come."
    )
    return Explanation(
        summary=f"{saga.status.name}, and set aside. {words}",
        waits=(Wait(reason=WaitReason.INCIDENT, description=words, failure=failure, incident_id=0),),
        next="",
        next_at=None,
        choices=(),
    )


def _circuit_words(standing: ParticipantStanding, now: Instant) -> str:
    why = "" if standing.last_failure is None else f" ({failure_in_words(standing.last_failure)})"
    if standing.circuit is Circuit.HALF_OPEN or standing.open_until is None:
        until = "one call is with it now, to see whether it is well again"
    else:
        until = f"one call is let through at {in_words(standing.open_until, now)}"
    return f"is held back: participant {standing.name!r} failed too often{why}; {until}"
