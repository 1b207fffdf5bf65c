"""Stories whose committed facts are shown to observers, as the engine shows them, and the spans that came of it as comparable values."""

from collections.abc import Mapping
from typing import NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from coordinator.core.events import Fact
from coordinator.core.inputs import Input, NotSent, Outcome, Recover, Replied, Start
from coordinator.core.plan import SagaPlan, StepPlan
from coordinator.core.trace import start_trace
from coordinator.core.values import Direction, SagaId, StepId, TraceContext
from coordinator.engine.ports import Append, Observer
from coordinator.telemetry.spans import SpanObserver
from tests.builders import EXECUTE, INPUT, SAGA, Story, at, attempt, saga_input

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RESOURCE = Resource({"service.name": "coordinator-under-test"})


class Recorder(SpanProcessor):
    """Keeps what it is handed."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class Observed:
    """A story and its observers. A crash takes the observers' memory too: a new process makes new ones."""

    def __init__(self, plan: SagaPlan, *observers: Observer, saga_id: SagaId = SAGA) -> None:
        self.story = Story(plan, saga_id)
        self.recorder = Recorder()
        self.extra_observers = observers
        self.spans_observer = SpanObserver(self.recorder, RESOURCE)
        self._uncommitted: list[Append] = []

    @property
    def spans(self) -> list[ReadableSpan]:
        return self.recorder.spans

    def feed(self, happened: Input, when: float) -> tuple[Fact, ...]:
        facts = self.decide(happened, when)
        self.commit()
        return facts

    def decide(self, happened: Input, when: float) -> tuple[Fact, ...]:
        """Something happens, and is not committed yet: observers are shown a state that is ahead of it if something more happens first."""
        facts = self.story.feed(happened, when)
        if facts:
            state, events = self.story.state, tuple(self.story.journal[-len(facts) :])
            assert state.status is not None
            self._uncommitted.append(
                Append(
                    saga_id=state.saga_id,
                    events=events,
                    status=state.status,
                    is_unfinished=state.is_unfinished,
                    is_paused=state.paused is not None,
                    has_ended=state.has_ended,
                    wake_at=None,
                )
            )
        return facts

    def commit(self) -> None:
        """Shows the observers what has happened since the last time."""
        for append in self._uncommitted:
            for observer in (self.spans_observer, *self.extra_observers):
                observer.committed(append, self.story.plan, self.story.state)
        self._uncommitted.clear()

    def start(self, when: float = 0, *, trace: TraceContext | None = None, start_at: float | None = None) -> None:
        begin = None if start_at is None else at(start_at)
        self.feed(Start(input=INPUT, start_at=begin, trace=trace or start_trace(SAGA, CALLER, "", sample=True)), when)

    def reply(self, step_id: str, outcome: Outcome, *, sent: float, ended: float, direction: Direction = EXECUTE) -> None:
        """The call that is owed ends."""
        self.decide_reply(step_id, outcome, sent=sent, ended=ended, direction=direction)
        self.commit()

    def decide_reply(self, step_id: str, outcome: Outcome, *, sent: float, ended: float, direction: Direction = EXECUTE) -> None:
        """The call that is owed ends, and that is not committed yet."""
        step = self.story.state.step(self.story.plan, StepId(step_id))
        call = None if step is None else step.execute if direction is EXECUTE else step.compensate
        assert call is not None, f"{step_id} never owed {direction.name}"
        owed = attempt(step_id, call.number + 1, direction, call.round)
        self.decide(Replied(attempt=owed, outcome=outcome, sent_at=None if isinstance(outcome, NotSent) else at(sent)), ended)

    def crash(self) -> None:
        self.story.crash()
        self.spans_observer = SpanObserver(self.recorder, RESOURCE)

    def recover(self, when: float) -> None:
        self.crash()
        self.feed(Recover(), when)


class Moment(NamedTuple):
    """An event on a span."""

    name: str
    at_us: int
    attributes: Mapping[str, object]


class Seen(NamedTuple):
    """Everything that a span says, comparable as a whole. Ids are numbers, instants microseconds."""

    name: str
    kind: str
    trace_id: int
    span_id: int
    parent_id: int | None
    parent_is_remote: bool
    start_us: int
    end_us: int
    error: str | None
    """Description of the error status; None: the status is unset."""
    attributes: dict[str, object]
    moments: tuple[Moment, ...] = ()
    linked_ids: tuple[int, ...] = ()


def seen(span: ReadableSpan) -> Seen:
    context, start, end = span.get_span_context(), span.start_time, span.end_time
    assert context is not None
    assert start is not None
    assert end is not None
    assert context.trace_flags.sampled, "processors drop spans that are not sampled"
    return Seen(
        name=span.name,
        kind=span.kind.name,
        trace_id=context.trace_id,
        span_id=context.span_id,
        parent_id=None if span.parent is None else span.parent.span_id,
        parent_is_remote=span.parent is not None and span.parent.is_remote,
        start_us=start // 1_000,
        end_us=end // 1_000,
        error=None if span.status.is_unset else str(span.status.description),
        attributes=dict(span.attributes or {}),
        moments=tuple(Moment(event.name, event.timestamp // 1_000, dict(event.attributes or {})) for event in span.events),
        linked_ids=tuple(link.context.span_id for link in span.links),
    )


def shop_step(step_id: str, action: str) -> StepPlan:
    return StepPlan(id=StepId(step_id), action=action, input=saga_input)
