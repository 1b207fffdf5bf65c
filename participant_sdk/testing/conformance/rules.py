"""The rules, each with a check that calls the participant as a coordinator would after a crash, a lost reply or a delay.

Only what is answered can be seen. An effect that happens twice behind one and the same answer cannot.
"""

import asyncio
from typing import Final

from google.protobuf.any_pb2 import Any as PackedAny

from participant_sdk.definitions.message_types import MessageTypes, UnusableDescriptorsError
from participant_sdk.testing.conformance.frame_rules import FRAME_RULES
from participant_sdk.testing.conformance.replies import Kind
from participant_sdk.testing.conformance.trial import (
    CONCURRENT,
    GRACE_S,
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

LATE_S: Final = 1.0
"""Work that outlives its deadline is looked for so long afterwards."""
OVERSIZED_BYTES: Final = 5 << 20
"""More than the 4 MiB that gRPC takes unless it is told otherwise."""
NO_SUCH_ACTION: Final = "conformance-no-such-action"
_RUBBISH: Final = b"\xff\xff\xff\xff"
"""No protobuf message of any type begins like this."""
_PADDING_TAG: Final = b"\xfa\xff\xff\xff\x0f"
"""Of a field with the number 2**29 - 1, bytes, that no message has: it is valid, and ignored."""


async def _describe(trial: Trial) -> str:
    described = trial.description
    assert described is not None, "not called without one"
    name = trial.line.action.partition(".")[2]
    action = next(action for action in described.actions if action.name == name)
    try:
        types = MessageTypes(described.descriptors)
    except UnusableDescriptorsError as error:
        raise RuleBrokenError(f"expected descriptors that can be used; {error}") from error
    hidden = [name for name in (action.input_type, action.output_type) if types.find_descriptor(name) is None]
    if hidden:
        raise RuleBrokenError(f"expected descriptors of all its message types, found none of {' and '.join(hidden)}")
    if trial.line.input.TypeName() != action.input_type:
        raise RuleBrokenError(f"expected an action that takes a {trial.line.input.TypeName()}, found one of {action.input_type}")
    _, reply = await trial.executed()
    if reply.kind is Kind.SUCCEEDED and isinstance(reply.response, participant_pb2.ExecuteResponse):
        found = reply.response.succeeded.output.TypeName()
        if found != action.output_type:
            raise RuleBrokenError(f"expected a {action.output_type}, as it describes itself, found a {found or 'payload without a type'}")
    promised = participant_pb2.Guarantee.Name(described.guarantee).removeprefix("GUARANTEE_")
    return f"({action.input_type}) -> {action.output_type}, {promised}"


async def _duplicate_execute(trial: Trial) -> str:
    step, first = await trial.executed()
    for _ in range(2):
        expect_same(first, await step.execute_to_the_end())
    return f"three times {first}"


async def _concurrent_duplicates(trial: Trial) -> str:
    step = trial.new_step()
    first, *others = await asyncio.gather(*(step.execute_to_the_end() for _ in range(CONCURRENT)))
    expect(first.took_effect, "a new step to take effect", first)
    for other in others:
        expect_same(first, other)
    expect_same(first, await step.execute_to_the_end())
    return f"{CONCURRENT} times {first}"


async def _compensate_before_execute(trial: Trial) -> str:
    reply = await trial.new_step().compensate_to_the_end()
    expect_compensated(reply, "that was never executed")
    return "there was nothing to undo, and it says COMPENSATED"


async def _execute_after_compensate(trial: Trial) -> str:
    never_executed = trial.new_step()
    expect_compensated(await never_executed.compensate_to_the_end(), "that was never executed")
    refused = await never_executed.execute_to_the_end()
    expect_refused(refused, "that comes after its compensation")
    undone, _ = await trial.executed()
    expect_compensated(await undone.compensate_to_the_end(), "that took effect")
    expect_refused(await undone.execute_to_the_end(), "that was executed, then compensated")
    return str(refused)


async def _compensate_twice(trial: Trial) -> str:
    step, _ = await trial.executed()
    first = await step.compensate_to_the_end()
    expect_compensated(first, "that took effect")
    if not handler_ran(first):
        raise RuleBrokenError(
            "expected that a step that took effect is undone, found that there was nothing to undo (handler_ran is false)"
        )
    for _ in range(2):
        expect_compensated(await step.compensate_to_the_end(), "that is compensated already")
    return "three times COMPENSATED"


async def _deadline(trial: Trial) -> str:
    """A step that is repeated after its deadline, and one that is undone after it: as a coordinator does with what it does not know."""
    repeated, undone = trial.new_step(), trial.new_step()
    seen = await repeated.execute(time_left_s=trial.deadline_s)
    answer = await repeated.execute_to_the_end()
    expect(answer.took_effect, f"a step to take effect after an attempt of {trial.deadline_s:g} s was cut short", answer)
    expect_same(answer, await repeated.execute_to_the_end())
    if seen.took_effect:
        expect_same(seen, answer)
    if trial.is_compensatable:
        await undone.execute(time_left_s=trial.deadline_s)
        await asyncio.sleep(GRACE_S)  # as a coordinator waits
        expect_compensated(await undone.compensate_to_the_end(), f"whose deadline had passed for {GRACE_S:g} s")
        await asyncio.sleep(LATE_S)  # work that did not end with its deadline may end now
        expect_refused(await undone.execute_to_the_end(), "that was compensated after its deadline")
    return f"within {trial.deadline_s:g} s: {seen.kind}; then {answer.kind}"


async def _garbage_input(trial: Trial) -> str:
    given, participant = trial.line.input, trial.line.action.partition(".")[0]
    rubbish = PackedAny(type_url=given.type_url, value=_RUBBISH)
    other = PackedAny(type_url="type.googleapis.com/conformance.Other", value=given.value)
    wrong: list[str] = []
    for what, step, action in (
        ("bytes that are no message", trial.new_step(rubbish), ""),
        ("a message of another type", trial.new_step(other), ""),
        ("an action that is not there", trial.new_step(), f"{participant}.{NO_SUCH_ACTION}"),
    ):
        reply = await step.execute(action=action)
        if reply.kind is not Kind.REJECTED and not (action and reply.kind is Kind.MISCONFIGURED):
            wrong.append(f"{what}: {reply}")
    if wrong:
        raise RuleBrokenError(f"expected a refusal, as INVALID_ARGUMENT, or UNIMPLEMENTED for an action; found for {'; for '.join(wrong)}")
    return "all refused"


async def _oversized_input(trial: Trial) -> str:
    padded = trial.line.input.value + _PADDING_TAG + _varint(OVERSIZED_BYTES) + bytes(OVERSIZED_BYTES)
    step = trial.new_step(PackedAny(type_url=trial.line.input.type_url, value=padded))
    reply = await step.execute()
    if not reply.took_effect:
        step.input = trial.line.input  # with the other one its undo would not get there either
    expect(not reply.is_timeout, f"an answer to {OVERSIZED_BYTES >> 20} MiB", reply)
    after = await trial.new_step().execute_to_the_end()
    expect(after.took_effect, f"a usual step to take effect after {OVERSIZED_BYTES >> 20} MiB were sent", after)
    return f"{reply}; it goes on serving"


async def _restart(trial: Trial) -> str:
    assert trial.restart is not None, "not called without one"
    step, first = await trial.executed()
    await trial.restart()
    expect_same(first, await step.execute_to_the_end())
    if not trial.is_compensatable:
        return f"the same answer before and after: {first}"
    reply = await step.compensate_to_the_end()
    expect_compensated(reply, "that took effect before the restart")
    if not handler_ran(reply):
        raise RuleBrokenError("expected it to undo what took effect before the restart, found that there was nothing to undo")
    expect_refused(await step.execute_to_the_end(), "that was executed before the restart and compensated after it")
    return "the same answer before and after, and it was undone"


RULES: Final = (
    Rule(name="describe", title="It is what it says of itself", cites=("R9", "R23"), check=_describe, ways=(Way.ONE_BY_ONE,)),
    Rule(name="duplicate-execute", title="A repeated call gets the same answer", cites=("R1", "R18"), check=_duplicate_execute),
    Rule(name="concurrent-duplicates", title="Calls at once get one answer", cites=("R22",), check=_concurrent_duplicates),
    Rule(
        name="compensate-before-execute",
        title="What never took effect is undone by doing nothing",
        cites=("R8", "R18"),
        check=_compensate_before_execute,
        needs_compensation=True,
    ),
    Rule(
        name="execute-after-compensate",
        title="What is undone does not take effect any more",
        cites=("R12", "R18"),
        check=_execute_after_compensate,
        needs_compensation=True,
    ),
    Rule(
        name="compensate-twice",
        title="A repeated undo is no error",
        cites=("R8", "R18"),
        check=_compensate_twice,
        needs_compensation=True,
    ),
    Rule(name="deadline", title="Nothing happens after the deadline", cites=("R12", "R18"), check=_deadline),
    Rule(name="garbage-input", title="Garbage is refused", cites=("R6",), check=_garbage_input),
    Rule(name="oversized-input", title="It survives an oversized input", cites=("R6",), check=_oversized_input),
    Rule(name="restart", title="It remembers across a restart", cites=("R18", "R20"), check=_restart, needs_restart=True),
    *FRAME_RULES,
)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
