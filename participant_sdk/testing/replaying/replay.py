"""Deciding again what was decided once: the real core, fed with what happened then."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from coordinator.cli.payloads import PayloadTypes
from coordinator.cli.story import Storyteller, TimelineRow
from coordinator.codec.definitions import CompiledDefinition, InputInvalidError, compile_definition
from coordinator.codec.events import encode_event, event_of
from coordinator.codec.values import payload_of, to_any
from coordinator.core.decide import advance
from coordinator.core.errors import CommandRefusedError
from coordinator.core.events import Event, IncidentOpened, Reached, SagaStarted, StepDue, StepSucceeded, StepUnfit
from coordinator.core.inputs import Input
from coordinator.core.record import apply
from coordinator.core.state import NO_TRACE, SagaState
from coordinator.core.values import Failure, Instant, Payload, SagaId
from participant_sdk.testing.plans import Definition, Plan, definition_of
from participant_sdk.testing.replaying.causes import causes_of
from participant_sdk.testing.replaying.histories import History, HistoryError
from saga.v1 import saga_pb2

_TIMES: Final = ("retry_at", "quiet_at", "accepted_until", "deadline", "start_at")
"""Fields that say when something comes, and not what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where a history and the definition part."""

    sequence: int
    """Of the recorded event."""
    at_s: float
    """Seconds after the start of the saga."""
    recorded: str
    """What was decided then, in words."""
    now: str
    """What would be decided now."""

    def __str__(self) -> str:
        return f"event {self.sequence}, +{self.at_s:.3f} s\n    then: {self.recorded}\n    now:  {self.now}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What came of replaying one history."""

    history: History
    title: str
    """The definition that it was replayed against."""
    agreed: int
    """Events that would be the same."""
    difference: Difference | None
    """The first one that would not be; what comes after it cannot be compared. None: the whole history would be the same."""
    timings: Sequence[Difference]
    """What would be the same, at another time."""

    def __str__(self) -> str:
        head = f"{self.history.title} against {self.title}: "
        if self.difference is None:
            text = f"{head}the same, {self.agreed} events"
        else:
            text = f"{head}decided differently after {self.agreed} events\n  {self.difference}"
        return "\n".join([text, *(f"  at another time: {each}" for each in self.timings)])

    def to_json(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "saga_id": self.history.saga.id,
            "definition": self.title,
            "same": self.difference is None,
            "agreed": self.agreed,
            "difference": None if self.difference is None else asdict(self.difference),
            "timings": [asdict(each) for each in self.timings],
        }


def replay(plan: Plan, history: History) -> Replay:
    """Feeds the real core with what happened to a recorded saga, under another definition or under this release, and compares.

    What happened is read from the facts: what participants answered, what persons did, when time was over. As soon as the definition
    would do something else the replay ends: nobody knows what participants would have answered to that.

    Raises HistoryError for a history that is not complete; DefinitionError and ValueError for a definition that is not sound.
    """
    definition = definition_of(plan)
    compiled = compile_definition(definition.message, definition.descriptors)
    return _Replaying(definition, compiled, history).run()


