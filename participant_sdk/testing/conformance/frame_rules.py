"""The rules of `Exchange`: calls in frames on a stream mean what they mean by themselves, and none gets lost among the others."""

import asyncio
from collections.abc import Sequence
from typing import Final

import grpc

from participant_sdk.testing.conformance.calls import Step
from participant_sdk.testing.conformance.replies import Kind, Reply
from participant_sdk.testing.conformance.streams import Stream
from participant_sdk.testing.conformance.trial import (
    CONCURRENT,
    GRACE_S,
    Check,
    Rule,
    RuleBrokenError,
    Trial,
    expect,
    expect_compensated,
    expect_refused,
    expect_same,
    handler_ran,
)
from participant_sdk.testing.conformance.ways import Way
from saga.v1 import participant_pb2

FRAME_BYTES_MAX: Final = 1024 * 1024
"""A frame with more than one message is not larger."""
_EMPTY_CALLS: Final = 512
_EMPTY_FRAMES: Final = 4
_UNHEARD_OF: Final = 2**40
"""An id that no call has."""
_TRACES: Final = (
    ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=value"),
    ("", ""),
    ("no trace context at all", "\x00"),
)
_INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def _replies(trial: Trial) -> str:
    """Executions of new steps, and undos of steps that were never executed, all in one frame."""
    steps = [trial.new_step() for _ in range(CONCURRENT)]
    undone = [trial.new_step() for _ in range(CONCURRENT)] if trial.is_compensatable else []
    async with Stream(trial.stub) as stream:
        numbers = await stream.send(*(_execute(trial, step) for step in steps), *map(_compensate, undone))
        for number in numbers:
            await stream.replies_to(number, trial.line.timeout_s)
        await _expect_end(trial, stream)
        answers = [await _expect_one(stream, number) for number in numbers]
    for step, answer in zip(steps, answers, strict=False):
        step.note_execution(answer)
        expect(not isinstance(answer.response, participant_pb2.CompensateResponse), "an answer to an execution", answer)
    for answer in answers[len(steps) :]:
        expect(not isinstance(answer.response, participant_pb2.ExecuteResponse), "an answer to a compensation", answer)
    await _expect_effects(steps)
    return f"{len(numbers)} calls in one frame, {len(numbers)} replies"


async def _ids(trial: Trial) -> str:
    """An id that is used twice, a call that asks for nothing, and then one as it should be."""
    step, second, last = trial.new_step(), trial.new_step(), trial.new_step()
    async with Stream(trial.stub) as stream:
        first_call, second_call = _execute(trial, step), _execute(trial, second)
        first_call.id = second_call.id = 1
        await stream.send(first_call, second_call)
        replies = await stream.replies_to(1, trial.line.timeout_s, count=2)
        refusals = [reply for reply in replies if _is_invalid(reply)]
        if len(replies) != 2 or len(refusals) != 1:
            found = " and ".join(map(str, replies)) or "nothing"
            raise RuleBrokenError(f"expected that the second of two calls with one id is refused as INVALID_ARGUMENT, found {found}")
        step.note_execution(next(reply for reply in replies if reply not in refusals))
        empty = await stream.ask(participant_pb2.ExchangeCall(), trial.line.timeout_s)
        expect(_is_invalid(empty), "INVALID_ARGUMENT for a call that asks for nothing", empty)
        after = last.note_execution(await stream.ask(_execute(trial, last), trial.line.timeout_s))
        expect(after.kind is not Kind.UNKNOWN, "the stream to go on after calls that are none", after)
    if trial.is_compensatable:
        undone = await second.compensate_to_the_end()
        expect_compensated(undone, "whose call was refused for its id")
        expect(not handler_ran(undone), "that a call which is refused for its id has no effect", undone)
    return "both refused; the stream goes on"


