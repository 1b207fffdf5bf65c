"""Exploring a saga finds what a participant does wrong, and says it in the smallest story."""

from datetime import timedelta
from itertools import pairwise

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import NoBarrier, Participant, RetryPolicy, Saga, StepContext, StepDefaults, action
from participant_sdk.barrier.barrier import Barrier
from participant_sdk.testing import KitError, MemoryBarrier, PromiseBrokenError, SagaRun, at_commit, explore, step_context, stubs_of
from participant_sdk.testing.exploring.cases import Case, parse_case
from participant_sdk.testing.faults import CallFault, CommitFault, Mishap, Moment, Refusal

INPUT = StringValue(value="widget")


class Shelf(Participant, name="shelf"):
    """Counts on its fingers, outside of every database transaction."""

    def __init__(self, *, barrier: Barrier) -> None:
        super().__init__(barrier=barrier)
        self.taken = 0

    @action
    async def take(self, request: StringValue, step: StepContext) -> StringValue:
        self.taken += 1
        return request

    @take.compensation
    async def put_back(self, request: StringValue, taken: StringValue, step: StepContext) -> None:
        self.taken -= 1


class CarefulShelf(Shelf, name="shelf"):
    """Has its effects where its barrier commits."""

    @action
    async def take(self, request: StringValue, step: StepContext) -> StringValue:
        at_commit(step, lambda: self.count(1))
        return request

    @take.compensation
    async def put_back(self, request: StringValue, taken: StringValue, step: StepContext) -> None:
        at_commit(step, lambda: self.count(-1))

    def count(self, pieces: int) -> None:
        self.taken += pieces


class IdempotentShelf(Participant, name="shelf"):
    """Remembers by key what it did, and forgets what it undid."""

    def __init__(self) -> None:
        super().__init__(barrier=NoBarrier())
        self.keys: set[str] = set()

    @property
    def taken(self) -> int:
        return len(self.keys)

    @action
    async def take(self, request: StringValue, step: StepContext) -> StringValue:
        self.keys.add(step.execute_key)
        return request

    @take.compensation
    async def put_back(self, request: StringValue, taken: StringValue, step: StepContext) -> None:
        self.keys.discard(step.execute_key)


take = Saga("take", input=StringValue)
take.step(Shelf.take)

buy = Saga("buy", input=StringValue)
buy.step(Shelf.take)
buy.step("till.pay", request=StringValue, response=StringValue)


def books_add_up(run: SagaRun) -> None:
    shelf = next(each for each in run.participants if isinstance(each, (Shelf, IdempotentShelf)))
    expected = 1 if run.status == "COMPLETED" else 0
    assert shelf.taken == expected, f"the saga is {run.status}, and {shelf.taken} are taken"


def test_careful_participant_keeps_every_promise() -> None:  # P1, P2, P4, R5, R12, R18, R29
    told: list[tuple[int, int]] = []
    found = explore(
        take,
        INPUT,
        lambda: CarefulShelf(barrier=MemoryBarrier()),
        invariant=books_add_up,
        progress=lambda done, total: told.append((done, total)),
    )
    assert (found.courses, found.left_out, found.broken) == (2, 0, ())
    assert found.worlds == len(told) > 20
    assert told[-1] == (found.worlds, found.worlds)
    assert all(after[0] == before[0] + 1 for before, after in pairwise(told))
    assert str(found) == f"take v1: {found.worlds} worlds, 2 of them without a fault: every promise was kept"


def test_effect_outside_of_the_database_transaction_is_found() -> None:  # R19
    with pytest.raises(PromiseBrokenError) as broken:
        explore(take, INPUT, lambda: Shelf(barrier=MemoryBarrier()), invariant=books_add_up)
    smallest = broken.value.exploration.broken[0]
    assert str(smallest.case) == "take/execute/1: participant dies before its commit"
    assert [text.splitlines()[0] for text in smallest.broken] == ["your invariant: the saga is COMPLETED, and 2 are taken"]
    for words in (
        "what goes wrong: take/execute/1: participant dies before its commit",
        "take (try 1): failed: the participant's process died before it committed",
        "take (try 2): succeeded",
        'That world again: explore(…, only="take/execute/1: participant dies before its commit")',
    ):
        assert words in str(broken.value)


