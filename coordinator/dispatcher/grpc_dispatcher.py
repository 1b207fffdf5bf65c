"""Sends calls to participants over gRPC and turns whatever comes back into outcomes."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

from coordinator.codec.completion_tokens import CompletionTokens
from coordinator.core.effects import CallParticipant
from coordinator.core.inputs import Mismatched, NotSent, Outcome, Replied, Unknown
from coordinator.core.values import MICROS_PER_SECOND, AttemptKey, Code, Failure, Instant, SagaId
from coordinator.dispatcher.caller import ParticipantCaller
from coordinator.dispatcher.channels import Channels
from coordinator.dispatcher.circuit import Health
from coordinator.dispatcher.descriptions import Descriptions
from coordinator.dispatcher.flights import Flight, Line
from coordinator.dispatcher.health import failure_in, health_of
from coordinator.dispatcher.lane import CallId, Lane
from coordinator.dispatcher.registry import ParticipantRegistry
from coordinator.dispatcher.services import Services
from coordinator.dispatcher.targets import Differing, LiveTargets, NotServed, Served, Target
from coordinator.engine.ports import CallPlace, Circuit, Clock, ParticipantStanding, ReplyListener
from coordinator.limits import ParticipantLimits
from participant_sdk.framed_calls import FramedCalls, NotCarriedOutError, OpenCall, Unanswered, WithdrawnError
from saga.v1 import participant_pb2

LOOK_AGAIN_US: Final = MICROS_PER_SECOND
"""How often it is looked whether a participant that nobody could connect to can be reached again. Looking costs it nothing."""
BELIEVED_US: Final = 2 * MICROS_PER_SECOND
"""How old the answer of a configured participant may be for a call to be refused by it; it may be another release by now."""

LIMIT_REACHED: Final = "the time limit of its step or saga was reached before it could be sent"
_TOO_LATE: Final = NotSent(failure=Failure(Code.UNAVAILABLE, LIMIT_REACHED))
NOT_OURS: Final = "not sent: the node did not own the saga any more when there was room for the call"
WITHDRAWN: Final = "not sent: the saga turned back first"

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
        tokens: CompletionTokens,
        limits_of: Callable[[str], ParticipantLimits],
        payload_bytes_max: int,
        channels: Channels | None = None,
        services: Services | None = None,
        may_send: Callable[[], bool] = lambda: True,
    ) -> None:
        """`channels`: become its own; None: to wherever gRPC can connect. `services`: that are there already; on the same channels and
        registry. `may_send`: whether the sagas are ours at this very moment. If they are not, what waits is withdrawn, or handed over
        again (R31).
        """
        self._may_send = may_send
        self._clock = clock
        self._registry = registry
        self._limits_of = limits_of
        self._loop = asyncio.get_running_loop()
        self._channels = Channels() if channels is None else channels
        self._caller = ParticipantCaller(channels=self._channels, tokens=tokens, payload_bytes_max=payload_bytes_max)
        self._services = services or Services(registry=registry, channels=self._channels, payload_bytes_max=payload_bytes_max)
        self._descriptions = Descriptions(clock=clock, registry=registry, channels=self._channels, spawn=self._spawn)
        self._lines: dict[str, Line] = {}
        self._doubted: set[CallId] = set()
        """Calls that had their turn and wait for an answer to Describe. One that is withdrawn meanwhile is not sent (R12)."""
        self._on_streams: dict[CallId, OpenCall] = {}
        """Calls among others: a stream that takes no more for a while has them leave later than they had their turn."""
        self._spawned: dict[asyncio.Task[None], None] = {}  # in the order in which they began: a set has none
        self._replies: list[tuple[SagaId, Replied]] = []
        self._listener: ReplyListener | None = None
        self._disarm: Callable[[], None] | None = None
        self._armed_for: Instant | None = None
        self._closed = False
        self._is_draining = False
        registry.on_change(self._target_came)
        registry.on_sign_of_life(self._sign_of_life)

    def listen(self, listener: ReplyListener) -> None:
        """Says who is told how calls ended. To be called once, before anything is sent."""
        self._listener = listener

    def send(self, calls: Sequence[CallParticipant], /) -> None:
        """Hands over calls."""
        now = self._clock.now()
        touched: dict[str, Line] = {}
        for call in calls:
            line = self._line(call.action.partition(".")[0])
            touched[line.name] = line
            if not line.lane.put(call, now):
                self._reply_not_sent(call, "too many calls wait for this participant already")
        for line in touched.values():
            self._pump(line, now)

    def withdraw(self, saga_id: SagaId, attempts: Sequence[AttemptKey], /) -> None:
        """Calls that need not be sent any more: those still waiting, also for room on a stream, end NotSent at once, those of which it is
        being asked whether they can be sent when that is known. Those under way go on.
        """
        for line in self._lines.values():
            for call in line.lane.withdraw(saga_id, attempts):
                self._reply_not_sent(call, WITHDRAWN)
        self._doubted.difference_update((saga_id, attempt) for attempt in attempts)
        for attempt in attempts:
            if (on_stream := self._on_streams.get((saga_id, attempt))) is not None:
                FramedCalls.withdraw(on_stream)

    def abandon_waiting(self) -> int:
        """Sends nothing any more. Calls that still wait are dropped without a reply; returns how many. They stay owed for recovery."""
        self._is_draining = True
        return sum(line.lane.abandon() for line in self._lines.values())

    async def describe(self, participant: str) -> participant_pb2.ParticipantDescription | None:
        """What a participant says it can do: as it registered, else asked now; None if it is not known or does not answer."""
        live = self._registry.live(participant)
        if live.description is None:
            await self._services.ask(participant)
            live = self._registry.live(participant)
        if live.description is not None or live.configured is None:
            return live.description
        asked_at = self._clock.now()
        await self._descriptions.ask(participant, live.configured.address)
        live = self._registry.live(participant)
        told = live.configured if live.configured is not None and _was_told_since(live.configured, asked_at) else None
        return live.description or (told.told if told is not None else None)

    async def aclose(self) -> None:
        """Cancels what is under way and closes all channels."""
        self._closed = True
        if self._disarm is not None:
            self._disarm()
        for task in self._spawned:
            task.cancel()
        await asyncio.gather(*self._spawned, return_exceptions=True)
        await self._channels.aclose()

    # ── Whereabouts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def place_of(self, participant: str, saga_id: SagaId, attempt: AttemptKey, /) -> CallPlace:
        """Where a call is now."""
        line = self._lines.get(participant)
        if line is None:
            return CallPlace.NOT_HERE
        place = line.lane.place_of((saga_id, attempt), self._clock.now())
        is_waiting = place not in (CallPlace.NOT_HERE, CallPlace.UNDER_WAY)
        return CallPlace.NO_TARGET if is_waiting and not self._registry.is_known(participant) else place

    def standing_of(self, participant: str, /) -> ParticipantStanding:
        """How calls to a participant are getting on, also to one that nobody has heard of."""
        now = self._clock.now()
        live = self._registry.live(participant)
        # Asking about somebody must not leave a line behind for ever.
        lane = line.lane if (line := self._lines.get(participant)) is not None else Lane(participant, self._limits_of(participant))
        lane.heed(live.wishes, now)
        circuit = lane.circuit.state(now)
        unreadable = self._services.why_unknown(participant)
        return ParticipantStanding(
            name=participant,
            targets=live.addresses,
            under_way=lane.under_way,
            waiting=len(lane),
            concurrency=lane.concurrency,
            rate_per_second=lane.rate.per_second,
            circuit=circuit,
            open_until=lane.circuit.next_at(now) if circuit is Circuit.OPEN else None,
            last_failure=Failure(Code.UNAVAILABLE, unreadable) if unreadable else lane.circuit.last_failure,
            unreadable=unreadable,
        )

    def standings(self) -> Sequence[ParticipantStanding]:
        """Of every participant that is registered, configured, or has been called; by name."""
        return [self.standing_of(name) for name in sorted({*self._registry.names(), *self._services.names, *self._lines})]

    # ── Lines ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _line(self, participant: str) -> Line:
        line = self._lines.get(participant)
        if line is None:
            line = self._lines[participant] = Line(participant, self._limits_of(participant))
        return line

    def _target_came(self, participant: str) -> None:
        """A participant is somewhere new: where nobody is any more need not be kept."""
        for channel in self._channels.drop(self._registry.live_targets()):
            self._spawn(channel.close())
        line = self._lines.get(participant)
        if line is not None:
            line.places.keep(self._registry.live(participant).addresses)

    def _sign_of_life(self, participant: str) -> None:
        """It registered or described itself: calls that wait may go, and if it is left alone, that need not last any longer."""
        line = self._lines.get(participant)
        if line is not None:
            now = self._clock.now()
            line.lane.circuit.hasten(now)
            self._pump(line, now)

    def _pump(self, line: Line, now: Instant) -> None:
        """Sends what may go."""
        lane = line.lane
        if self._closed or self._is_draining or line.is_moving or not len(lane) or not self._may_send():
            return
        live = self._registry.live(line.name)
        if live.targets:
            lane.heed(live.wishes, now)
            if lane.circuit.state(now) is Circuit.HALF_OPEN and all(map(self._channels.is_cut_off, live.addresses)):
                lane.circuit.postpone(Instant(now + LOOK_AGAIN_US))  # a probe would fail, and leave its saga in doubt for nothing (R5)
            if live.configured is not None:
                self._descriptions.refresh(line.name, live.configured)
            line.is_moving = True
            try:
                while (call := lane.take_next(now)) is not None:
                    self._begin(line, live, call, now)
            finally:
                line.is_moving = False
        self._arm(lane, now)

    def _begin(self, line: Line, live: LiveTargets, call: CallParticipant, now: Instant) -> None:
        match live.service_for(call):
            case Served(addresses=addresses):
                self._call(line, live, call, addresses, now)
            case Differing() as differing:
                self._spawn(self._doubt(line, call, differing))
            case NotServed():
                words = f"no live target of participant {line.name!r} serves {call.action.partition('.')[2]!r}"
                self._refuse(line, call, NotSent(failure=Failure(Code.UNAVAILABLE, words)))

    def _arm(self, lane: Lane, now: Instant) -> None:
        """One timer for all: when the next call may go, or has waited too long. It is never moved back: coming early costs less."""
        wake_at = lane.next_wake(now)
        if wake_at is None or (self._armed_for is not None and self._armed_for <= wake_at):
            return
        if self._disarm is not None:
            self._disarm()
        self._armed_for = wake_at
        self._disarm = self._clock.call_at(wake_at, self._wake)

    def _wake(self) -> None:
        self._armed_for = self._disarm = None
        now = self._clock.now()
        for line in self._lines.values():
            for call in line.lane.take_expired(now):
                self._reply_not_sent(call, self._why_not_sent(line, call, now))
            self._pump(line, now)

    def _why_not_sent(self, line: Line, call: CallParticipant, now: Instant) -> str:
        reason = self._reason_to_wait(line, now)
        if call.send_before is not None and call.send_before <= now:
            return LIMIT_REACHED if reason is None else f"{LIMIT_REACHED}: participant {line.name!r} could not be called: {reason}"
        return f"participant {line.name!r} could not be called in time: {reason or 'others were before it'}"

    def _reason_to_wait(self, line: Line, now: Instant) -> str | None:
        """What keeps calls from going now; None: nothing does."""
        if not self._registry.is_known(line.name):
            return self._services.why_unknown(line.name) or "it has not registered and is not configured"
        lane = line.lane
        match lane.reason_to_wait(now):
            case CallPlace.CIRCUIT_OPEN:
                last = lane.circuit.last_failure
                return f"it failed too often and is left alone for a while; the last error was: {last.message if last else 'none'}"
            case CallPlace.RATE:
                return f"more than its {lane.rate.per_second:g} calls per second are asked of it"
            case _ if lane.under_way >= lane.concurrency:
                return f"all its places are taken: {lane.under_way} calls are under way"
            case _:
                return None

    # ── Calls ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _spawn(self, work: Coroutine[object, object, None]) -> "asyncio.Task[None]":
        task = self._loop.create_task(work)
        self._spawned[task] = None
        task.add_done_callback(lambda done: self._spawned.pop(done, None))
        return task

    async def _doubt(self, line: Line, call: CallParticipant, differing: Differing) -> None:
        """Nobody takes the call as its definition says. Before a person is asked for, those are asked again who may have changed."""
        now = self._clock.now()
        old = [target for target in differing.targets if target.told_at is not None and target.told_at < now - BELIEVED_US]
        call_id = (call.saga_id, call.attempt)
        self._doubted.add(call_id)
        for target in old:
            await self._descriptions.ask(line.name, target.address)
        if call_id not in self._doubted:
            self._refuse(line, call, NotSent(failure=Failure(Code.UNAVAILABLE, WITHDRAWN)))
            return
        self._doubted.remove(call_id)
        live, now = self._registry.live(line.name), self._clock.now()
        match live.service_for(call) if old else differing:
            case Served(addresses=addresses):
                self._call(line, live, call, addresses, now)
            case Differing(targets=targets) if unsure := [target.address for target in targets if target in old]:
                self._call(line, live, call, tuple(unsure), now)  # it did not answer: what it said long ago refuses nothing
            case Differing(problem=problem):
                self._refuse(line, call, Mismatched(failure=Failure(Code.FAILED_PRECONDITION, problem)))
            case NotServed():
                self._refuse(line, call, NotSent(failure=Failure(Code.UNAVAILABLE, f"participant {line.name!r} has gone")))

    def _refuse(self, line: Line, call: CallParticipant, outcome: Outcome) -> None:
        """A call had its turn but is not sent after all."""
        now = self._clock.now()
        line.lane.ended(call, Health.UNTOLD, now)
        self._reply(call, Replied(attempt=call.attempt, outcome=outcome))
        self._pump(line, now)

    def _call(self, line: Line, live: LiveTargets, call: CallParticipant, addresses: Sequence[str], now: Instant) -> None:
        if _is_too_late(call, now):
            self._refuse(line, call, _TOO_LATE)
            return
        place = line.places.choose(addresses, now, self._channels.is_cut_off)
        time_left_us = call.timeout_us if call.send_before is None else min(call.timeout_us, call.send_before - now)
        flight = Flight(self, line, call, place, now, time_left_us)
        try:
            if live.exchanges(place.address):
                on_stream = self._caller.call_among_others(place.address, call, time_left_us, flight.answered)
                if on_stream is not None:
                    self._on_streams[call.saga_id, call.attempt] = on_stream
                    return
            self._spawn(self._call_by_itself(flight, time_left_us))
        except Exception as error:
            self._ended_in_error(flight, error)

    def answered(self, flight: Flight, answer: participant_pb2.ExchangeReply | Unanswered) -> None:
        """A call among others has ended."""
        self._on_streams.pop((flight.call.saga_id, flight.call.attempt), None)
        if self._closed:
            return
        if isinstance(answer, WithdrawnError):
            self._ended(flight, NotSent(failure=Failure(Code.UNAVAILABLE, WITHDRAWN)), Health.UNTOLD)
            return
        if isinstance(answer, NotCarriedOutError):
            # It goes by itself, in what is left of its time: nobody reckons with a longer attempt (R12).
            left_us = flight.time_left_us - (self._clock.now() - flight.sent_at)
            self._spawn(self._call_by_itself(flight, max(left_us, 1)))
            return
        try:
            outcome = self._caller.outcome_of(flight.call, answer)
        except Exception as error:  # an unreadable answer must end its attempt like any other (R6)
            self._ended_in_error(flight, error)
        else:
            self._ended(flight, outcome, health_of(outcome, flight.call, flight.time_left_us))

    async def _call_by_itself(self, flight: Flight, time_left_us: int) -> None:
        if _is_too_late(flight.call, self._clock.now()):
            self._ended(flight, _TOO_LATE, Health.UNTOLD)
            return
        if not self._may_send():
            self._ended(flight, NotSent(failure=Failure(Code.UNAVAILABLE, NOT_OURS)), Health.UNTOLD)
            return
        try:
            caller = self._services.find_caller(flight.line.name) or self._caller
            outcome = await caller.call_by_itself(flight.place.address, flight.call, time_left_us)
            health = health_of(outcome, flight.call, flight.time_left_us)
        except Exception as error:
            self._ended_in_error(flight, error)
        except asyncio.CancelledError:
            if self._closed:
                raise
            # Not this task was cancelled but the call, by a channel that went away: it must be answered like any other.
            words = f"the connection to {flight.place.address} was closed"
            self._ended(flight, Unknown(failure=Failure(Code.CANCELLED, words)), Health.UNTOLD)
        else:
            self._ended(flight, outcome, health)

    def _ended_in_error(self, flight: Flight, error: Exception) -> None:
        call = flight.call
        said = {"saga.id": call.saga_id, "saga.step": call.attempt.step_id}
        _logger.error("call failed in an unforeseen way", exc_info=error, extra=said)
        self._ended(flight, Unknown(failure=Failure(Code.INTERNAL, f"{type(error).__name__}: {error}")), Health.UNTOLD)

    def _ended(self, flight: Flight, outcome: Outcome, health: Health) -> None:
        line, call, now = flight.line, flight.call, self._clock.now()
        for channel in self._channels.take_idle():
            self._spawn(channel.close())
        failure = failure_in(outcome)
        line.places.ended(flight.place, call, health, now, failure)
        changed = line.lane.ended(call, health, now, failure)
        if changed is not None:
            _log_circuit(line, changed, failure, now)
        sent_at = None if isinstance(outcome, NotSent | Mismatched) else flight.sent_at
        self._reply(call, Replied(attempt=call.attempt, outcome=outcome, sent_at=sent_at))
        self._pump(line, now)

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


def _log_circuit(line: Line, changed: Circuit, failure: Failure | None, now: Instant) -> None:
    if changed is Circuit.OPEN:
        for_s = (line.lane.circuit.next_at(now) - now) / MICROS_PER_SECOND
        said = {"participant": line.name, "error": failure.message if failure else "", "for_s": for_s}
        _logger.warning("participant is not well and is left alone for a while", extra=said)
    elif changed is Circuit.CLOSED:
        _logger.info("participant is well again", extra={"participant": line.name})


def _is_too_late(call: CallParticipant, now: Instant) -> bool:
    """Whether its limit has passed on its way out of the lane. Then it is not sent, and nobody need be in doubt about it (R7, R13)."""
    return call.send_before is not None and now >= call.send_before


def _was_told_since(target: Target, asked_at: Instant) -> bool:
    return target.told_at is not None and target.told_at >= asked_at
