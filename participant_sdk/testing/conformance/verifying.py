"""Goes through the rules for one action."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import Message

from participant_sdk.rpc_errors import from_rpc_error
from participant_sdk.testing.conformance.calls import Line
from participant_sdk.testing.conformance.replies import Reply
from participant_sdk.testing.conformance.report import (
    ConformanceError,
    ConformanceReport,
    Finding,
    ParticipantUnreachableError,
    Verdict,
)
from participant_sdk.testing.conformance.rules import RULES
from participant_sdk.testing.conformance.trial import Rule, RuleBrokenError, Trial
from participant_sdk.testing.conformance.ways import Caller, InFrames, OneByOne, Way
from saga.v1 import participant_pb2, participant_pb2_grpc

_UNLIMITED: Final = [("grpc.max_send_message_length", -1), ("grpc.max_reconnect_backoff_ms", 500)]
_LOOK_AGAIN_S: Final = 0.1
PATIENCE: Final = 3
"""A definite answer may take so many times as long as one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """How a participant is verified."""

    restart: Callable[[], Awaitable[None]] | None = None
    """Restarts the participant and returns when that is done; None: the rule of that name is not run."""
    is_compensatable: bool = True
    """Whether the action can be undone, unless the participant says so itself."""
    timeout: timedelta = timedelta(seconds=10)
    """For one call."""
    deadline: timedelta = timedelta(milliseconds=100)
    """Of the attempt that is to be cut short: shorter than the action takes, if you want to see that."""
    on_rule: Callable[[Rule], None] = lambda _: None
    """Told of each rule that begins."""


async def verify_participant(address: str, action: str, input: Message, options: VerifyOptions | None = None) -> ConformanceReport:  # noqa: A002
    """Calls an action of a participant as coordinators do in bad times, some hundred times, and says which rules it keeps.

    It has real effects, under sagas that no coordinator knows, and undoes them again as far as they can be undone.
    `action` is the participant's name, a dot and the action's name; `input` one that it accepts.

    Raises ParticipantUnreachableError if nobody answers at `address`, ConformanceError if the action is not there or refuses the input.
    """
    options = options or VerifyOptions()
    async with _opened(address) as stub, AsyncExitStack() as stack:
        described = await _described(stub, address, action.partition(".")[0], options.timeout)
        known = find_action(described, address, action)
        packed = PackedAny(type_url=f"type.googleapis.com/{input.DESCRIPTOR.full_name}", value=input.SerializeToString(deterministic=True))
        timeout_s = options.timeout.total_seconds()
        callers: dict[Way, Caller] = {Way.ONE_BY_ONE: OneByOne(stub), Way.IN_FRAMES: InFrames(stub, stack)}
        trials = [
            Trial(
                way=way,
                line=Line(caller=caller, action=action, input=packed, timeout_s=timeout_s, patience_s=PATIENCE * timeout_s),
                stub=stub,
                description=described,
                is_compensatable=options.is_compensatable if known is None else known.compensatable,
                deadline_s=options.deadline.total_seconds(),
                restart=options.restart and partial(_restart, options.restart, stub, address, PATIENCE * options.timeout),
            )
            for way, caller in callers.items()
        ]
        await _try_out(trials[0], address)
        left_behind, findings = await _undo(trials[0]), []
        for rule in RULES:
            options.on_rule(rule)
            for trial in trials:
                if trial.way in rule.ways:
                    findings.append(await _judge(rule, trial))
                    left_behind += await _undo(trial)
        return ConformanceReport(address=address, action=action, findings=findings, left_behind=left_behind)


async def describe_participant(
    address: str, participant: str, within: timedelta = timedelta(seconds=10)
) -> participant_pb2.ParticipantDescription | None:
    """What it says of itself; None if it does not serve Describe, which it need not.

    Raises ParticipantUnreachableError if nobody answers, ConformanceError if it answers with an error.
    """
    async with _opened(address) as stub:
        return await _described(stub, address, participant, within)


