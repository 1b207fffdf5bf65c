"""The barrier under any interleaving of calls, duplicates, crashes and cancellations: what it promises of a key holds (R5, R18-R20, R24).

Each process has a barrier of its own on one database that outlives them all. Every access to the database and every piece of a
handler is a turn, given by the schedule that Hypothesis invents. A crash may come at any turn: what was not committed is gone.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from participant_sdk import CompletionPostponedError, CompletionRefusedError
from participant_sdk.barrier.completions import StoredResult
from participant_sdk.barrier.guarded import GuardedBarrier
from participant_sdk.barrier.outcomes import CompensateOutcome, ExecuteOutcome, HandlerSucceeded, HandlerUndid
from participant_sdk.barrier.verdict import Knowledge
from participant_sdk.effects import DATABASE, EXTERNAL, Effect
from participant_sdk.rpc_errors import ErrorReason, error_reason
from participant_sdk.step_context import SessionSource
from participant_sdk.testing import MemoryDatabase
from participant_sdk.testing.memory_barrier import MemoryStore, MemoryUnit
from saga.v1 import participant_pb2
from tests.contract.barrier.calls import (
    ManualClock,
    accepted,
    compensate_call,
    completion_call,
    execute_call,
    failed,
    packed,
    postponed,
    refusal,
    rejected,
    reply,
)

SETTLE_TURNS = 12
"""Rounds of the event loop after which every coroutine stands at its next turn."""
TURNS_TO_REST = 20
"""More than two calls need to their end."""
DRAIN_TURNS_MAX = 2_000
EXAMPLES_FACTOR = 3
"""How many more examples than the profile says: one costs little, and the dangerous orders are rare."""
TIME_LEFT_S = 10.0
COMPLETION_WAIT_S = 0.01
"""By the clock of the loop: waiting in vain for an acceptance must not make the test slow."""
PROCESSES = 2
ENDINGS = ("succeed", "fail", "reject", "postpone", "accept")
BEGUN = "begin"
"""What an accepting handler does; "complete" or "refuse" is what a completion does."""


STORIES: tuple[list[str], ...] = (
    [],
    ["execute"],
    ["execute", "undo"],
    [BEGUN],
    [BEGUN, "undo"],
    [BEGUN, "complete"],
    [BEGUN, "complete", "undo"],
    [BEGUN, "refuse"],
)
"""All that can come of a key whose effect is in the database."""


class Schedule:
    """Where the coroutines of one process wait for their turns."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    async def turn(self) -> None:
        mine = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)

    def give(self) -> None:
        """Lets the one go on that has waited longest."""
        if self._waiting:
            mine = self._waiting.pop(0)
            if not mine.done():
                mine.set_result(None)


class SteppedStore(MemoryStore):
    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.schedule = Schedule()

    async def reach(self) -> None:
        self.refuse_if_crashed()
        await self.schedule.turn()
        self.refuse_if_crashed()


@dataclass
class Process:
    store: SteppedStore
    barrier: GuardedBarrier
    calls: list[tuple[int, "asyncio.Task[None]"]] = field(default_factory=list)
    """Deadline and call."""


