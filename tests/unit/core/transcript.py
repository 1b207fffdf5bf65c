"""Stories as text: reads a plan and what happens to a saga, and writes down what the core made of it.

    saga limit=60s
    step reserve retry=3 timeout=10s limit=5m undo=2 undo_limit=1d read_only
    step charge after reserve

    0s > start
      1 SagaStarted deadline=60s
      RUNNING
      owes reserve execute#1
      wakes 60s
    1s > reply reserve execute 1 succeeded
    ...

A line with `>` is an input: start [at=60s], reply STEP DIRECTION NUMBER OUTCOME [CODE | DELAY] [sealed], wake, cancel WHO, crash.
Lines indented below it are written by the test: events with their sequence, the status of the saga, and what it owes from then on.
Everything else is kept as it stands.
"""

from collections.abc import Iterator
from typing import Final, assert_never

from coordinator.core.effects import OwedCall
from coordinator.core.errors import CommandRefusedError
from coordinator.core.events import (
    AttemptFailed,
    Event,
    Fact,
    IncidentOpened,
    SagaBegan,
    SagaCompensated,
    SagaCompleted,
    SagaFailed,
    SagaRecovered,
    SagaStarted,
    SagaTurnedBack,
    StepCompensated,
    StepCompensationFailed,
    StepRejected,
    StepSucceeded,
    StepUnknown,
)
from coordinator.core.inputs import (
    Cancel,
    Compensated,
    Input,
    KeyExpired,
    Misconfigured,
    NotSent,
    Outcome,
    Recover,
    Rejected,
    Replied,
    RetryLater,
    Start,
    Succeeded,
    Unknown,
    Wake,
)
from coordinator.core.pending import pending
from coordinator.core.plan import RetryPolicy, SagaPlan, StepPlan
from coordinator.core.values import MICROS_PER_SECOND, AttemptKey, Direction, Failure, Instant, Payload, StepId, StepKind
from tests.builders import INPUT, TRACE, Story, graph, step

UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip


def replayed(text: str) -> str:
    """The same story with what the core makes of it now."""
    told = [line for line in text.splitlines() if not line.startswith("  ")]
    story = Story(_read_plan(told))
    written: list[str] = []
    for line in told:
        written.append(line)
        if ">" in line and not line.startswith("#"):
            written.extend(f"  {said}" for said in _happens(story, line))
    return "\n".join(written) + "\n"


def _happens(story: Story, line: str) -> Iterator[str]:
    when_text, _, what = line.partition(" > ")
    words = what.split()
    when = _seconds(when_text)
    before = story.owed_calls(), story.wake_at()
    known = len(story.journal)
    if words[0] == "crash":
        story.crash()
    try:
        story.feed(_read_input(words), when)
    except CommandRefusedError as refused:
        yield f"refused: {refused.status.name}"
    for event in story.journal[known:]:
        yield _write_event(event)
    if len(story.journal) == known:
        yield "nothing"
    assert story.status is not None
    yield story.status.name
    if (story.owed_calls(), story.wake_at()) != before or words[0] == "crash":
        yield from _write_owed(story)


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_plan(lines: list[str]) -> SagaPlan:
    steps: list[StepPlan] = []
    after: dict[str, list[str]] = {}
    limit_s: float | None = None
    for words in (line.split() for line in lines):
        match words:
            case ["saga", *options]:
                limit_s = _read_limit(options)
            case ["step", name, "after", before, *options]:
                steps.append(_read_step(name, options))
                after[name] = before.split(",")
            case ["step", name, *options]:
                steps.append(_read_step(name, options))
            case _:
                pass
    return graph(steps, after, limit_s=limit_s)


def _read_limit(options: list[str]) -> float | None:
    return next((_seconds(option.removeprefix("limit=")) for option in options), None)


def _read_step(name: str, options: list[str]) -> StepPlan:
    said = dict(option.partition("=")[::2] for option in options)
    known = {"read_only", "retry", "undo", "timeout", "limit", "undo_limit"}
    assert said.keys() <= known, f"step {name}: expected {known}, found {said.keys()}"
    return step(
        name,
        kind=StepKind.READ_ONLY if "read_only" in said else StepKind.COMPENSATABLE,
        retry=RetryPolicy(attempts_max=int(said.get("retry", 0))),
        undo=RetryPolicy(attempts_max=int(said.get("undo", 0))),
        timeout_s=_seconds(said.get("timeout", "10s")),
        limit_s=_seconds(said.get("limit", "5m")),
        undo_limit_s=_seconds(said.get("undo_limit", "1d")),
    )