async def _forsaken(trial: Trial) -> str:
    """A step whose caller says at once that nobody waits any more, and one beside it."""
    step, other = trial.new_step(), trial.new_step()
    async with Stream(trial.stub) as stream:
        (number,) = await stream.send(_execute(trial, step))
        await stream.send(forsaken=[number, _UNHEARD_OF])
        beside = other.note_execution(await stream.ask(_execute(trial, other), trial.line.timeout_s))
        expect(beside.kind is not Kind.UNKNOWN, "an answer to the call after one that is forsaken", beside)
    answer = await step.execute_to_the_end()
    expect(answer.took_effect, "a step to take effect after a call of it was forsaken", answer)
    expect_same(answer, await step.execute_to_the_end())
    if trial.is_compensatable:
        expect_compensated(await step.compensate_to_the_end(), "that was forsaken, then executed")
        expect_refused(await step.execute_to_the_end(), "that was forsaken, executed, then compensated")
    return f"forsaken, then {answer.kind}; the call beside it {beside.kind}"


async def _end(trial: Trial) -> str:
    """Calls under way when their caller says that no more come."""
    steps = [trial.new_step() for _ in range(CONCURRENT)]
    async with Stream(trial.stub) as stream:
        numbers = await stream.send(*(_execute(trial, step) for step in steps))
        await _expect_end(trial, stream)
        for step, number in zip(steps, numbers, strict=True):
            step.note_execution(await _expect_one(stream, number))
    await _expect_effects(steps)
    return f"{CONCURRENT} calls answered after the end of the stream was said, then it ended"


async def _drain(trial: Trial) -> str:
    """Calls under way while the participant restarts."""
    assert trial.restart is not None, "not called without one"
    steps = [trial.new_step() for _ in range(CONCURRENT)]
    async with Stream(trial.stub) as stream:
        numbers = await stream.send(*(_execute(trial, step) for step in steps))
        described = participant_pb2.DescribeRequest(participant=trial.line.action.partition(".")[0])
        await trial.stub.Describe(described, timeout=trial.line.timeout_s)  # what left before it has arrived
        await trial.restart()
        answers = [await stream.replies_to(number, 0.0) for number in numbers]
        has_drained = stream.is_draining
    for step, replies in zip(steps, answers, strict=True):
        for reply in replies:
            step.note_execution(reply)
        if has_drained and not replies:
            raise RuleBrokenError("expected that a stream which drains answers every call that it has, found one without an answer")
        answer = await step.execute_to_the_end()
        expect(answer.took_effect, "a step to take effect after the stream of its call ended with a restart", answer)
        for reply in replies:
            if reply.took_effect:
                expect_same(reply, answer)
    answered = sum(map(bool, answers))
    return f"{'drained' if has_drained else 'broken off'}: {answered} of {CONCURRENT} answered, and all took effect"


async def _bounds(trial: Trial) -> str:
    """More answers at once than fit into a frame, if they are long."""
    async with Stream(trial.stub) as stream:
        numbers: list[int] = []
        for _ in range(_EMPTY_FRAMES):
            numbers += await stream.send(*(participant_pb2.ExchangeCall() for _ in range(_EMPTY_CALLS)))
        for number in numbers:
            await stream.replies_to(number, trial.line.timeout_s)
            await _expect_one(stream, number)
        if stream.frame_bytes_max > FRAME_BYTES_MAX:
            raise RuleBrokenError(f"expected frames of at most {FRAME_BYTES_MAX} bytes, found one of {stream.frame_bytes_max}")
        return f"{len(numbers)} refusals in frames of at most {stream.frame_bytes_max} bytes"