class World:
    """One key, whatever happens to it."""

    def __init__(self, effect: Effect) -> None:
        self.effect = effect
        self.clock = ManualClock()
        self.database = MemoryDatabase()
        self.processes = [self.boot() for _ in range(PROCESSES)]
        self.effects: list[str] = []
        """What took effect, in order: "execute" and "undo"; of a long step "begin", then "complete" or "refuse"."""
        self.replies: set[bytes] = set()
        self.acceptances: set[bytes] = set()
        self.late_runs = 0
        """Handlers and successes after the key was known to be undone."""
        self.running_in: list[Process] = []
        """The processes in which a handler, or the body of a completion, is running."""
        self.is_known_undone = False
        self.was_nothing_to_undo = False
        self.was_rejection_sealed = False
        self.endings: list[str] = []

    def boot(self) -> Process:
        store = SteppedStore(self.database)
        return Process(store, GuardedBarrier(store, clock=self.clock))

    # ── Handlers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def take_effect(self, process: Process, sessions: SessionSource, what: str) -> None:
        if self.effect is EXTERNAL:
            await process.store.schedule.turn()
            self.effects.append(what)
        else:
            self.add_effect(sessions, what)
        await process.store.schedule.turn()

    def add_effect(self, sessions: SessionSource, what: str) -> None:
        assert isinstance(sessions, MemoryUnit)
        sessions.add_effect(lambda: self.effects.append(what))

    def ending(self) -> str:
        return self.endings.pop(0) if self.endings else "succeed"

    @contextmanager
    def running(self, process: Process) -> Iterator[None]:
        """No handler of a key runs while another one does, in whatever process and direction."""
        assert not self.running_in, "two handlers at the same time"
        self.running_in.append(process)
        try:
            yield
        finally:
            if process in self.running_in:  # Otherwise it has crashed, and ran no longer from that instant.
                self.running_in.remove(process)

    async def run_execute(self, process: Process, sessions: SessionSource) -> ExecuteOutcome:
        self.late_runs += self.is_known_undone
        with self.running(process):
            match self.ending():
                case "accept" if "execute" not in self.effects:  # The outside honours the key: what is done does not begin again.
                    await self.take_effect(process, sessions, BEGUN)
                    return accepted()
                case "succeed" | "accept":
                    await self.take_effect(process, sessions, "execute")
                    return HandlerSucceeded(response=reply("done"))
                case "fail":
                    await self.take_effect(process, sessions, "execute")
                    return failed(RuntimeError("bug after the effect"))
                case "reject":
                    await process.store.schedule.turn()
                    return rejected()
                case _:
                    await process.store.schedule.turn()
                    return postponed()

    async def run_compensate(self, process: Process, sessions: SessionSource) -> CompensateOutcome:
        with self.running(process):
            match self.ending():
                case "succeed":
                    await self.take_effect(process, sessions, "undo")
                    return HandlerUndid()
                case "postpone" | "accept":
                    await process.store.schedule.turn()
                    return postponed()
                case _:
                    await self.take_effect(process, sessions, "undo")
                    return failed(RuntimeError("bug after the effect"))

    # ── Calls ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def execute(self, process: Process) -> None:
        call = execute_call(self.clock, effect=self.effect, time_left_s=TIME_LEFT_S)
        is_late = self.is_known_undone
        answer = await process.barrier.execute(call, lambda sessions: self.run_execute(process, sessions))
        if isinstance(answer, status_pb2.Status):
            return
        if answer.HasField("accepted"):
            self.late_runs += is_late
            self.acceptances.add(answer.SerializeToString(deterministic=True))
        if answer.HasField("succeeded"):
            self.late_runs += is_late
            self.replies.add(answer.SerializeToString(deterministic=True))
        if answer.rejected.sealed and error_reason(answer.rejected.status) != ErrorReason.SEALED:
            self.was_rejection_sealed = True

    async def compensate(self, process: Process) -> None:
        # What the coordinator claims is true: it has seen a reply.
        known = Knowledge.SUCCEEDED if self.replies else Knowledge.UNKNOWN
        call = compensate_call(self.clock, known, effect=self.effect, time_left_s=TIME_LEFT_S)
        claimed = packed("done") if self.replies else None
        answer = await process.barrier.compensate(call, claimed, lambda sessions, output: self.run_compensate(process, sessions))
        if isinstance(answer, participant_pb2.CompensateResponse) and answer.HasField("compensated"):
            self.is_known_undone = True
            self.was_nothing_to_undo = self.was_nothing_to_undo or not answer.compensated.handler_ran

    async def complete(self, process: Process) -> None:
        """Somebody with the token completes the step, as his ending says: with a result, a refusal, or not at all."""
        ending = self.ending()
        response = refusal() if ending == "reject" else reply("done")
        is_late = self.is_known_undone
        try:
            async with process.barrier.completing(completion_call(wait_s=COMPLETION_WAIT_S)) as found:
                if isinstance(found, StoredResult):
                    response = found.response
                else:
                    self.late_runs += self.is_known_undone
                    with self.running(process):
                        self.add_effect(found.sessions, "refuse" if ending == "reject" else "complete")
                        await process.store.schedule.turn()
                    if ending == "fail":
                        return  # Left without a result: rolled back.
                    await found.conclude(response)
        except (CompletionRefusedError, CompletionPostponedError):
            return
        self.late_runs += is_late
        if response.HasField("succeeded"):
            self.replies.add(response.SerializeToString(deterministic=True))
        else:
            self.was_rejection_sealed = True

    # ── Commands ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def obey(self, command: tuple[str, int], ending: str) -> None:
        verb, number = command
        process = self.processes[number % PROCESSES]
        match verb:
            case "execute" | "compensate" | "complete":
                self.endings.append(ending)
                work = {"execute": self.execute, "compensate": self.compensate, "complete": self.complete}[verb](process)
                deadline_us = self.clock() + int(TIME_LEFT_S * 1_000_000)
                process.calls.append((deadline_us, asyncio.get_running_loop().create_task(work)))
            case "turns":
                await self.give_turns(process, number // PROCESSES + 1)
            case "rest":
                await self.give_turns(process, TURNS_TO_REST)
            case "crash":
                await self.crash(number % PROCESSES)
            case "cancel":
                await self.cancel(process, until_us=None)
            case _:
                self.clock.advance(number)
                for each in self.processes:  # gRPC ends calls whose deadline is over.
                    await self.cancel(each, until_us=self.clock())
        await self.settle()

    async def give_turns(self, process: Process, count: int) -> None:
        for _ in range(count):
            if process.store.schedule.is_idle:
                break
            process.store.schedule.give()
            await self.settle()

    async def settle(self) -> None:
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)

    async def crash(self, index: int) -> None:
        process = self.processes[index]
        process.store.crash()
        if process in self.running_in:
            self.running_in.remove(process)
        await self.cancel(process, until_us=None)
        while not process.store.schedule.is_idle:  # What still runs finds that there is no way to the database any more.
            process.store.schedule.give()
            await self.settle()
        self.processes[index] = self.boot()

    async def cancel(self, process: Process, *, until_us: int | None) -> None:
        for deadline_us, call in process.calls:
            if until_us is None or deadline_us <= until_us:
                call.cancel()

    async def drain(self) -> None:
        """Gives turns until every call has ended."""
        for _ in range(DRAIN_TURNS_MAX):
            await self.settle()
            if all(process.store.schedule.is_idle for process in self.processes):
                break
            for process in self.processes:
                process.store.schedule.give()
        for process in self.processes:
            results = await asyncio.gather(*(call for _, call in process.calls), return_exceptions=True)
            faults = [each for each in results if isinstance(each, Exception)]
            assert not faults, faults
            process.calls.clear()

    # ── Laws ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        assert len(self.replies) <= 1, "one key, one reply"
        assert len(self.acceptances) <= 1, "one key, one acceptance"
        if "complete" in self.effects or "refuse" in self.effects:
            ends = [each for each in self.effects if each in {"complete", "refuse"}]
            assert len(ends) == 1, "completed once"
            assert BEGUN in self.effects[: self.effects.index(ends[0])], "completed before it was begun"
            assert "undo" not in self.effects[: self.effects.index(ends[0])], "completed after it was undone"  # R24
        assert not self.late_runs, "nothing runs or succeeds after it was compensated"
        if self.was_rejection_sealed or self.was_nothing_to_undo:
            assert not {"execute", "complete"} & {*self.effects}, "sealed means that it never took effect"
        if self.is_known_undone and BEGUN in self.effects and "refuse" not in self.effects:
            assert self.effects[-1] == "undo", "a beginning outlives its compensation"
        if self.replies:
            assert {"execute", "complete"} & {*self.effects}, "a success that never was"
        if self.effect is DATABASE:
            assert self.effects in STORIES, "each once, and undone only after it was done"
        elif self.is_known_undone and {"execute", "complete"} & {*self.effects}:
            assert self.effects[-1] == "undo", "an effect outlives its compensation"


