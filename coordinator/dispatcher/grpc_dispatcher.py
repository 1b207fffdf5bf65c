"""Sends calls to participants over gRPC and turns whatever comes back into outcomes."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import grpc

from coordinator.codec.calls import compensate_request, execute_request
from coordinator.codec.outcomes import outcome_of_compensation, outcome_of_execution, outcome_of_status
from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import NotSent, Outcome, Replied, Unknown
from coordinator.core.trace import attempt_traceparent
from coordinator.core.values import MICROS_PER_SECOND, AttemptKey, Code, Direction, Failure, Instant, SagaId
from coordinator.dispatcher.channels import Channels
from coordinator.dispatcher.lane import Lane
from coordinator.dispatcher.registry import ParticipantRegistry
from coordinator.engine.ports import Clock, ReplyListener
from participant_sdk.rpc_errors import from_rpc_error
from saga.v1 import participant_pb2

DESCRIBE_TIMEOUT_S: Final = 2.0

_logger = logging.getLogger(__name__)


class GrpcDispatcher:
    """Calls participants. Calls wait in a lane per participant, bounded in number and time; replies are given back in batches.

    Calls that wait for a participant that is not known yet go as soon as it registers. After `aclose` nothing is replied any more: what
    was under way is left to recovery.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        registry: ParticipantRegistry,
        concurrency: int,
        payload_bytes_max: int,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._concurrency = concurrency
        self._payload_bytes_max = payload_bytes_max
        self._loop = asyncio.get_running_loop()
        self._channels = Channels()
        self._lanes: dict[str, Lane] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._replies: list[tuple[SagaId, Replied]] = []
        self._listener: ReplyListener | None = None
        self._turns: dict[str, int] = {}
        self._disarm: Callable[[], None] | None = None
        self._armed_for: Instant | None = None
        self._closed = False
        self._is_draining = False
        registry.on_change(self._target_came)

    def listen(self, listener: ReplyListener) -> None:
        """Says who is told how calls ended. To be called once, before anything is sent."""
        self._listener = listener

    def send(self, calls: Sequence[CallParticipant], /) -> None:
        """Hands over calls."""
        now = self._clock.now()
        touched = dict.fromkeys(call.action.partition(".")[0] for call in calls)
        for call in calls:
            if not self._lane(call.action.partition(".")[0]).put(call, now):
                self._reply_not_sent(call, "too many calls wait for this participant already")
        for participant in touched:
            self._pump(participant)

    def withdraw(self, saga_id: SagaId, attempts: Sequence[AttemptKey], /) -> None:
        """Calls that need not be sent any more: those still waiting end NotSent at once, those under way go on."""
        for lane in self._lanes.values():
            for call in lane.withdraw(saga_id, attempts):
                self._reply_not_sent(call, "not sent: the saga turned back first")

    def abandon_waiting(self) -> int:
        """Sends nothing any more. Calls that still wait are dropped without a reply; returns how many. They stay owed for recovery."""
        self._is_draining = True
        return sum(lane.abandon() for lane in self._lanes.values())

    async def describe(self, participant: str) -> participant_pb2.ParticipantDescription | None:
        """What a participant says it can do: as it registered, else asked now; None if it is not known or does not answer."""
        known = self._registry.description_of(participant)
        targets = self._registry.targets_of(participant, "")
        if known is not None or not targets:
            return known
        request = participant_pb2.DescribeRequest(participant=participant)
        try:
            with self._channels.used_for_call(targets[0]) as stub:
                return (await stub.Describe(request, timeout=DESCRIBE_TIMEOUT_S)).description
        except grpc.aio.AioRpcError as error:
            _logger.info("participant does not describe itself", extra={"participant": participant, "code": error.code().name})
            return None

    async def aclose(self) -> None:
        """Cancels what is under way and closes all channels."""
        self._closed = True
        if self._disarm is not None:
            self._disarm()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self._channels.aclose()

    # ── Lanes ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _lane(self, participant: str) -> Lane:
        lane = self._lanes.get(participant)
        if lane is None:
            lane = self._lanes[participant] = Lane(self._concurrency)
        return lane

    def _target_came(self, participant: str) -> None:
        """A participant is somewhere new: calls that wait may go, and where nobody is any more need not be kept."""
        for channel in self._channels.drop(self._registry.live_targets()):
            closing = self._loop.create_task(channel.close())
            self._calls.add(closing)
            closing.add_done_callback(self._calls.discard)
        self._pump(participant)

    def _pump(self, participant: str) -> None:
        """Sends what may go."""
        lane = self._lanes.get(participant)
        if lane is None or self._closed or self._is_draining:
            return
        if len(lane) and self._registry.is_known(participant):
            description = self._registry.description_of(participant)
            asked = description.concurrency if description is not None else 0
            lane.concurrency = min(asked, self._concurrency) if asked else self._concurrency
            now = self._clock.now()
            while (call := lane.take_next(now)) is not None:
                self._begin(lane, participant, call)
        self._arm()

    def _begin(self, lane: Lane, participant: str, call: CallParticipant) -> None:
        action_name = call.action.partition(".")[2]
        targets = self._registry.targets_of(participant, action_name)
        if not targets:
            lane.under_way -= 1
            self._reply_not_sent(call, f"no live target of participant {participant!r} serves {action_name!r}")
            return
        turn = self._turns[participant] = self._turns.get(participant, -1) + 1
        under_way = self._loop.create_task(self._call(lane, participant, targets[turn % len(targets)], call))
        self._calls.add(under_way)
        under_way.add_done_callback(self._calls.discard)

    def _arm(self) -> None:
        """One timer for all lanes: when the next waiting call has waited too long."""
        expiries = [expiry for lane in self._lanes.values() if (expiry := lane.next_expiry) is not None]
        earliest = min(expiries, default=None)
        if earliest == self._armed_for:
            return
        if self._disarm is not None:
            self._disarm()
        self._armed_for = earliest
        self._disarm = None if earliest is None else self._clock.call_at(earliest, self._expire)

    def _expire(self) -> None:
        self._armed_for = self._disarm = None
        now = self._clock.now()
        for participant, lane in self._lanes.items():
            why = "all its places are taken" if self._registry.is_known(participant) else "it has not registered and is not configured"
            for call in lane.take_expired(now):
                self._reply_not_sent(call, f"participant {participant!r} could not be called in time: {why}")
        self._arm()

    # ── Calls ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _call(self, lane: Lane, participant: str, target: str, call: CallParticipant) -> None:
        sent_at = self._clock.now()
        if call.send_before is not None and sent_at >= call.send_before:
            # The limit passed between the lane and here. It must not be sent any more, and nobody need be in doubt about it (R7, R13).
            lane.under_way -= 1
            self._reply_not_sent(call, "the time limit of its step or saga was reached before it could be sent")
            self._pump(participant)
            return
        try:
            outcome = await self._outcome(target, call, sent_at)
        except Exception as error:  # an unreadable answer must end its attempt like any other (R6)
            _logger.exception("call failed in an unforeseen way", extra={"saga.id": call.saga_id, "saga.step": call.attempt.step_id})
            outcome = Unknown(failure=Failure(Code.INTERNAL, f"{type(error).__name__}: {error}"))
        except asyncio.CancelledError:
            if self._closed:
                raise
            # Not this task was cancelled but the call, by a channel that went away: it must be answered like any other.
            outcome = Unknown(failure=Failure(Code.CANCELLED, f"the connection to {target} was closed"))
        finally:
            lane.under_way -= 1
        self._reply(call, Replied(attempt=call.attempt, outcome=outcome, sent_at=sent_at))
        self._pump(participant)

    async def _outcome(self, target: str, call: CallParticipant, now: Instant) -> Outcome:
        time_left_us = call.timeout_us if call.send_before is None else min(call.timeout_us, call.send_before - now)
        timeout, metadata = time_left_us / MICROS_PER_SECOND, _metadata(call)
        try:
            with self._channels.used_for_call(target) as stub:
                if call.attempt.direction is Direction.EXECUTE:
                    executed = await stub.Execute(execute_request(call, time_left_us), timeout=timeout, metadata=metadata)
                    return outcome_of_execution(call, executed, payload_bytes_max=self._payload_bytes_max)
                compensated = await stub.Compensate(compensate_request(call, time_left_us), timeout=timeout, metadata=metadata)
                return outcome_of_compensation(compensated)
        except grpc.aio.AioRpcError as error:
            return outcome_of_status(from_rpc_error(error))

    def _reply_not_sent(self, call: CallParticipant, why: str) -> None:
        self._reply(call, Replied(attempt=call.attempt, outcome=NotSent(failure=Failure(Code.UNAVAILABLE, why))))

    def _reply(self, call: CallParticipant, reply: Replied) -> None:
        if self._closed:
            return
        if not self._replies:
            self._loop.call_soon(self._flush)
        self._replies.append((call.saga_id, reply))

    def _flush(self) -> None:
        replies, self._replies = self._replies, []
        if self._listener is not None and replies:
            self._listener.replied(replies)


def _metadata(call: CallParticipant) -> tuple[tuple[str, str], ...]:
    traceparent = attempt_traceparent(call.trace, call.saga_id, call.attempt)
    if not traceparent:
        return ()
    if call.trace.tracestate:
        return (("traceparent", traceparent), ("tracestate", call.trace.tracestate))
    return (("traceparent", traceparent),)
