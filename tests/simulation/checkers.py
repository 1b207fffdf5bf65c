"""What must be true of a world, judged from the ledgers of its participants, the committed events and the shape of its definitions.

Nothing of the code that is judged decides here: events are read as the public messages they are stored as.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Final, Self

from google.protobuf.wrappers_pb2 import StringValue

from participant_sdk import StepKind
from saga.v1 import participant_pb2, saga_pb2
from tests.simulation.journal_of_world import Deed, Entry
from tests.simulation.plans import Shape

if TYPE_CHECKING:
    from tests.simulation.world import World

_ENDS: Final = ("saga_completed", "saga_compensated", "saga_terminated")
_SETTLED: Final = ("step_succeeded", "step_rejected", "step_unknown", "step_resolved")


class Committed:
    """What the committed events of one saga say, read as far as they go."""

    def __init__(self) -> None:
        self.read = 0
        self.reached: set[str] = set()
        self.succeeded: set[str] = set()
        self.settled: set[str] = set()
        self.skipped: set[str] = set()
        self.resolved: set[str] = set()
        self.ends: list[str] = []
        self.has_turned_back = False
        self.is_paused = False

    def follow(self, payloads: list[bytes]) -> Self:
        """Reads what is new."""
        for payload in payloads[self.read :]:
            self._note(saga_pb2.Event.FromString(payload))
        self.read = len(payloads)
        return self

    def _note(self, event: saga_pb2.Event) -> None:
        kind = event.WhichOneof("fact") or ""
        if kind in _ENDS:
            self.ends.append(kind)
        self.has_turned_back |= kind == "saga_turned_back"
        if kind in ("saga_paused", "saga_resumed", "saga_terminated"):
            self.is_paused = kind == "saga_paused"
        if kind in _SETTLED:
            step_id = _step_of(getattr(event, kind))
            self.settled.add(step_id)
            if kind == "step_succeeded":
                self.succeeded.add(step_id)
            if kind == "step_resolved":
                self.resolved.add(step_id)
        for reached in event.reached:
            self.reached.add(reached.step_id)
            if reached.WhichOneof("consequence") == "left_out":
                self.skipped.add(reached.step_id)


def _step_of(fact: object) -> str:
    attempt = getattr(fact, "attempt", None)
    step_id = getattr(fact, "step_id", "") or (attempt.step_id if attempt is not None else "")
    return str(step_id)


# ── While it lives ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_is_stored(world: "World", saga_id: str) -> None:
    """P1: what is answered is committed."""
    if world.row_of(saga_id) is None:
        world.record.violated("P1", saga_id, "its start was answered, and it is not in the journal")


def check_is_committed(world: "World", saga_id: str, event: saga_pb2.Event) -> None:
    """R25: what is shown is committed."""
    row = world.row_of(saga_id)
    if row is None or len(row.payloads) < event.sequence:
        world.record.violated("R25", saga_id, f"event {event.sequence} was shown, and is not in the journal")


def check_is_announced(world: "World", saga: saga_pb2.Saga) -> None:
    """R25: nobody is told of a state that is not committed."""
    row = world.row_of(saga.id)
    if row is None or len(row.payloads) < saga.sequence:
        world.record.violated("R25", saga.id, f"a state at event {saga.sequence} was told, and the journal does not hold it")


def check_is_justified(world: "World", request: "participant_pb2.ExecuteRequest | participant_pb2.CompensateRequest", source: str) -> None:
    """No call leaves before the events are committed that it follows from (R25, P3), nor from a node that does not own the saga (R31)."""
    saga_id, step_id = request.saga_id, request.step_id
    row = world.row_of(saga_id)
    if row is None or saga_id not in world.sagas:
        world.record.violated("R25", saga_id, f"{step_id} is called, and no such saga is in the journal")
        return
    if why_not := world.why_not_owner(source, row):
        world.record.violated("R31", saga_id, f"{source} calls {step_id}, and {why_not}")
        return
    facts = world.committed[saga_id].follow(row.payloads)
    if facts.is_paused:
        world.record.violated("B12", saga_id, f"{step_id} is called, and the saga is paused")
    if step_id.startswith("on_"):
        if not facts.ends:
            world.record.violated("R16", saga_id, f"{step_id} is called, and the saga has not ended")
        return
    if isinstance(request, participant_pb2.CompensateRequest):
        if not facts.has_turned_back:
            world.record.violated("R12", saga_id, f"{step_id} is undone, and the saga has not turned back")
        return
    if facts.has_turned_back:
        world.record.violated("R12", saga_id, f"{step_id} is called, and the saga has turned back")
    shape = world.shape_of(saga_id)
    if step_id not in facts.reached:
        world.record.violated("R25", saga_id, f"{step_id} is called, and the journal does not say that it is due")
    for before in shape.before[step_id]:
        is_optional = shape.kinds[before] is StepKind.BEST_EFFORT and before in facts.settled
        if before not in facts.succeeded | facts.skipped | facts.resolved and not is_optional:
            world.record.violated("R14", saga_id, f"{step_id} is called before {before} is done")


# ── At its end ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def check(world: "World") -> None:
    """Everything that must be true when nothing moves any more."""
    ledger: dict[str, list[Entry]] = defaultdict(list)
    for entry in world.record.ledger:
        ledger[entry.saga_id].append(entry)
    for saga_id in world.sagas:
        row = world.row_of(saga_id)
        if row is None:
            if saga_id in world.record.acknowledged:
                world.record.violated("P1", saga_id, "its start was answered, and it is gone")
            continue
        facts = world.committed[saga_id].follow(row.payloads)
        saga = world.seen_last.get(saga_id)
        if saga is None or saga.sequence != len(row.payloads):  # something happened since
            saga = await world.client.get(saga_id)
        for text in [*wrong_journal(row.payloads, facts), *wrong_effects(world.shape_of(saga_id), saga, facts, ledger[saga_id])]:
            world.record.violated("P2", saga_id, text)


def wrong_journal(payloads: list[bytes], facts: Committed) -> list[str]:
    """What is wrong with the events of a saga that is over. Tests with real processes judge by the same laws."""
    sequences = [saga_pb2.Event.FromString(payload).sequence for payload in payloads]
    wrong = [] if sequences == list(range(1, len(payloads) + 1)) else [f"its events are numbered {sequences}"]
    return wrong if len(facts.ends) == 1 else [*wrong, f"expected one end, found {facts.ends or 'none'}"]


def wrong_effects(shape: Shape, saga: saga_pb2.Saga, facts: Committed, entries: list[Entry]) -> list[str]:
    """What is wrong with the effects that a saga has left, in the order of time."""
    wrong = _wrong_keys(shape, entries)
    hook = [entry for entry in entries if entry.step_id.startswith("on_")]
    if len(hook) > 1:
        wrong.append(f"hooks took effect {len(hook)} times")
    if saga.HasField("terminated"):
        return wrong  # it ends as it stands
    for step, kind in shape.kinds.items():
        if step in facts.resolved:
            continue  # a person has seen to it
        stands = sum({Deed.DO: 1, Deed.UNDO: -1, Deed.BEGIN: 0}[entry.deed] for entry in _of(step, entries, shape))
        expected = _expected(shape, step, kind, saga)
        if expected is not None and stands != expected:
            wrong.append(
                f"{saga_pb2.SagaStatus.Name(saga.status)}: effects of {step} ({kind.name}) that stand: {stands}, expected {expected}"
            )
        said = next(each for each in saga.steps if each.id == step)
        was_done = any(entry.deed is Deed.DO for entry in entries if entry.step_id == step)
        if said.status == saga_pb2.STEP_STATUS_SUCCEEDED and not was_done:
            wrong.append(f"{step} is said to have succeeded, and never took effect")
    return wrong + _wrong_order(shape, entries)


def _of(step: str, entries: list[Entry], shape: Shape) -> list[Entry]:
    """The lines of a step. What gamma withdraws before it was done leaves nothing behind, and counts as nothing."""
    lines = [entry for entry in entries if entry.step_id == step]
    if shape.actions[step] == "gamma.ask" and not any(entry.deed is Deed.DO for entry in lines):
        return []
    return lines


def _expected(shape: Shape, step: str, kind: StepKind, saga: saga_pb2.Saga) -> int | None:
    """How often the effect of a step stands; None: either is right."""
    if saga.status == saga_pb2.SAGA_STATUS_COMPLETED:
        if kind is StepKind.BEST_EFFORT:
            return None
        text = StringValue()
        saga.input.Unpack(text)
        return int(shape.is_wanted(step, text.value))
    if kind is StepKind.READ_ONLY or (kind is StepKind.BEST_EFFORT and shape.actions[step].endswith(".last")):
        return None
    return 0


def _wrong_keys(shape: Shape, entries: list[Entry]) -> list[str]:
    wrong: list[str] = []
    by_key: dict[str, list[Deed]] = defaultdict(list)
    for entry in entries:
        by_key[entry.key].append(entry.deed)
    for key, deeds in by_key.items():
        step = key.split("/")[1]
        for deed in Deed:
            if deeds.count(deed) > 1:
                wrong.append(f"{key}: {deed} {deeds.count(deed)} times")
        if Deed.UNDO in deeds:
            place = deeds.index(Deed.UNDO)
            if place == 0:
                wrong.append(f"{key}: undone, and never done")
            if place != len(deeds) - 1:
                wrong.append(f"{key}: {deeds[-1]} after it was undone")
            if not shape.actions.get(step, "").endswith((".do", ".ask")):
                wrong.append(f"{key}: undone, and has no undo")
    return wrong


def _wrong_order(shape: Shape, entries: list[Entry]) -> list[str]:
    """P3: forward along the graph, backward against it."""
    done: dict[str, int] = {}
    undone: dict[str, int] = {}
    for place, entry in enumerate(entries):
        if entry.deed is Deed.DO:
            done.setdefault(entry.step_id, place)
        elif entry.deed is Deed.UNDO:
            undone[entry.step_id] = place
    wrong: list[str] = []
    for step in shape.kinds:
        for before in shape.ancestors(step):
            is_optional = shape.kinds[before] is StepKind.BEST_EFFORT
            if step in done and before in done and done[before] > done[step] and not is_optional:
                wrong.append(f"{step} was done before {before}")
            if step in undone and before in undone and undone[before] < undone[step]:
                wrong.append(f"{before} was undone before {step}, which came after it")
    return wrong