VERBS = st.sampled_from(["execute", "execute", "compensate", "complete", "turns", "turns", "rest", "rest", "crash", "cancel", "advance"])
COMMANDS = st.lists(st.tuples(st.tuples(VERBS, st.integers(0, 15)), st.sampled_from(ENDINGS)), min_size=6, max_size=30)


LONG_VERBS = st.sampled_from(
    ["complete", "complete", "complete", "execute", "compensate", "turns", "turns", "rest", "rest", "crash", "advance"]
)
LONG_COMMANDS = st.lists(
    st.tuples(st.tuples(LONG_VERBS, st.integers(0, 15)), st.sampled_from(["succeed", "succeed", "succeed", "reject", "fail"])),
    min_size=4,
    max_size=20,
)


@pytest.mark.parametrize("effect", [DATABASE, EXTERNAL])
@settings(max_examples=settings().max_examples * EXAMPLES_FACTOR)
@given(commands=COMMANDS)
def test_any_interleaving_keeps_the_promises_of_a_key(effect: Effect, commands: list[tuple[tuple[str, int], str]]) -> None:  # P2
    asyncio.run(tell_story(World(effect), commands))


@pytest.mark.parametrize("effect", [DATABASE, EXTERNAL])
@settings(max_examples=settings().max_examples * EXAMPLES_FACTOR)
@given(begin=st.sampled_from(["turns", "rest"]), commands=LONG_COMMANDS)
def test_any_interleaving_completes_a_long_step_before_it_is_undone_or_never(
    effect: Effect, begin: str, commands: list[tuple[tuple[str, int], str]]
) -> None:  # P2, R24
    asyncio.run(tell_story(World(effect), [(("execute", 0), "accept"), ((begin, 4), ""), *commands]))


async def tell_story(world: World, commands: list[tuple[tuple[str, int], str]]) -> None:
    for command, ending in commands:
        await world.obey(command, ending)
        world.check()
    await world.drain()
    world.check()
    # Whatever happened, the coordinator can bring the key to rest.
    world.clock.advance(TIME_LEFT_S + 1)
    world.endings.clear()
    await world.obey(("compensate", 0), "succeed")
    await world.drain()
    assert world.is_known_undone
    world.check()
