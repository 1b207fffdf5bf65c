"""What every store of idempotency does with claims."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from participant_sdk.idempotency.verdict import InDoubt, InProgress, Mismatch, Replay, Run, StoredAnswer, WhenUnknown
from tests.contract.idempotency.claims import ANSWER, LEASE_S, LIFETIME_S, OTHER_ANSWER, SECOND_US, UNKEPT_ANSWER, ManualClock, claim
from tests.contract.idempotency.conftest import Process


async def test_first_claim_runs_and_the_next_ones_wait_for_its_lease(process: Process, clock: ManualClock) -> None:
    assert await process().begin(claim()) == Run()
    clock.advance(10)
    assert await process().begin(claim()) == InProgress(wait_us=(LEASE_S - 10) * SECOND_US)


@pytest.mark.parametrize("answer", [ANSWER, OTHER_ANSWER, UNKEPT_ANSWER])
async def test_stored_answer_is_replayed_in_every_process_byte_by_byte(process: Process, answer: StoredAnswer) -> None:
    store, first = process(), claim()
    assert await store.begin(first) == Run()
    assert await store.complete(first, answer)
    assert await store.begin(claim()) == Replay(answer=answer)
    assert await process().begin(claim()) == Replay(answer=answer)


async def test_other_request_with_the_key_is_refused_before_and_after_the_answer(process: Process) -> None:  # R22
    store, first = process(), claim()
    await store.begin(first)
    assert await store.begin(claim(value=b"other")) == Mismatch()
    await store.complete(first, ANSWER)
    assert await store.begin(claim(value=b"other")) == Mismatch()


async def test_other_key_runs_beside_it(process: Process) -> None:
    store = process()
    assert await store.begin(claim("a")) == Run()
    assert await store.begin(claim("A")) == Run()  # Case counts, in every database.


async def test_many_claims_at_the_same_time_run_once(process: Process) -> None:
    stores = [process() for _ in range(4)]
    verdicts = await asyncio.gather(*(store.begin(claim()) for store in stores for _ in range(5)))
    assert Counter(type(each) for each in verdicts) == {Run: 1, InProgress: 19}


async def test_many_claims_after_a_lease_was_over_run_once(process: Process, clock: ManualClock) -> None:
    stores = [process() for _ in range(4)]
    await stores[0].begin(claim())
    clock.advance(LEASE_S + 1)
    verdicts = await asyncio.gather(*(store.begin(claim()) for store in stores for _ in range(5)))
    assert Counter(type(each) for each in verdicts) == {Run: 1, InProgress: 19}


async def test_claim_that_is_repeated_has_the_key_already(process: Process) -> None:
    store, first = process(), claim()
    assert await store.begin(first) == Run()
    assert await store.begin(first) == Run()  # R26: the first time its commit may have been in doubt.
    assert isinstance(await store.begin(claim()), InProgress)


async def test_answer_that_is_stored_again_stays(process: Process) -> None:
    store, first = process(), claim()
    await store.begin(first)
    assert await store.complete(first, ANSWER)
    assert await store.complete(first, ANSWER)
    assert await store.begin(first) == Replay(answer=ANSWER)


async def test_renewed_lease_goes_on(process: Process, clock: ManualClock) -> None:
    store, first = process(), claim()
    await store.begin(first)
    clock.advance(LEASE_S - 1)
    assert await store.renew(first)
    clock.advance(LEASE_S - 1)
    assert await process().begin(claim()) == InProgress(wait_us=SECOND_US)


async def test_run_that_was_overtaken_overwrites_nothing(process: Process, clock: ManualClock) -> None:
    store, first, second = process(), claim(), claim()
    await store.begin(first)
    clock.advance(LEASE_S + 1)
    assert await process().begin(second) == Run()
    assert not await store.renew(first)
    assert not await store.complete(first, OTHER_ANSWER)
    assert not await store.abandon(first)
    assert not await store.leave_in_doubt(first)
    assert isinstance(await store.begin(claim()), InProgress)
    assert await store.complete(second, ANSWER)
    assert not await store.complete(first, OTHER_ANSWER)
    assert await store.begin(claim()) == Replay(answer=ANSWER)


async def test_run_that_outlived_its_lease_unseen_still_stores_its_answer(process: Process, clock: ManualClock) -> None:
    store, first = process(), claim()
    await store.begin(first)
    clock.advance(LEASE_S + 1)
    assert await store.complete(first, ANSWER)
    assert await store.begin(claim()) == Replay(answer=ANSWER)


async def test_abandoned_key_runs_at_once_with_any_request(process: Process) -> None:
    store, first = process(), claim()
    await store.begin(first)
    assert await store.abandon(first)
    assert not await store.abandon(first)
    assert not await store.complete(first, ANSWER)
    assert await store.begin(claim(value=b"other")) == Run()


async def test_answered_key_is_not_abandoned(process: Process) -> None:
    store, first = process(), claim()
    await store.begin(first)
    await store.complete(first, ANSWER)
    assert not await store.abandon(first)
    assert not await store.renew(first)
    assert not await store.leave_in_doubt(first)
    assert await store.begin(claim()) == Replay(answer=ANSWER)


@pytest.mark.parametrize(("when_unknown", "verdict"), [(WhenUnknown.RUN_AGAIN, Run()), (WhenUnknown.REFUSE, InDoubt())])
async def test_run_that_ended_unknown_is_repeated_as_the_policy_says(
    process: Process, clock: ManualClock, when_unknown: WhenUnknown, verdict: Run | InDoubt
) -> None:
    store, told, killed = process(), claim("told"), claim("killed")
    await store.begin(told)
    assert await store.leave_in_doubt(told)
    assert await store.begin(claim("told", when_unknown=when_unknown)) == verdict
    await store.begin(killed)
    clock.advance(LEASE_S)
    assert await store.begin(claim("killed", when_unknown=when_unknown)) == verdict


async def test_expired_key_runs_again_with_any_request(process: Process, clock: ManualClock) -> None:
    store, first, again = process(), claim(), claim(value=b"other")
    await store.begin(first)
    await store.complete(first, ANSWER)
    clock.advance(LIFETIME_S - 1)
    assert await store.begin(claim()) == Replay(answer=ANSWER)
    clock.advance(1)
    assert await store.begin(again) == Run()
    assert isinstance(await store.begin(claim(value=b"other")), InProgress), "nothing of the answer before is left"
    assert await store.complete(again, OTHER_ANSWER)
    assert not await store.complete(first, ANSWER)


async def test_key_is_remembered_from_its_answer_on(process: Process, clock: ManualClock) -> None:
    store, first = process(), claim()
    await store.begin(first)
    for _ in range(LIFETIME_S // 20 + 1):  # A run as long as that.
        clock.advance(20)
        assert await store.renew(first)
    await store.complete(first, ANSWER)
    clock.advance(LIFETIME_S - 1)
    assert await store.begin(claim()) == Replay(answer=ANSWER)


async def test_clean_up_forgets_what_is_expired_and_nothing_else(process: Process, clock: ManualClock) -> None:
    store = process()
    expired, crashed, running, fresh = (claim(name) for name in ("expired", "crashed", "running", "fresh"))
    for each in (expired, crashed, running):
        await store.begin(each)
    await store.complete(expired, ANSWER)
    clock.advance(LIFETIME_S - 1)
    assert await store.renew(running)
    await store.begin(fresh)
    await store.complete(fresh, ANSWER)
    clock.advance(1)
    assert await store.delete_expired(100) == 2
    assert await store.delete_expired(100) == 0
    assert await store.begin(claim("fresh")) == Replay(answer=ANSWER)
    assert isinstance(await store.begin(claim("running")), InProgress)
    assert await store.begin(claim("expired")) == Run()
    assert await store.begin(claim("crashed")) == Run()


async def test_clean_up_stops_at_its_limit(process: Process, clock: ManualClock) -> None:
    store = process()
    for number in range(5):
        await store.begin(claim(str(number)))
    clock.advance(LIFETIME_S + 1)
    assert [await store.delete_expired(2) for _ in range(4)] == [2, 2, 1, 0]


async def test_long_names_and_large_answers_are_stored(process: Process) -> None:
    store = process()
    first = replace(claim(), operation="POST /" + "x" * 10_000, client_key="k" * 255)
    large = StoredAnswer(status=200, headers=((b"x-long", b"v" * 10_000),), body=bytes(range(256)) * 4_096)
    await store.begin(first)
    assert await store.complete(first, large)
    assert await store.begin(claim()) == Replay(answer=large)
