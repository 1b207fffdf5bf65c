"""A person who meddles with a saga while things go wrong, and who sees to what needs one when the storm is over."""

import asyncio
from random import Random
from typing import TYPE_CHECKING, Final

from participant_sdk.client import CoordinatorError, NotNow, Resolution, SagaAlreadyEnded
from saga.v1 import saga_pb2
from tests.simulation import checkers
from tests.simulation.journal_of_world import Deed
from tests.simulation.participants import OUTPUT

if TYPE_CHECKING:
    from tests.simulation.world import World

REASON: Final = "the person of the simulation"
ACTOR: Final = "ann"
PATIENCE_S: Final = 4 * 3_600.0
"""How long a saga may take once nothing goes wrong any more. A lock that a participant set when its clock was wrong lasts longest."""
LOOKS_S: Final = (1.0, 600.0)
"""How long a person waits at first until looking again, and at most."""
_ENDED: Final = (saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED)
_MOVING: Final = (saga_pb2.STEP_STATUS_EXECUTING, saga_pb2.STEP_STATUS_ACCEPTED)


class Person:
    """Looks after one saga."""

    def __init__(self, world: "World", saga_id: str) -> None:
        self._world = world
        self._saga_id = saga_id
        self._operator = world.client.operator

    async def meddles(self, chance: Random) -> None:
        """A few things, at any time, each of which may come too late or make no sense."""
        for _ in range(chance.randrange(1, 4)):
            await asyncio.sleep(chance.random() * 10.0)
            verb = chance.choice(("pause", "resume", "cancel", "cancel", "retry", "terminate" if chance.random() < 0.3 else "resume"))
            self._world.tell(self._saga_id, f"a person tries: {verb}")
            try:
                checkers.check_is_announced(self._world, await self._do(verb, chance))
            except CoordinatorError as error:
                self._world.tell(self._saga_id, f"… and is told: {type(error).__name__}")

    async def _do(self, verb: str, chance: Random) -> saga_pb2.Saga:
        match verb:
            case "pause":
                return await self._operator.pause(self._saga_id, reason=REASON, actor=ACTOR)
            case "resume":
                return await self._operator.resume(self._saga_id, reason=REASON, actor=ACTOR)
            case "cancel":
                await self._world.client.cancel(self._saga_id, reason=REASON)
                return await self._world.client.get(self._saga_id)
            case "retry":
                _, shape = self._world.definitions[self._world.sagas[self._saga_id]]
                return await self._operator.retry_step(self._saga_id, chance.choice(sorted(shape.kinds)), reason=REASON, actor=ACTOR)
            case _:
                return await self._operator.terminate(self._saga_id, reason=REASON, actor=ACTOR)

    async def sees_to_it(self) -> saga_pb2.Saga:
        """Waits for the end of the saga, and does what it asks for; returns how it was seen last."""
        wait_s, waited_s = LOOKS_S[0], 0.0
        while not self._is_over(saga := await self._world.client.get(self._saga_id)):
            if waited_s > PATIENCE_S:
                self._world.record.violated("liveness", self._saga_id, f"it did not end: {_name(saga)}, and nothing goes wrong any more")
                break
            try:
                has_helped = await self._help(saga)
            except (NotNow, SagaAlreadyEnded):
                has_helped = False
            if not has_helped:
                await asyncio.sleep(wait_s)
                waited_s, wait_s = waited_s + wait_s, min(wait_s * 2, LOOKS_S[1])
        return saga

    def _is_over(self, saga: saga_pb2.Saga) -> bool:
        is_over = saga.status in _ENDED or saga.HasField("terminated")
        return is_over and not (saga.HasField("hook") and saga.hook.status in _MOVING)

    async def _help(self, saga: saga_pb2.Saga) -> bool:
        if saga.HasField("paused"):
            await self._operator.resume(saga.id, reason=REASON, actor=ACTOR)
            return True
        for incident in saga.incidents:
            if not incident.HasField("closed_at"):
                self._world.tell(saga.id, f"a person sees to {saga_pb2.IncidentKind.Name(incident.kind)} of {incident.step_id}")
                await self._see_to(saga.id, incident)
                return True
        return False

    async def _see_to(self, saga_id: str, incident: saga_pb2.Incident) -> None:
        match incident.kind:
            case saga_pb2.INCIDENT_KIND_LATE_OUTCOME:
                await self._operator.acknowledge_incident(saga_id, incident.id, reason=REASON, actor=ACTOR)
            case saga_pb2.INCIDENT_KIND_PIVOT_UNKNOWN:
                # Found out by looking into the participant's own books.
                has_happened = self._has_happened(saga_id, incident.step_id)
                told = OUTPUT if has_happened else Resolution.REJECTED
                await self._operator.resolve_step(saga_id, incident.step_id, told, reason=REASON, actor=ACTOR)
            case saga_pb2.INCIDENT_KIND_COMPENSATION_EXHAUSTED:
                await self._operator.retry_step(saga_id, incident.step_id, reason=REASON, actor=ACTOR)
            case _:
                await self._operator.resolve_step(saga_id, incident.step_id, Resolution.SKIPPED, reason=REASON, actor=ACTOR)

    def _has_happened(self, saga_id: str, step_id: str) -> bool:
        return any((each.saga_id, each.step_id, each.deed) == (saga_id, step_id, Deed.DO) for each in self._world.record.ledger)


def _name(saga: saga_pb2.Saga) -> str:
    steps = ", ".join(f"{step.id} {saga_pb2.StepStatus.Name(step.status).removeprefix('STEP_STATUS_')}" for step in saga.steps)
    return f"{saga_pb2.SagaStatus.Name(saga.status).removeprefix('SAGA_STATUS_')} ({steps})"