def test_world_that_was_named_is_lived_through_alone() -> None:
    def shelf() -> Shelf:
        return Shelf(barrier=MemoryBarrier())

    named = "take/execute/1: participant dies before its commit"
    with pytest.raises(PromiseBrokenError) as broken:
        explore(take, INPUT, shelf, invariant=books_add_up, only=named)
    assert broken.value.exploration.worlds == 1
    with pytest.raises(PromiseBrokenError) as again:
        explore(take, INPUT, shelf, invariant=books_add_up, only=named)
    assert again.value.exploration.broken[0].story == broken.value.exploration.broken[0].story
    with pytest.raises(KitError, match="no opportunity for commit 99"):
        explore(take, INPUT, shelf, only="commit 99: the coordinator dies after it")
    with pytest.raises(KitError, match="there are 1 inputs"):
        explore(take, INPUT, shelf, only="input 2; take: refused")


def test_participant_without_a_barrier_must_be_idempotent_and_this_one_is_not() -> None:  # R23
    with pytest.raises(PromiseBrokenError) as broken:
        explore(take, INPUT, lambda: Shelf(barrier=NoBarrier()), invariant=books_add_up)
    cases = [str(life.case) for life in broken.value.exploration.broken]
    for found in ("reply lost", "request arrives twice", "the coordinator dies while the reply travels"):
        assert f"take/execute/1: {found}" in cases


def test_late_request_that_nothing_refuses_is_found() -> None:  # R18
    with pytest.raises(PromiseBrokenError) as broken:
        explore(
            buy,
            INPUT,
            IdempotentShelf,
            *stubs_of(buy),
            invariant=books_add_up,
            only="pay: refused; take/execute/1: request lost, and arrives much later",
        )
    assert "the saga is COMPENSATED, and 1 are taken" in str(broken.value)


def test_saga_that_would_need_a_person_is_found_unless_that_is_meant() -> None:  # R15
    once = RetryPolicy(max_attempts=1)
    hasty = Saga("hasty", input=StringValue, defaults=StepDefaults(compensate_retry=once, attempt_timeout=timedelta(seconds=1)))
    hasty.step("shelf.take", request=StringValue, response=StringValue)
    hasty.step("till.pay", request=StringValue, response=StringValue)
    world = "pay: refused; take/compensate/1: request lost"
    with pytest.raises(PromiseBrokenError, match="it ends by itself: a person is needed for take"):
        explore(hasty, INPUT, *stubs_of(hasty), only=world)
    assert explore(hasty, INPUT, *stubs_of(hasty), only=world, may_need_person=True).worlds == 1


def test_invariant_may_wait_and_may_stumble() -> None:
    async def stumbles(run: SagaRun) -> None:
        raise KeyError(run.status)

    with pytest.raises(PromiseBrokenError, match="your invariant: KeyError: 'COMPLETED'"):
        explore(take, INPUT, *stubs_of(take), invariant=stumbles, only="nothing goes wrong")


def test_what_the_bound_leaves_out_is_counted() -> None:
    found = explore(take, [INPUT, StringValue(value="other")], *stubs_of(take), worlds_max=6)
    assert (found.worlds, found.courses) == (6, 4)
    assert f"{found.left_out} more were left out: raise worlds_max" in str(found)


def test_participant_that_would_be_shared_by_worlds_is_refused() -> None:
    with pytest.raises(KitError, match="a function that makes Shelf"):
        explore(take, INPUT, Shelf(barrier=NoBarrier()))
    with pytest.raises(KitError, match="at least one input"):
        explore(take, [], *stubs_of(take))


def test_effect_at_commit_needs_a_barrier_in_memory() -> None:
    with pytest.raises(TypeError, match="found NoSession; with a database use"):
        at_commit(step_context(), lambda: None)


@pytest.mark.full
def test_two_faults_together_keep_every_promise() -> None:  # P1, P2, P4
    found = explore(
        buy, INPUT, lambda: CarefulShelf(barrier=MemoryBarrier()), *stubs_of(buy), invariant=books_add_up, faults=2, worlds_max=6_000
    )
    assert (found.left_out, found.broken) == (0, ())


CASES = [
    Case(0),
    Case(1, (Refusal("pay"),)),
    Case(0, (CallFault("take", True, 2, Mishap.REPLY_LOST_UNNOTICED), CommitFault(3, Moment.CANCEL))),
    *(Case(0, (CallFault("take", False, 1, mishap),)) for mishap in Mishap),
    *(Case(0, (CommitFault(1, moment),)) for moment in Moment),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case_is_read_back_as_it_was_written(case: Case) -> None:
    assert parse_case(str(case)) == case


@pytest.mark.parametrize("text", ["take goes wrong", "take/execute/1: nothing known", "commit 1: it rains"])
def test_misspelt_case_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_case(text)