class _Replaying:
    def __init__(self, definition: Definition, compiled: CompiledDefinition, history: History) -> None:
        self.definition = definition
        self.compiled = compiled
        self.history = history
        self.recorded = _decoded(history)
        self.made: list[Event] = []
        self.timings: list[Difference] = []
        self.inputs: Mapping[str, Payload] = {step.id: payload_of(step.input) for step in history.saga.steps if step.HasField("input")}
        self.then = Storyteller({step.id: step.kind for step in history.saga.steps}, PayloadTypes(definition.descriptors).to_text)
        self.now = Storyteller({step.id: step.kind for step in definition.message.steps}, PayloadTypes(definition.descriptors).to_text)

    def run(self) -> Replay:
        """Decides event by event."""
        place, difference = 0, self._different_input()
        while difference is None and place < len(self.recorded):
            made = self._decide(place)
            difference = self._compare(place, made)
            if difference is None:
                place += len(made)
        return Replay(history=self.history, title=self.definition.title, agreed=place, difference=difference, timings=tuple(self.timings))

    def _different_input(self) -> Difference | None:
        started = self.recorded[0].fact
        assert isinstance(started, SagaStarted), "looked at when the history was decoded"
        try:
            self.compiled.canonical_input(to_any(started.input))
        except InputInvalidError as error:
            return Difference(sequence=1, at_s=0.0, recorded=f"started with {started.input.type_name}", now=f"not started: {error}")
        return None

    def _decide(self, place: int) -> list[Event]:
        """What is decided now on what happened then: by the cause under which it agrees longest."""
        event, best = self.recorded[place], list[Event]()
        agrees_best = -1
        for cause in causes_of(event, tuple(self.recorded[place + 1 : place + 8])):
            made = self._try(cause, event.occurred_at)
            agrees = self._agreement(place, made)
            if agrees > agrees_best:
                best, agrees_best = made, agrees
            if made and agrees == len(made):
                break
        return best

    def _try(self, cause: Input, at: Instant) -> list[Event]:
        state = SagaState(self.compiled.plan, SagaId(self.history.saga.id))
        for event in self.made:
            apply(self.compiled.plan, state, event)
        try:
            return list(advance(self.compiled.plan, state, cause, at))
        except CommandRefusedError:
            return []

    def _agreement(self, place: int, made: Sequence[Event]) -> int:
        count = 0
        for recorded, event in zip(self.recorded[place:], made, strict=False):
            if not self._is_same(recorded, event):
                break
            count += 1
        return count

    def _compare(self, place: int, made: list[Event]) -> Difference | None:
        if (refused := self._refusal(self.recorded[place])) or not made:
            difference = self._difference(self.recorded[place], None)
            return replace(difference, now=refused or "nothing follows from that")
        for offset, event in enumerate(made):
            recorded = self.recorded[place + offset] if place + offset < len(self.recorded) else None
            if recorded is None and self.history.saga.status not in _ENDED:
                return None  # the history was taken before the end
            if recorded is None or not self._is_same(recorded, event):
                return self._difference(recorded, event)
            self._note_times(recorded, event)
            self.then.rows_of(self.history.events[place + offset])
            self.now.rows_of(self._message(event))
        self.made += made
        return None

    def _refusal(self, recorded: Event) -> str:
        """Why what a participant said then would not be taken now; empty: it would."""
        fact = recorded.fact
        attempt = getattr(fact, "attempt", None)
        if attempt is None:
            return ""
        try:
            step = self.compiled.plan.step_plan(attempt.step_id)
        except KeyError:
            return f"{self.definition.title} has no step {attempt.step_id}"
        return step.check_output(fact.output) if isinstance(fact, StepSucceeded) else ""

    # ── What is the same ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _is_same(self, recorded: Event, made: Event) -> bool:
        if not self._is_same_fact(_without_times(recorded.fact), _without_times(made.fact)) or len(recorded.reached) != len(made.reached):
            return False
        return all(self._is_same_reached(then, now) for then, now in zip(recorded.reached, made.reached, strict=True))

    def _is_same_fact(self, then: Any, now: Any) -> bool:
        return type(then) is type(now) and all(
            self._is_same_value(getattr(then, field.name), getattr(now, field.name)) for field in fields(then)
        )

    def _is_same_reached(self, then: Reached, now: Reached) -> bool:
        if type(then) is not type(now) or then.step_id != now.step_id:
            return False
        if isinstance(then, StepDue) and isinstance(now, StepDue):
            known = then.input if then.input is not None else self.inputs.get(then.step_id)
            return known is None or now.input is None or self._is_same_value(known, now.input)
        return True

    def _is_same_value(self, then: object, now: object) -> bool:
        if isinstance(then, Payload) and isinstance(now, Payload):
            return then == now or (then.type_name == now.type_name and self._parsed(then) == self._parsed(now))
        return then == now

    def _parsed(self, payload: Payload) -> Message | bytes:
        """Two encodings of one message are the same."""
        try:
            return self.compiled.types.get(payload.type_name).FromString(payload.value)
        except (KeyError, DecodeError):
            return payload.value

    # ── In words ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _note_times(self, recorded: Event, made: Event) -> None:
        for name in _TIMES:
            then, now = getattr(recorded.fact, name, None), getattr(made.fact, name, None)
            if then != now and not isinstance(recorded.fact, SagaStarted):
                difference = self._difference(recorded, made, is_told=False)
                self.timings.append(replace(difference, now=f"{difference.now} ({name} {_shift(then, now)})"))

    def _difference(self, recorded: Event | None, made: Event | None, *, is_told: bool = True) -> Difference:
        last = self.recorded[-1] if recorded is None else recorded
        then = self._words(self.history.events[last.sequence - 1], self.then, is_told=is_told) if recorded is not None else "nothing more"
        now = self._words(self._message(made), self.now, is_told=is_told) if made is not None else "nothing"
        at_s = (last.occurred_at - self.recorded[0].occurred_at) / 1_000_000
        return Difference(sequence=last.sequence, at_s=at_s, recorded=then, now=_with_input(now, then, recorded, made))

    def _words(self, event: saga_pb2.Event, teller: Storyteller, *, is_told: bool) -> str:
        rows = teller.rows_of(event) if is_told else Storyteller({}, lambda _: "").rows_of(event)
        return "; ".join(_row_text(row) for row in rows)

    def _message(self, event: Event) -> saga_pb2.Event:
        return saga_pb2.Event.FromString(encode_event(SagaId(self.history.saga.id), event))


_ENDED: Final = (saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED)


def _decoded(history: History) -> list[Event]:
    try:
        events = [event_of(message) for message in history.events]
    except ValueError as error:
        raise HistoryError(f"{history.title}: {error}") from error
    if [event.sequence for event in events] != list(range(1, len(events) + 1)) or not events or not isinstance(events[0].fact, SagaStarted):
        raise HistoryError(f"{history.title}: expected all events from the first one on, found {[event.sequence for event in events][:5]}…")
    return events


def _without_times(fact: Any) -> Any:
    """The fact as far as it says what is to happen. Words for people, versions and traces say nothing of that."""
    changes: dict[str, Any] = {field.name: None for field in fields(fact) if field.name in _TIMES}
    if isinstance(fact, SagaStarted):
        changes |= {"definition": None, "trace": NO_TRACE, "labels": tuple(sorted(fact.labels))}
    if isinstance(fact, IncidentOpened):
        changes["failure"] = Failure(fact.failure.code, "")
    return replace(fact, **changes)


def _row_text(row: TimelineRow) -> str:
    return f"{row.step} {row.what}".strip()


def _with_input(now: str, then: str, recorded: Event | None, made: Event | None) -> str:
    """Where the words are the same, it is an input that is not."""
    if now != then or recorded is None or made is None:
        return now
    due = [each.step_id for each in made.reached if isinstance(each, (StepDue, StepUnfit))]
    return f"{now}, with another input for {' or '.join(due)}" if due else f"{now}, with other content"


def _shift(then: Instant | None, now: Instant | None) -> str:
    if then is None or now is None:
        return "unset" if now is None else "set"
    return f"{(now - then) / 1_000_000:+.3f} s"
