"""Explanations for callers: with what the dispatcher knows, from memory or from the journal, and also for a saga that is set aside."""

from dataclasses import replace

import pytest

from coordinator.api.errors import RefusedError
from coordinator.api.explaining import held_call
from coordinator.codec.values import instant_of
from coordinator.core.explanation import WaitReason
from coordinator.core.inputs import Pause, Unknown
from coordinator.core.plan import StepPlan
from coordinator.core.values import Code, Failure, StepId
from coordinator.engine.ports import CallPlace, Circuit
from coordinator.journal.memory_journal import MemoryDatabase
from participant_sdk.rpc_errors import error_reason
from saga.v1 import operator_pb2
from tests.builders import SAGA, at, saga_input
from tests.fakes import one_turn
from tests.unit.api.stand import FakeWhereabouts, Stand, accepted, opened

DOWN = Failure(Code.UNAVAILABLE, "connection refused")
SHIP = StepPlan(id=StepId("ship"), action="vans.ship", input=saga_input)


def reasons(answer: operator_pb2.ExplainSagaResponse) -> list[str]:
    return [operator_pb2.WaitReason.Name(wait.reason).removeprefix("WAIT_REASON_") for wait in answer.waits]


@pytest.mark.parametrize(
    ("place", "reason", "said"),
    [
        (CallPlace.UNDER_WAY, WaitReason.ATTEMPT_UNDER_WAY, "is with participant 'vans', which has at most 10 s in all to answer"),
        (
            CallPlace.NO_TARGET,
            WaitReason.NO_SUCH_PARTICIPANT,
            "cannot be sent: no place of participant 'vans' that serves 'vans.ship' is known; it has not registered, and is not configured",
        ),
        (
            CallPlace.NO_PLACE,
            WaitReason.CONCURRENCY_LIMIT,
            "waits for its turn: 8 of at most 8 calls to participant 'vans' are under way, and 3 wait",
        ),
        (
            CallPlace.RATE,
            WaitReason.RATE_LIMIT,
            "waits for its turn: at most 2.5 calls per second are sent to participant 'vans', and 3 wait",
        ),
    ],
)
def test_place_of_a_call_is_told_in_words(place: CallPlace, reason: WaitReason, said: str) -> None:
    held = held_call(SHIP, place, FakeWhereabouts().standing_of("vans"), at(0))
    assert held is not None
    assert (held.reason, held.description, held.until) == (reason, said, None)


def test_service_of_which_the_types_are_not_known_is_not_told_to_register() -> None:
    standing = replace(FakeWhereabouts().standing_of("vans"), unreadable="what a:1 takes and returns is not known: it serves no reflection")
    held = held_call(SHIP, CallPlace.NO_TARGET, standing, at(0))
    assert held is not None
    assert held.description.endswith("is known; what a:1 takes and returns is not known: it serves no reflection")


def test_call_that_was_not_handed_over_is_nowhere() -> None:
    assert held_call(SHIP, CallPlace.NOT_HERE, FakeWhereabouts().standing_of("vans"), at(0)) is None


def test_open_circuit_tells_the_error_and_when_a_call_is_let_through() -> None:
    whereabouts = FakeWhereabouts()
    whereabouts.circuit, whereabouts.open_until, whereabouts.last_failure = Circuit.OPEN, at(1_030), DOWN
    held = held_call(SHIP, CallPlace.CIRCUIT_OPEN, whereabouts.standing_of("vans"), at(1_000))
    assert held is not None
    assert (held.until, held.failure) == (at(1_030), DOWN)
    assert held.description == (
        "is held back: participant 'vans' failed too often (connection refused); "
        "one call is let through at 1970-01-01 00:17:10 UTC (in 30 s)"
    )


def test_half_open_circuit_says_that_one_call_is_looking() -> None:
    whereabouts = FakeWhereabouts()
    whereabouts.circuit = Circuit.HALF_OPEN
    held = held_call(SHIP, CallPlace.CIRCUIT_OPEN, whereabouts.standing_of("vans"), at(1_000))
    assert held is not None
    assert held.until is None
    assert "one call is with it now" in held.description


async def test_live_saga_is_explained_with_its_steps_and_without_payloads(stand: Stand) -> None:
    await stand.start()
    answer = await stand.explanations.explain(SAGA)
    assert reasons(answer) == ["ATTEMPT_UNDER_WAY", "PREDECESSORS", "PREDECESSORS"]
    assert answer.waits[0].participant == "reserve"
    assert [step.id for step in answer.saga.steps] == ["reserve", "charge", "ship"]
    assert not answer.saga.HasField("input")
    assert list(answer.choices) == ["CancelSaga", "PauseSaga", "TerminateSaga"]
    assert not answer.HasField("next_at")


async def test_backoff_is_explained_with_error_and_instant(stand: Stand) -> None:
    await stand.start()
    (call,) = stand.dispatcher.under_way
    await stand.dispatcher.end_all([(call, Unknown(failure=DOWN))])
    await one_turn()
    answer = await stand.explanations.explain(SAGA)
    wait = answer.waits[0]
    assert reasons(answer)[0] == "BACKOFF"
    assert (wait.step_id, wait.error.message) == ("reserve", "connection refused")
    assert answer.next_at == wait.until
    assert instant_of(wait.until) > stand.clock.now()


async def test_pause_is_explained_by_who_and_why(stand: Stand) -> None:
    await stand.start()
    await stand.give(Pause(actor="ann", reason="audit"))
    wait = (await stand.explanations.explain(SAGA)).waits[0]
    assert (wait.reason, wait.person.actor, wait.person.reason) == (operator_pb2.WAIT_REASON_PAUSED, "ann", "audit")
    assert instant_of(wait.person.occurred_at) == stand.clock.now()


async def test_acceptance_is_explained_by_its_end(stand: Stand) -> None:
    await stand.start()
    await stand.end("reserve", accepted(60))
    answer = await stand.explanations.explain(SAGA)
    assert (reasons(answer)[0], instant_of(answer.waits[0].until)) == ("COMPLETION", at(1_060))


async def test_failed_saga_of_an_earlier_process_is_explained_from_the_journal() -> None:
    database = MemoryDatabase()
    async with opened(database) as before:
        await before.fail()
    async with opened(database) as after:
        answer = await after.explanations.explain(SAGA)
    assert (reasons(answer), answer.waits[0].incident_id, answer.waits[0].error.message) == (["INCIDENT"], 1, "no van")
    assert answer.choices[0] == "RetryStep ship (as it is or with an input)"
    assert answer.next == ""
    assert len(after.engine.held) == 0  # looking takes nothing up


async def test_saga_that_is_set_aside_is_explained_too(stand: Stand) -> None:
    await stand.fail()
    await stand.journal.quarantine(SAGA, Failure(Code.INTERNAL, "no such page"))
    answer = await stand.explanations.explain(SAGA)
    assert reasons(answer) == ["INCIDENT"]
    assert answer.summary.startswith(
        "FAILED, and set aside. The coordinator has set this saga aside, so that the others can go on: no such page."
    )
    assert (answer.next, list(answer.choices), answer.saga.incidents[0].id) == ("", [], 0)


async def test_saga_that_is_not_there_is_not_found(stand: Stand) -> None:
    with pytest.raises(RefusedError) as caught:
        await stand.explanations.explain(SAGA)
    assert error_reason(caught.value.status) == "SAGA_NOT_FOUND"
