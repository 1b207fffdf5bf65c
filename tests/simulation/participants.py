"""The participants of a simulated world. Their code is careful, as the SDK asks for; what goes wrong with it is chance.

Each keeps a ledger: a line is written in the instant of the commit that makes it true, in the same database transaction.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast

from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import Accepted, Effect, Participant, Rejected, RetryLater, StepContext, action
from participant_sdk.barrier.barrier import Barrier
from participant_sdk.client import CoordinatorError, StepNotWaitingError
from participant_sdk.client.completion import StepCompleter
from participant_sdk.errors import AlreadyCompletedError, CompletionPostponedError, CompletionRefusedError, CompletionUndeliveredError
from participant_sdk.testing.memory_barrier import MemoryUnit
from tests.simulation.chance import Chance
from tests.simulation.journal_of_world import Deed, Entry, Record
from tests.simulation.options import Options

SLOW_S = 15.0
"""Longer than any attempt may take."""
DUPLICATES_REFUSED = 0.3
"""Share of the keys of which the system outside says that they were used, in place of its first answer."""
OUTPUT = StringValue(value="ok")


@dataclass
class Outside:
    """A system that knows nothing of sagas, such as a payment API: it honours idempotency keys, also those of what it has undone."""

    done: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    """Keys that were undone, whether or not they had been done: they do nothing any more."""


@dataclass
class SharedWorld:
    """What the participants of one world share."""

    options: Options
    chance: Chance
    record: Record
    now_s: Callable[[], float]
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    """Begins something that ends with the process."""
    client: StepCompleter
    """Tells the coordinator of steps that are finished later."""
    outside: Outside = field(default_factory=Outside)
    wishes: dict[str, StepContext] = field(default_factory=dict)
    """What gamma has promised and not fulfilled, by key: rows of its database."""

    def write(self, step: StepContext, deed: Deed) -> None:
        """A line of the ledger, written now."""
        self.record.ledger.append(Entry(self.now_s(), step.saga_id, step.step_id, deed, step.execute_key))

    def write_at_commit(self, step: StepContext, deed: Deed) -> None:
        """A line of the ledger, written when the database transaction of the call is committed."""
        cast("MemoryUnit", step.sessions).add_effect(lambda: self.write(step, deed))

    async def misbehave(self, step: StepContext, direction: str) -> None:
        """What may happen to a call before it does anything."""
        options, call = self.options, (step.saga_id, step.step_id, direction, step.attempt)
        if self.chance.share("transient", *call) < options.transient_failures:
            raise RuntimeError("the participant has stumbled")
        if self.chance.share("later", *call) < options.postponements:
            raise RetryLater(timedelta(milliseconds=500), "not now")
        if self.chance.share("slow", *call) < options.slow_handlers:
            await asyncio.sleep(SLOW_S)
        elif self.chance.share("quick", *call) < 0.5:
            await asyncio.sleep(self.chance.share("takes", *call) * 0.5)

    def refuses(self, step: StepContext) -> bool:
        """Whether this step is refused, whenever it is asked for."""
        return self.chance.share("refuse", step.saga_id, step.step_id) < self.options.rejections


class _Careful(Participant):
    def __init__(self, shared: SharedWorld, *, barrier: Barrier) -> None:
        super().__init__(barrier=barrier)
        self.world = shared


class Alpha(_Careful, name="alpha"):
    """Its effects are rows of its own database."""

    @action
    async def do(self, request: StringValue, step: StepContext) -> StringValue:
        await self.world.misbehave(step, "execute")
        if self.world.refuses(step):
            raise Rejected("REFUSED", "it is always refused")
        self.world.write_at_commit(step, Deed.DO)
        return OUTPUT

    @do.compensation
    async def undo(self, request: StringValue, output: StringValue, step: StepContext) -> None:
        await self.world.misbehave(step, "compensate")
        self.world.write_at_commit(step, Deed.UNDO)

    @action
    async def last(self, request: StringValue, step: StepContext) -> StringValue:
        await self.world.misbehave(step, "execute")
        if self.world.refuses(step) and not step.step_id.startswith("on_"):
            raise Rejected("REFUSED", "it is always refused")
        self.world.write_at_commit(step, Deed.DO)
        return OUTPUT


class Beta(_Careful, name="beta"):
    """Its effects are outside of its database (R19)."""

    @action(effect=Effect.EXTERNAL)
    async def do(self, request: StringValue, step: StepContext) -> StringValue:
        return await self._act(step)

    @do.compensation
    async def undo(self, request: StringValue, output: StringValue | None, step: StepContext) -> None:
        await self.world.misbehave(step, "compensate")
        outside = self.world.outside
        if step.execute_key in outside.done and step.execute_key not in outside.closed:
            self.world.write(step, Deed.UNDO)
        outside.closed.add(step.execute_key)

    @action(effect=Effect.EXTERNAL)
    async def last(self, request: StringValue, step: StepContext) -> StringValue:
        return await self._act(step)

    async def _act(self, step: StepContext) -> StringValue:
        await self.world.misbehave(step, "execute")
        if self.world.refuses(step):
            raise Rejected("REFUSED", "it is always refused")
        outside = self.world.outside
        if step.execute_key not in outside.done | outside.closed:
            outside.done.add(step.execute_key)
            self.world.write(step, Deed.DO)
        elif self.world.chance.share("says so", step.key) < DUPLICATES_REFUSED:
            raise Rejected("DUPLICATE", "it was done before")  # such APIs exist; R5 is about them
        if self.world.chance.share("stumbles after", step.key, step.attempt) < self.world.options.transient_failures:
            raise RuntimeError("the participant has stumbled after its effect")
        return OUTPUT


class Gamma(_Careful, name="gamma"):
    """Notes a wish, and fulfils it later, on its own (R24)."""

    @action
    async def ask(self, request: StringValue, step: StepContext) -> StringValue | Accepted:
        await self.world.misbehave(step, "execute")
        if self.world.refuses(step) and self.world.chance.share("at once", step.key) < 0.5:
            raise Rejected("REFUSED", "it is refused at once")
        self.world.write_at_commit(step, Deed.BEGIN)
        cast("MemoryUnit", step.sessions).add_effect(lambda: self._note(step))
        return Accepted(time_limit=timedelta(seconds=60 if self.world.chance.share("time", step.key) < 0.8 else 10))

    @ask.compensation
    async def withdraw(self, request: StringValue, output: StringValue | None, step: StepContext) -> None:
        await self.world.misbehave(step, "compensate")
        self.world.write_at_commit(step, Deed.UNDO)

    def _note(self, step: StepContext) -> None:
        self.world.wishes[step.key] = step
        self.world.spawn(self._finish(step))

    def resume(self) -> None:
        """After a restart: every wish that is not fulfilled stands in its database."""
        for step in self.world.wishes.values():
            self.world.spawn(self._finish(step))

    async def _finish(self, step: StepContext) -> None:
        """Goes on trying until the coordinator has heard of it, or says that it is too late."""
        await asyncio.sleep(self.world.chance.share("finish", step.key) * 20.0)
        while step.key in self.world.wishes:
            try:
                await self._complete(step)
            except (AlreadyCompletedError, CompletionRefusedError, StepNotWaitingError):
                self.world.wishes.pop(step.key, None)
            except (CompletionUndeliveredError, CompletionPostponedError, CoordinatorError, TimeoutError):
                await asyncio.sleep(1.0)
            else:
                self.world.wishes.pop(step.key, None)

    async def _complete(self, step: StepContext) -> None:
        world = self.world
        async with self.completing(step.completion_token, Gamma.ask, client=world.client) as completion:
            if world.refuses(step):
                completion.reject("REFUSED", "it is refused in the end")
                return
            cast("MemoryUnit", completion._opened.sessions).add_effect(lambda: world.write(step, Deed.DO))
            completion.succeed(OUTPUT)
