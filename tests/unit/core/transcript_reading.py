"""Reads the stories of `transcript`: their plans and what happens."""

from dataclasses import replace
from typing import Final

from coordinator.core.inputs import (
    Accepted,
    Acknowledge,
    Cancel,
    ChangePolicy,
    Compensated,
    CompleteStep,
    Heartbeat,
    Input,
    KeyExpired,
    Misconfigured,
    Mismatched,
    NotSent,
    Outcome,
    Pause,
    PolicyChange,
    Recover,
    Rejected,
    Replied,
    Resolution,
    ResolvedCompensated,
    ResolvedRejected,
    ResolvedSkipped,
    ResolvedSucceeded,
    ResolveOutput,
    ResolveStep,
    Resume,
    RetryLater,
    RetryStep,
    Start,
    Succeeded,
    Terminate,
    Unknown,
    Wake,
)
from coordinator.core.plan import RetryPolicy, SagaPlan, StepPlan
from coordinator.core.values import MICROS_PER_SECOND, AttemptKey, Direction, Failure, Instant, Payload, StepId, StepKind
from tests.builders import INPUT, TRACE, fails, failure, graph, hook, never, saga_input, step

RESOLUTIONS: Final[dict[str, Resolution]] = {
    "succeeded": ResolvedSucceeded(Payload("shop.v1.Done", b"said")),
    "skipped": ResolvedSkipped(),
    "rejected": ResolvedRejected(),
    "compensated": ResolvedCompensated(),
}
HOOKS: Final = ("on_success", "on_failure")
UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip


def read_plan(lines: list[str]) -> SagaPlan:
    steps: list[StepPlan] = []
    after: dict[str, list[str]] = {}
    said: set[str] = set()
    for words in (line.split() for line in lines):
        match words:
            case ["saga", *options]:
                said = set(options)
            case ["step", name, "after", before, *options]:
                steps.append(_read_step(name, options))
                after[name] = before.split(",")
            case ["step", name, *options]:
                steps.append(_read_step(name, options))
            case _:
                pass
    limit_s = next((read_seconds(option.removeprefix("limit=")) for option in said if option.startswith("limit=")), None)
    plan = graph(steps, after, limit_s=limit_s, output=fails if "output_fails" in said else None)
    retry = next((int(option.removeprefix("hook_retry=")) for option in said if option.startswith("hook_retry=")), 0)
    on_success, on_failure = (
        replace(hook(name), execute_retry=RetryPolicy(attempts_max=retry)) if name in said else None for name in HOOKS
    )
    return replace(plan, on_success=on_success, on_failure=on_failure)


def _read_step(name: str, options: list[str]) -> StepPlan:
    said = dict(option.partition("=")[::2] for option in options)
    kinds = {kind.name.lower(): kind for kind in StepKind}
    known = {*kinds, "when_false", "unfit", "no_undo", "retry", "undo", "timeout", "limit", "undo_limit"}
    assert said.keys() <= known, f"step {name}: expected {known}, found {said.keys()}"
    return step(
        name,
        kind=next((kind for word, kind in kinds.items() if word in said), StepKind.COMPENSATABLE),
        input=fails if "unfit" in said else saga_input,
        copies_input="unfit" not in said,
        when=never if "when_false" in said else None,
        is_compensated="no_undo" not in said,
        retry=RetryPolicy(attempts_max=int(said.get("retry", 0))),
        undo=RetryPolicy(attempts_max=int(said.get("undo", 0))),
        timeout_s=read_seconds(said.get("timeout", "10s")),
        limit_s=read_seconds(said.get("limit", "5m")),
        undo_limit_s=read_seconds(said.get("undo_limit", "1d")),
    )


def read_input(words: list[str]) -> Input:
    match words:
        case ["start"]:
            return Start(input=INPUT, trace=TRACE)
        case ["start", start_at]:
            return Start(input=INPUT, trace=TRACE, start_at=_instant(start_at.removeprefix("at=")))
        case ["reply", name, direction, number, *outcome]:
            round_, said = _read_round(outcome)
            attempt = AttemptKey(StepId(name), Direction[direction.upper()], round_, int(number))
            return Replied(attempt=attempt, outcome=_read_outcome(said))
        case ["wake"]:
            return Wake()
        case ["crash"]:
            return Recover()
        case _:
            return _read_command(words)


def _read_command(words: list[str]) -> Input:
    match words:
        case ["cancel", who]:
            return Cancel(actor=who)
        case ["pause", who]:
            return Pause(actor=who)
        case ["resume", who]:
            return Resume(actor=who)
        case ["terminate", who]:
            return Terminate(actor=who)
        case _:
            return _read_repair(words)


def _read_repair(words: list[str]) -> Input:
    match words:
        case ["retry", name, *given]:
            return RetryStep(step_id=StepId(name), input=Payload("shop.v1.PlaceOrder", b"other") if given else None)
        case ["resolve", name, resolution]:
            return ResolveStep(step_id=StepId(name), resolution=RESOLUTIONS[resolution])
        case ["policy", name, attempts]:
            return ChangePolicy(step_id=StepId(name), change=PolicyChange(execute_retry=RetryPolicy(attempts_max=int(attempts))))
        case ["acknowledge", number]:
            return Acknowledge(incident_id=int(number))
        case ["output"]:
            return ResolveOutput(output=Payload("shop.v1.Done", b"said"))
        case ["complete", name, *said]:
            round_, outcome = _read_round(said)
            result = _read_outcome(outcome)
            assert isinstance(result, Succeeded | Rejected)
            return CompleteStep(step_id=StepId(name), round=round_, result=result)
        case ["beat", name, *said]:
            progress = Payload("shop.v1.Progress", b"half") if said[-1:] == ["progress"] else None
            limits = [word for word in said if word != "progress"]
            limit_us = _instant(limits[0]) if limits else None
            return Heartbeat(step_id=StepId(name), round=1, time_limit_us=limit_us, progress=progress)
        case _:
            raise ValueError(f"no input is written {' '.join(words)!r}")


def _read_round(words: list[str]) -> tuple[int, list[str]]:
    if words[0].startswith("round="):
        return int(words[0].removeprefix("round=")), words[1:]
    return 1, words


def _read_outcome(words: list[str]) -> Outcome:
    match words:
        case ["succeeded"]:
            return Succeeded(output=Payload("shop.v1.Done", b"done"))
        case ["rejected", code, *sealed]:
            return Rejected(failure=_failure(code), sealed=sealed == ["sealed"])
        case ["later", delay]:
            return RetryLater(failure=_failure("UNAVAILABLE"), delay_us=_instant(delay))
        case ["accepted", limit]:
            return Accepted(time_limit_us=_instant(limit))
        case ["mismatched"]:
            return Mismatched(failure=_failure("FAILED_PRECONDITION"))
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
    return failure(CODES.index(code))


def read_seconds(text: str) -> float:
    return float(text[:-1]) * UNITS_S[text[-1]]


def _instant(text: str) -> Instant:
    return Instant(round(read_seconds(text) * MICROS_PER_SECOND))
