"""The barrier under any interleaving of calls, duplicates, crashes and cancellations: what it promises of a key holds (R5, R18-R20).

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

from participant_sdk.barrier.guarded import GuardedBarrier
from participant_sdk.barrier.outcomes import CompensateOutcome, ExecuteOutcome, HandlerSucceeded, HandlerUndid
from participant_sdk.barrier.verdict import Knowledge
from participant_sdk.effects import DATABASE, EXTERNAL, Effect
from participant_sdk.rpc_errors import ErrorReason, error_reason
from participant_sdk.step_context import SessionSource
from participant_sdk.testing import MemoryDatabase
from participant_sdk.testing.memory_barrier import MemoryStore, MemoryUnit
from saga.v1 import participant_pb2
from tests.contract.barrier.calls import ManualClock, compensate_call, execute_call, failed, packed, postponed, rejected, reply

SETTLE_TURNS = 12
"""Rounds of the event loop after which every coroutine stands at its next turn."""
TURNS_TO_REST = 20
"""More than two calls need to their end."""
DRAIN_TURNS_MAX = 2_000
EXAMPLES_FACTOR = 3
"""How many more examples than the profile says: one costs little, and the dangerous orders are rare."""
TIME_LEFT_S = 10.0
PROCESSES = 2
ENDINGS = ("succeed", "fail", "reject", "postpone")


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
        """What took effect, in order: "execute" and "undo"."""
        self.replies: set[bytes] = set()
        self.late_runs = 0
        """Handlers and successes after the key was known to be undone."""
        self.runs_under_way = 0
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
            assert isinstance(sessions, MemoryUnit)
            sessions.add_effect(lambda: self.effects.append(what))
        await process.store.schedule.turn()

    def ending(self) -> str:
        return self.endings.pop(0) if self.endings else "succeed"

    @contextmanager
    def running(self) -> Iterator[None]:
        """No handler of a key runs while another one does, in whatever process and direction."""
        self.runs_under_way += 1
        assert self.runs_under_way == 1, "two handlers at the same time"
        try:
            yield
        finally:
            self.runs_under_way -= 1

    async def run_execute(self, process: Process, sessions: SessionSource) -> ExecuteOutcome:
        self.late_runs += self.is_known_undone
        with self.running():
            match self.ending():
                case "succeed":
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
        with self.running():
            match self.ending():
                case "succeed":
                    await self.take_effect(process, sessions, "undo")
                    return HandlerUndid()
                case "postpone":
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

    # ── Commands ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def obey(self, command: tuple[str, int], ending: str) -> None:
        verb, number = command
        process = self.processes[number % PROCESSES]
        match verb:
            case "execute" | "compensate":
                self.endings.append(ending)
                work = self.execute(process) if verb == "execute" else self.compensate(process)
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
        assert not self.late_runs, "nothing runs or succeeds after it was compensated"
        if self.was_rejection_sealed or self.was_nothing_to_undo:
            assert "execute" not in self.effects, "sealed means that it never took effect"
        if self.replies:
            assert "execute" in self.effects, "a success that never was"
        if self.effect is DATABASE:
            assert self.effects in ([], ["execute"], ["execute", "undo"]), "each once, and undone only after it was done"
        elif self.is_known_undone and "execute" in self.effects:
            assert self.effects[-1] == "undo", "an effect outlives its compensation"


VERBS = st.sampled_from(["execute", "execute", "compensate", "turns", "turns", "rest", "rest", "crash", "cancel", "advance"])
COMMANDS = st.lists(st.tuples(st.tuples(VERBS, st.integers(0, 15)), st.sampled_from(ENDINGS)), min_size=6, max_size=30)


@pytest.mark.parametrize("effect", [DATABASE, EXTERNAL])
@settings(max_examples=settings().max_examples * EXAMPLES_FACTOR)
@given(commands=COMMANDS)
def test_any_interleaving_keeps_the_promises_of_a_key(effect: Effect, commands: list[tuple[tuple[str, int], str]]) -> None:
    async def scenario() -> World:
        world = World(effect)
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
        return world

    asyncio.run(scenario())
