"""Which appends of a batch are written (R4), apart from any database."""

from collections.abc import Sequence

from coordinator.core.values import Failure, SagaId
from coordinator.engine.ports import Append, Appended, Committed, Refused, StartLost
from coordinator.journal.records import record_of
from coordinator.journal.settling import KeyHolder, KeyName, doom, keys_of, settle, verdicts_of
from tests.builders import DEFINITION, at
from tests.journals import EXPIRES_AT, first, start_key, then

A, B, C = (SagaId(f"01900000-0000-7000-8000-00000000000{place}") for place in range(3))
HELD = {KeyName(DEFINITION.name, "held"): KeyHolder(C, b"this".ljust(32, b"."), EXPIRES_AT)}
NO = Failure(13, "no")


def outcomes(appends: Sequence[Append], taken: dict[SagaId, bytes] | None = None) -> tuple[Appended, ...]:
    settled = settle([record_of(append) for append in appends], HELD, taken or {})
    assert [record.append for record in settled.kept] == [r.append for r in settled.results if isinstance(r, Committed)]
    return settled.results


def test_keys_are_asked_for_once_each() -> None:
    batch = [first(A, key=start_key("x")), first(B, key=start_key("x")), first(C), then(A, 2)]
    assert keys_of([record_of(append) for append in batch]) == [KeyName(DEFINITION.name, "x")]


def test_batch_without_rivals_is_kept_whole() -> None:
    batch = [first(A, key=start_key("x")), then(A, 2), first(B)]
    assert outcomes(batch) == tuple(Committed(append=append) for append in batch)


def test_key_of_a_dropped_start_stays_free() -> None:
    dropped = first(A, key=start_key("x"))
    taker = first(B, key=start_key("x"))
    taken = {A: b"another".ljust(32, b".")}
    assert outcomes([dropped, taker], taken) == (
        StartLost(append=dropped, winner=A, same=False, by_key=False),
        Committed(append=taker),
    )


def test_key_that_expires_at_this_instant_is_free() -> None:
    (result,) = outcomes([first(A, key=start_key("held"), created_at=EXPIRES_AT)])
    assert isinstance(result, Committed)


def test_key_that_expires_within_its_own_batch_is_taken_over() -> None:
    batch = [
        first(A, key=start_key("x", expires_at=at(2)), created_at=at(1)),
        first(B, key=start_key("x", expires_at=at(9)), created_at=at(2)),
    ]
    assert [type(result) for result in outcomes(batch)] == [Committed, Committed]


def test_append_behind_a_lost_start_of_a_saga_that_lives_is_kept() -> None:
    batch = [first(A), first(A), then(A, 2)]
    assert [type(result) for result in outcomes(batch)] == [Committed, StartLost, Committed]


def test_append_behind_a_lost_start_falls_with_it() -> None:
    batch = [first(A, key=start_key("held")), then(A, 2), then(B, 2), first(A), then(A, 2)]
    assert [type(result) for result in outcomes(batch)] == [StartLost, StartLost, Committed, Committed, Committed]


def test_queued_appends_fall_until_the_next_start() -> None:
    again = first(A)
    queued = [then(A, 2), then(B, 2), again, then(A, 2)]
    going_on, fallen = doom(queued, {A: Refused(append=then(A, 9), failure=NO)})
    assert going_on == queued[1:]
    assert fallen == [Refused(append=queued[0], failure=NO)]


def test_only_sagas_that_came_to_nothing_have_a_verdict() -> None:
    refused = Refused(append=then(B, 2), failure=NO)
    lost = StartLost(append=first(C), winner=A, same=True, by_key=True)
    rival = StartLost(append=first(A), winner=A, same=True, by_key=False)
    results: list[Appended] = [Committed(append=first(A)), rival, Committed(append=first(B)), refused, lost]
    assert verdicts_of(results) == {B: refused, C: lost}