def _read_input(words: list[str]) -> Input:
    match words:
        case ["start"]:
            return Start(input=INPUT, trace=TRACE)
        case ["start", start_at]:
            return Start(input=INPUT, trace=TRACE, start_at=_instant(start_at.removeprefix("at=")))
        case ["reply", name, direction, number, *outcome]:
            attempt = AttemptKey(StepId(name), Direction[direction.upper()], 1, int(number))
            return Replied(attempt=attempt, outcome=_read_outcome(outcome))
        case ["wake"]:
            return Wake()
        case ["cancel", who]:
            return Cancel(actor=who)
        case ["crash"]:
            return Recover()
        case _:
            raise ValueError(f"no input is written {' '.join(words)!r}")


def _read_outcome(words: list[str]) -> Outcome:
    match words:
        case ["succeeded"]:
            return Succeeded(output=Payload("shop.v1.Done", b"done"))
        case ["rejected", code, *sealed]:
            return Rejected(failure=_failure(code), sealed=sealed == ["sealed"])
        case ["later", delay]:
            return RetryLater(failure=_failure("UNAVAILABLE"), delay_us=_instant(delay))
        case ["unknown", code]:
            return Unknown(failure=_failure(code))
        case ["misconfigured", code]:
            return Misconfigured(failure=_failure(code))
        case ["not_sent"]:
            return NotSent(failure=_failure("UNAVAILABLE"))
        case ["key_expired"]:
            return KeyExpired(failure=_failure("FAILED_PRECONDITION"))
        case ["compensated", *nothing_done]:
            return Compensated(handler_ran=not nothing_done)
        case _:
            raise ValueError(f"no outcome is written {' '.join(words)!r}")


def _failure(code: str) -> Failure:
    return Failure(CODES.index(code), "")


def _seconds(text: str) -> float:
    return float(text[:-1]) * UNITS_S[text[-1]]


def _instant(text: str) -> Instant:
    return Instant(round(_seconds(text) * MICROS_PER_SECOND))


# ── Writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write_event(event: Event) -> str:
    said = _write_fact(event.fact)
    return f"{event.sequence} {type(event.fact).__name__}{' ' if said else ''}{said}"


def _write_fact(fact: Fact) -> str:
    match fact:
        case SagaStarted(start_at=start_at, deadline=deadline):
            return " ".join(_write_instants(start_at=start_at, deadline=deadline))
        case AttemptFailed(attempt=attempt, outcome=outcome, failure=failure, retry_at=retry_at):
            return f"{_write_attempt(attempt)} {outcome.name} {CODES[failure.code]} retry_at={_write_instant(retry_at)}"
        case StepSucceeded(attempt=attempt):
            return _write_attempt(attempt)
        case StepRejected(attempt=attempt, failure=failure, sealed=sealed):
            return f"{_write_attempt(attempt)} {CODES[failure.code]}{' sealed' if sealed else ''}"
        case StepUnknown(attempt=attempt, failure=failure) | StepCompensationFailed(attempt=attempt, failure=failure):
            return f"{_write_attempt(attempt)} {CODES[failure.code]}"
        case SagaTurnedBack(cause=cause, quiet_at=quiet_at, step_id=step_id, actor=actor):
            by = f" step={step_id}" if step_id else f" actor={actor}" if actor else ""
            return f"{cause.name}{by} quiet_at={_write_instant(quiet_at)}"
        case StepCompensated(attempt=attempt, handler_ran=handler_ran):
            return f"{_write_attempt(attempt)}{'' if handler_ran else ' nothing to undo'}"
        case IncidentOpened(id=number, kind=kind, step_id=step_id):
            return f"#{number} {kind.name} step={step_id}"
        case SagaRecovered(in_doubt=in_doubt):
            return "in_doubt: " + ", ".join(_write_attempt(attempt) for attempt in in_doubt)
        case SagaBegan() | SagaCompleted() | SagaCompensated() | SagaFailed():
            return ""
        case _:
            assert_never(fact)


def _write_owed(story: Story) -> Iterator[str]:
    owed = pending(story.plan, story.state)
    yield from (_write_owed_call(call, story.state.updated_at) for call in owed.calls)
    if owed.wake_at is not None:
        yield f"wakes {_write_instant(owed.wake_at)}"
    if not owed.calls and owed.wake_at is None:
        yield "owes nothing"


def _write_owed_call(call: OwedCall, now: Instant) -> str:
    later = f" not_before={_write_instant(call.not_before)}" if call.not_before > now else ""
    return f"owes {_write_attempt(call.attempt)}{later}"


def _write_attempt(attempt: AttemptKey) -> str:
    return f"{attempt.step_id} {attempt.direction.name.lower()}#{attempt.number}"


def _write_instants(**instants: Instant | None) -> Iterator[str]:
    return (f"{name}={_write_instant(instant)}" for name, instant in instants.items() if instant is not None)


def _write_instant(instant: Instant) -> str:
    return f"{instant / MICROS_PER_SECOND:.6f}".rstrip("0").rstrip(".") + "s"