@asynccontextmanager
async def _opened(address: str) -> "AsyncIterator[participant_pb2_grpc.ParticipantServiceAsyncStub]":
    async with grpc.aio.insecure_channel(address, options=_UNLIMITED) as channel:
        yield participant_pb2_grpc.ParticipantServiceStub(channel)


async def _described(
    stub: "participant_pb2_grpc.ParticipantServiceAsyncStub", address: str, participant: str, within: timedelta
) -> participant_pb2.ParticipantDescription | None:
    try:
        response = await stub.Describe(participant_pb2.DescribeRequest(participant=participant), timeout=within.total_seconds())
    except grpc.aio.AioRpcError as error:
        status = from_rpc_error(error)
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return None
        if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
            raise ParticipantUnreachableError(
                f"nobody answers at {address}: {status.message}; is the participant running there?"
            ) from error
        raise ConformanceError(f"{participant} at {address} does not describe itself: {error.code().name} {status.message}") from error
    return response.description


def find_action(
    described: participant_pb2.ParticipantDescription | None, address: str, action: str
) -> participant_pb2.ActionDescription | None:
    """What is said of an action; None if nothing is said of any. Raises ConformanceError if it is not among those that are."""
    if described is None:
        return None
    name = action.partition(".")[2]
    found = next((each for each in described.actions if each.name == name), None)
    if found is None:
        known = ", ".join(f"{described.name}.{each.name}" for each in described.actions)
        raise ConformanceError(f"expected an action {action} at {address}, found {known or 'none'}")
    return found


async def _try_out(trial: Trial, address: str) -> None:
    """Whether the input does at all."""
    reply: Reply = await trial.new_step().execute_to_the_end()
    if not reply.took_effect:
        raise ConformanceError(
            f"expected {trial.line.action} at {address} to take effect with the input given, found {reply}; pass an input that it accepts"
        )


async def _judge(rule: Rule, trial: Trial) -> Finding:
    verdict, seen = Verdict.KEPT, ""
    if trial.way is Way.IN_FRAMES and not trial.serves_exchange:
        verdict, seen = Verdict.DOES_NOT_APPLY, "it does not say that it serves Exchange, and need not"
    elif rule.needs_compensation and not trial.is_compensatable:
        verdict, seen = Verdict.DOES_NOT_APPLY, "it cannot be compensated, as it says itself"
    elif rule.name == "describe" and trial.description is None:
        verdict, seen = Verdict.DOES_NOT_APPLY, "it does not serve Describe, and need not"
    elif rule.needs_restart and trial.restart is None:
        verdict, seen = Verdict.NOT_RUN, "say how it is restarted: --restart"
    else:
        try:
            seen = await rule.check(trial)
        except RuleBrokenError as error:
            verdict, seen = Verdict.BROKEN, str(error)
    return Finding(rule=rule.name, title=rule.title, cites=rule.cites, way=trial.way, verdict=verdict, seen=seen)


async def _restart(
    restart: Callable[[], Awaitable[None]], stub: "participant_pb2_grpc.ParticipantServiceAsyncStub", address: str, within: timedelta
) -> None:
    """Restarts it, and waits until it answers again."""
    await restart()
    until = time.monotonic() + within.total_seconds()
    while True:
        try:
            await _described(stub, address, "", within)
        except ParticipantUnreachableError as error:
            if time.monotonic() >= until:
                raise ConformanceError(
                    f"expected it to answer again within {within.total_seconds():g} s of its restart; {error}"
                ) from error
            await asyncio.sleep(_LOOK_AGAIN_S)
        except ConformanceError:
            return  # an answer, of whatever kind
        else:
            return


async def _undo(trial: Trial) -> int:
    """Undoes what a rule has left; returns how many effects may have stayed."""
    left = [step for step in trial.steps if step.was_executed]
    trial.steps.clear()
    if trial.is_compensatable:
        for step in left:
            await step.compensate_to_the_end()
    return sum(step.was_executed for step in left)