async def _time(trial: Trial) -> str:
    """A call with little time beside one with enough; nobody forsakes it."""
    short, long = trial.new_step(), trial.new_step()
    async with Stream(trial.stub) as stream:
        hasty = participant_pb2.ExchangeCall(execute=short.execute_request(trial.deadline_s))
        first, second = await stream.send(hasty, _execute(trial, long))
        ended = await stream.replies_to(first, trial.deadline_s + GRACE_S)
        short.was_executed = True  # nobody knows
        if not ended:
            raise RuleBrokenError(f"expected an answer of some kind when the {trial.deadline_s:g} s of a call are over, found none")
        short.note_execution(ended[0])
        await stream.replies_to(second, trial.line.timeout_s)
        beside = long.note_execution(await _expect_one(stream, second))
        expect(beside.kind is not Kind.UNKNOWN, "an answer to the call beside it", beside)
    return f"{ended[0].kind} within {trial.deadline_s:g} s, {beside.kind} beside it"


async def _trace(trial: Trial) -> str:
    """Calls with a trace context each, one of them rubbish."""
    steps = [trial.new_step() for _ in _TRACES]
    async with Stream(trial.stub) as stream:
        calls = [_execute(trial, step) for step in steps]
        for call, (traceparent, tracestate) in zip(calls, _TRACES, strict=True):
            call.traceparent, call.tracestate = traceparent, tracestate
        for step, number in zip(steps, await stream.send(*calls), strict=True):
            await stream.replies_to(number, trial.line.timeout_s)
            answer = step.note_execution(await _expect_one(stream, number))
            expect(answer.took_effect or answer.kind is Kind.RETRY_LATER, "a call to mean the same whatever its trace context", answer)
    await _expect_effects(steps)
    return "with one, without one, and with rubbish: all take effect"


def _rule(name: str, title: str, check: Check, *cites: str, needs_restart: bool = False) -> Rule:
    return Rule(name=f"exchange-{name}", title=title, cites=cites, check=check, ways=(Way.IN_FRAMES,), needs_restart=needs_restart)


FRAME_RULES: Final = (
    _rule("replies", "Every call of a frame gets a reply of its own", _replies, "R6"),
    _rule("ids", "A call that is none is refused, and no other with it", _ids, "R6"),
    _rule("forsaken", "A call that nobody waits for leaves no harm", _forsaken, "R12", "R18"),
    _rule("end", "Calls under way are answered when no more come", _end, "R6"),
    _rule("drain", "A restart leaves no call of a stream half done", _drain, "R6", "R18", needs_restart=True),
    _rule("bounds", "Frames are bounded", _bounds, "R6"),
    _rule("time", "Each call has its own time", _time, "R12"),
    _rule("trace", "Each call has its own trace context", _trace, "R6"),
)


def _execute(trial: Trial, step: Step) -> participant_pb2.ExchangeCall:
    return participant_pb2.ExchangeCall(execute=step.execute_request(trial.line.timeout_s))


def _compensate(step: Step) -> participant_pb2.ExchangeCall:
    return participant_pb2.ExchangeCall(compensate=step.compensate_request())


def _is_invalid(reply: Reply) -> bool:
    return reply.response is None and reply.status.code == _INVALID


async def _expect_one(stream: Stream, number: int) -> Reply:
    replies = await stream.replies_to(number, 0.0)
    if len(replies) != 1:
        raise RuleBrokenError(f"expected one reply to every call, found {len(replies)} to one of them")
    return replies[0]


async def _expect_end(trial: Trial, stream: Stream) -> None:
    await stream.end()
    if not await stream.wait_ended(trial.line.timeout_s):
        raise RuleBrokenError("expected the stream to end when its caller has ended it and every call is answered, found it open")
    if stream.error is not None:
        raise RuleBrokenError(f"expected the stream to end well, found {stream.error.code().name} {stream.error.details()}")


async def _expect_effects(steps: Sequence[Step]) -> None:
    """What was answered "later", or with an outcome that nobody knows, is asked again."""
    for step, answer in zip(steps, await asyncio.gather(*(step.execute_to_the_end() for step in steps)), strict=True):
        expect(answer.took_effect, "a new step to take effect", answer)
        if step.replies[0].took_effect:
            expect_same(step.replies[0], answer)
