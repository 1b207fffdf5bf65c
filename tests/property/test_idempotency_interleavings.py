"""A key under any interleaving of duplicates, crashes, cancellations and lost replies: what idempotency promises of it holds.

Each process has a guard of its own on one store that outlives them all. Time is virtual, so that leases end, and are renewed, at once.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant_sdk.idempotency.errors import IdempotencyStoreUnavailableError
from participant_sdk.idempotency.guard import IdempotencyGuard, KeyedRequest
from participant_sdk.idempotency.memory_store import MemoryIdempotencyStore
from participant_sdk.idempotency.outcomes import Answered, Outcome, OutcomeUnknown, Ran
from participant_sdk.idempotency.policy import IdempotencyPolicy, Meaning
from participant_sdk.idempotency.verdict import Claim, StoredAnswer, Verdict, WhenUnknown
from participant_sdk.testing.virtual_time import run_in_virtual_time

PROCESSES = 3
REQUEST = KeyedRequest(tenant="", operation="POST /payments", key="key", fingerprint=b"request")
STORE_DELAY_S_MAX = 2.0
REPLY_LOST = 0.15
"""Chance that something is done by the store, and its reply never comes."""
WAIT_S = 20.0
LONG_S = 1_000.0
"""More than any wait, lease and run of these stories together, and less than the lifetime of a key."""
ENDINGS = ("succeed", "succeed", "succeed", "raise", "no effect", "unknown")

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Call:
    """A request, and what becomes of its caller."""

    at_s: int
    process: int
    run_s: int
    """How long its handler runs, if it runs: up to three leases."""
    ending: str
    cancelled_after_s: int | None


CALLS = st.builds(
    Call,
    st.integers(0, 120),
    st.integers(0, PROCESSES - 1),
    st.integers(0, 90),
    st.sampled_from(ENDINGS),
    st.none() | st.integers(0, 60),
)
CRASHES = st.lists(st.none() | st.integers(0, 150), min_size=PROCESSES, max_size=PROCESSES)


class CrashedError(Exception):
    """There is no such process any more."""


@dataclass
class World:
    """One key, and what was done under it."""

    when_unknown: WhenUnknown
    chance: random.Random
    effects: int = 0
    unstored: set[int] = field(default_factory=set)
    """The processes that live and have succeeded, and whose answer is not stored yet."""
    stored: set[bytes] = field(default_factory=set)
    """The answers of those that succeeded, once they are stored."""
    running: set[int] = field(default_factory=set)
    """The processes in which a handler runs."""
    answers: set[bytes] = field(default_factory=set)
    """The final answers that were given."""

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.store = MemoryIdempotencyStore(clock=lambda: int(loop.time() * 1_000_000))


class Link:
    """The store as one process reaches it: slowly, sometimes in vain, and not at all once the process is gone."""

    def __init__(self, world: World, process: int) -> None:
        self._world = world
        self._process = process
        self.is_cut = False

    async def begin(self, claim: Claim) -> Verdict:
        return await self._reach(lambda: self._world.store.begin(claim))

    async def renew(self, claim: Claim) -> bool:
        return await self._reach(lambda: self._world.store.renew(claim))

    async def complete(self, claim: Claim, answer: StoredAnswer) -> bool:
        return await self._reach(lambda: self._complete(claim, answer))

    async def _complete(self, claim: Claim, answer: StoredAnswer) -> bool:
        is_stored = await self._world.store.complete(claim, answer)
        if is_stored:
            assert answer.body is not None
            self._world.stored.add(answer.body)
            self._world.unstored.discard(self._process)
        return is_stored

    async def abandon(self, claim: Claim) -> bool:
        return await self._reach(lambda: self._world.store.abandon(claim))

    async def leave_in_doubt(self, claim: Claim) -> bool:
        return await self._reach(lambda: self._world.store.leave_in_doubt(claim))

    async def delete_expired(self, limit: int) -> int:
        return await self._reach(lambda: self._world.store.delete_expired(limit))

    async def _reach(self, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        await asyncio.sleep(self._world.chance.uniform(0, STORE_DELAY_S_MAX))
        if self.is_cut:
            raise IdempotencyStoreUnavailableError("crashed")
        result = await work()
        await asyncio.sleep(self._world.chance.uniform(0, STORE_DELAY_S_MAX))
        if self.is_cut or self._world.chance.random() < REPLY_LOST:
            raise IdempotencyStoreUnavailableError("the reply is lost")
        return result


class Process:
    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.link = Link(world, number)
        self.guard = IdempotencyGuard(self.link, IdempotencyPolicy(when_unknown=world.when_unknown), "test")

    def crash(self) -> None:
        self.link.is_cut = True
        self.world.running.discard(self.number)
        self.world.unstored.discard(self.number)

    async def call(self, call: Call) -> Outcome | None:
        """None if its caller gave up."""
        answering = self.guard.answer(REQUEST, lambda: self._handler(call), wait_s=WAIT_S)
        try:
            async with asyncio.timeout(call.cancelled_after_s):
                outcome = await answering
        except TimeoutError:
            return None
        is_told = not self.link.is_cut and isinstance(outcome, Answered)
        if is_told and isinstance(outcome, Answered) and outcome.answer.status == 200:
            assert outcome.answer.body is not None
            self.world.answers.add(outcome.answer.body)
        return outcome

    async def _handler(self, call: Call) -> Ran:
        world = self.world
        assert not world.running, "two runs of one key at the same time"
        assert not world.unstored, "it succeeded in a process that lives, and ran again"
        assert not world.stored, "its answer is stored, and it ran again"
        world.running.add(self.number)
        try:
            await self._go_on(call.run_s / 2)
            if call.ending != "no effect":
                world.effects += 1
            await self._go_on(call.run_s / 2)
        finally:
            if not self.link.is_cut:
                world.running.discard(self.number)
        match call.ending:
            case "succeed":
                world.unstored.add(self.number)
                return Ran(answer=StoredAnswer(status=200, body=str(world.effects).encode()), meaning=Meaning.FINAL)
            case "no effect":
                return Ran(answer=StoredAnswer(status=429, body=b""), meaning=Meaning.NO_EFFECT)
            case "unknown":
                return Ran(answer=StoredAnswer(status=503, body=b""), meaning=Meaning.UNKNOWN)
            case _:
                raise RuntimeError("a bug after the effect")

    async def _go_on(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self.link.is_cut:
            raise CrashedError


async def tell_story(world: World, calls: list[Call], crashes: list[int | None]) -> None:
    processes = [Process(world, number) for number in range(PROCESSES)]

    async def call(each: Call) -> None:
        await asyncio.sleep(each.at_s)
        if not processes[each.process].link.is_cut:
            await processes[each.process].call(each)

    async def crash(number: int, at_s: int | None) -> None:
        if at_s is not None:
            await asyncio.sleep(at_s)
            processes[number].crash()

    async with asyncio.TaskGroup() as tasks:
        for each in calls:
            tasks.create_task(call(each))
        for number, at_s in enumerate(crashes):
            tasks.create_task(crash(number, at_s))
    await asyncio.sleep(LONG_S)
    assert len(world.answers) <= 1, "one key, one answer"
    assert len(world.stored) <= 1, "two runs have stored their answers"
    assert not world.unstored, "it succeeded in a process that lives, and its answer is not stored"
    if world.when_unknown is WhenUnknown.REFUSE:
        assert world.effects <= 1, "it may have taken effect, and ran again"
    await come_to_rest(world)


async def come_to_rest(world: World) -> None:
    """Whatever happened, the next caller in a new process is told what counts."""
    known = set(world.answers)
    last = Process(world, PROCESSES)
    again = Call(at_s=0, process=PROCESSES, run_s=1, ending="succeed", cancelled_after_s=None)
    for _ in range(20):  # Until no reply is lost.
        outcome = await last.call(again)
        if isinstance(outcome, Answered | OutcomeUnknown):
            break
        await asyncio.sleep(LONG_S)
    if known or world.when_unknown is WhenUnknown.RUN_AGAIN:
        assert isinstance(outcome, Answered)
        assert len(world.answers) == 1
        assert known <= world.answers == world.stored


@pytest.mark.parametrize("when_unknown", WhenUnknown)
@given(calls=st.lists(CALLS, min_size=2, max_size=12), crashes=CRASHES, seed=st.integers(0, 2**32))
def test_any_interleaving_gives_one_answer_and_no_two_runs_at_a_time(
    when_unknown: WhenUnknown, calls: list[Call], crashes: list[int | None], seed: int
) -> None:
    async def main() -> None:
        await tell_story(World(when_unknown, random.Random(seed)), calls, crashes)

    run_in_virtual_time(main(), patience_s=0)
