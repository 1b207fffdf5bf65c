"""What HTTP and gRPC share: claim the key, run, store the answer, and have duplicates wait for it.

THE CLAIM IS COMMITTED BEFORE THE HANDLER RUNS; THE ANSWER IS COMMITTED BEFORE ANYBODY GETS IT. A request that is begun goes to its end even
if its client is gone: the client comes again, and then the answer is there.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar, assert_never

from opentelemetry import metrics

from participant_sdk.barrier.flights import Flights
from participant_sdk.idempotency.errors import (
    IdempotencySetupError,
    IdempotencyStoreBusyError,
    IdempotencyStoreUnavailableError,
)
from participant_sdk.idempotency.keys import record_key
from participant_sdk.idempotency.outcomes import (
    Answered,
    AnswerNotStored,
    KeyReused,
    Outcome,
    OutcomeUnknown,
    Ran,
    RunBroke,
    StillRunning,
    StoreAway,
)
from participant_sdk.idempotency.policy import IdempotencyPolicy, Meaning
from participant_sdk.idempotency.store import IdempotencyStore
from participant_sdk.idempotency.verdict import (
    Claim,
    InDoubt,
    InProgress,
    Mismatch,
    Replay,
    Run,
    StoredAnswer,
    Verdict,
    WhenUnknown,
    seconds,
)
from participant_sdk.shielding import finish

logger = logging.getLogger(__name__)

STORE_TRIES: Final = 3
"""How often the store is asked the same before it counts as away: after its restart each pooled connection fails once."""
STORE_DELAY_S: Final = 0.05
"""Before the store is asked again; doubled each time up to `POLL_DELAY_S_MAX`."""
POLL_DELAY_S_MIN: Final = 0.05
"""Between two looks at a key that another process has; doubled each time."""
POLL_DELAY_S_MAX: Final = 1.0
RETRY_AFTER_S_MAX: Final = 5.0
"""When to come again at the latest: a run usually ends before its lease."""
RENEWALS_PER_LEASE: Final = 3

ResultT = TypeVar("ResultT")
_STORE_ERRORS: Final = (IdempotencyStoreUnavailableError, IdempotencyStoreBusyError, IdempotencySetupError)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedRequest:
    """A request with a key, as far as the guard cares."""

    tenant: str
    """Whose key it is; keys of two tenants never meet."""
    operation: str
    """Example: "POST /payments". The same key on another operation is another key."""
    key: str
    fingerprint: bytes
    """SHA-256 of all that makes it this request and no other one."""


class IdempotencyGuard:
    """A store with what is needed to guard requests by it. One per middleware or interceptor."""

    def __init__(self, store: IdempotencyStore, policy: IdempotencyPolicy, protocol: str) -> None:
        """`protocol`: "http" or "grpc", for metrics."""
        self.policy: Final = policy
        self._store = store
        self._flights: Flights[Outcome] = Flights()
        self._protocol = protocol
        self._requests = metrics.get_meter("participant_sdk").create_counter(
            "saga.idempotency.requests", "{request}", "Requests with an idempotency key, by how they ended."
        )

    async def answer(self, request: KeyedRequest, run: Callable[[], Coroutine[Any, Any, Ran]], *, wait_s: float) -> Outcome:
        """Answers by `run`, or by what was answered to the same key before. `wait_s`: how long it may wait for another run."""
        claim = self._claim(request)
        has_led = False

        async def lead() -> Outcome:
            nonlocal has_led
            has_led = True
            return await finish(self._lead(claim, run, wait_s))

        # By request as well: one with another fingerprint is refused by the store at once, and does not wait for this one.
        flight = f"{claim.record_key}/{claim.fingerprint.hex()}"
        outcome = await self._flights.join(flight, claim.fingerprint, wait_s=wait_s, start=lead)
        if outcome is None:
            outcome = StillRunning(retry_after_s=POLL_DELAY_S_MAX)
        elif not has_led and isinstance(outcome, Answered):
            outcome = Answered(answer=outcome.answer, is_replay=True)
        self._requests.add(1, {"protocol": self._protocol, "outcome": _name_of(outcome)})
        return outcome

    def _claim(self, request: KeyedRequest) -> Claim:
        return Claim(
            record_key=record_key(tenant=request.tenant, operation=request.operation, key=request.key),
            client_key=request.key,
            operation=request.operation,
            fingerprint=request.fingerprint,
            owner=uuid.uuid4().hex,
            lease_us=self.policy.lease_us,
            lifetime_us=self.policy.lifetime_us,
            when_unknown=self.policy.when_unknown,
        )

    async def _lead(self, claim: Claim, run: Callable[[], Coroutine[Any, Any, Ran]], wait_s: float) -> Outcome:
        try:
            verdict = await self._begin(claim, wait_s)
        except _STORE_ERRORS as error:
            logger.warning("%s is refused, its key cannot be looked up: %s", claim.operation, error, extra=_log_fields(claim))
            return StoreAway()
        match verdict:
            case Run():
                return await self._run(claim, run)
            case Replay(answer=answer):
                return Answered(answer=answer, is_replay=True)
            case InProgress(wait_us=wait_us):
                return StillRunning(retry_after_s=min(seconds(wait_us), RETRY_AFTER_S_MAX))
            case InDoubt():
                return OutcomeUnknown()
            case Mismatch():
                return KeyReused()
            case _:
                assert_never(verdict)

    async def _begin(self, claim: Claim, wait_s: float) -> Verdict:
        """Claims the key, waiting for whoever has it in another process."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        delay_s = POLL_DELAY_S_MIN
        while True:
            asked_s = loop.time()
            verdict = await self._asked(lambda: self._store.begin(claim))
            if isinstance(verdict, Run) and loop.time() - asked_s > self.policy.lease.total_seconds() / RENEWALS_PER_LEASE:
                continue  # This process stood still meanwhile: the lease may be over. Asking again begins it anew, or finds another run.
            left_s = until_s - loop.time()
            if not isinstance(verdict, InProgress) or left_s <= 0:
                return verdict
            spread_s = random.uniform(delay_s / 2, delay_s)  # noqa: S311 - spreads load, hides nothing
            await asyncio.sleep(min(spread_s, seconds(verdict.wait_us), left_s))
            delay_s = min(delay_s * 2, POLL_DELAY_S_MAX)

    async def _run(self, claim: Claim, run: Callable[[], Coroutine[Any, Any, Ran]]) -> Outcome:
        running = asyncio.get_running_loop().create_task(run())
        try:
            is_mine = await self._renew_until_done(claim, running)
        finally:
            if not running.done():
                running.cancel()
                await asyncio.wait({running})
        if not is_mine:
            logger.error("a run of %s was overtaken by another one and cut short", claim.operation, extra=_log_fields(claim))
            return AnswerNotStored()
        if running.cancelled():
            return await self._broken(claim, TimeoutError(f"{claim.operation} was cut short"))
        error = running.exception()
        if error is not None:
            return await self._broken(claim, error)
        return await self._conclude(claim, running.result())

    async def _renew_until_done(self, claim: Claim, running: "asyncio.Task[Ran]") -> bool:
        """Keeps the lease until the run has ended or its time is over. False if it was lost: another run may have begun."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self.policy.run_time_limit.total_seconds()
        interval_s = self.policy.lease.total_seconds() / RENEWALS_PER_LEASE
        while (left_s := until_s - loop.time()) > 0:
            done, _ = await asyncio.wait({running}, timeout=min(interval_s, left_s))
            if done:
                return True
            try:
                if not await self._store.renew(claim):
                    return running.done()
            except _STORE_ERRORS as error:
                # Nobody else can claim it either while the store is away, so the run goes on.
                logger.warning("the lease of %s is not renewed now: %s", claim.operation, error, extra=_log_fields(claim))
        return True

    async def _conclude(self, claim: Claim, ran: Ran) -> Outcome:
        match ran.meaning:
            case Meaning.FINAL:
                return await self._stored(claim, ran.answer)
            case Meaning.NO_EFFECT:
                await self._given_back(claim, self._store.abandon)
            case Meaning.UNKNOWN:
                await self._end_unknown(claim)
            case _:
                assert_never(ran.meaning)
        return Answered(answer=ran.answer, is_replay=False)

    async def _stored(self, claim: Claim, answer: StoredAnswer) -> Outcome:
        """What is not stored is not told: its reader would believe in what a repetition may do again."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self.policy.settle_time_limit.total_seconds()
        delay_s = STORE_DELAY_S
        while True:
            try:
                if await self._store.complete(claim, answer):
                    return Answered(answer=answer, is_replay=False)
            except _STORE_ERRORS as error:
                if loop.time() + delay_s > until_s:
                    logger.error("the answer of %s is not stored: %s", claim.operation, error, extra=_log_fields(claim))  # noqa: TRY400
                    return AnswerNotStored()
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, POLL_DELAY_S_MAX)
            else:
                logger.error("the answer of %s comes after another run began", claim.operation, extra=_log_fields(claim))
                return AnswerNotStored()

    async def _broken(self, claim: Claim, error: BaseException) -> RunBroke:
        await self._end_unknown(claim)
        return RunBroke(error=error)

    async def _end_unknown(self, claim: Claim) -> None:
        match self.policy.when_unknown:
            case WhenUnknown.RUN_AGAIN:
                await self._given_back(claim, self._store.abandon)
            case WhenUnknown.REFUSE:
                await self._given_back(claim, self._store.leave_in_doubt)
            case _:
                assert_never(self.policy.when_unknown)

    async def _given_back(self, claim: Claim, give_back: Callable[[Claim], Awaitable[bool]]) -> None:
        """If that fails, the end of the lease does it."""
        try:
            await self._asked(lambda: give_back(claim))
        except _STORE_ERRORS as error:
            logger.warning("the key of %s stays locked until its lease ends: %s", claim.operation, error, extra=_log_fields(claim))

    async def _asked(self, ask: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """What the store answers; asked again a few times. Every question may be repeated (R26)."""
        delay_s = STORE_DELAY_S
        for _ in range(STORE_TRIES - 1):
            try:
                return await ask()
            except _STORE_ERRORS:
                await asyncio.sleep(delay_s)
                delay_s *= 2
        return await ask()


def _name_of(outcome: Outcome) -> str:
    """The value of the metric's attribute."""
    match outcome:
        case Answered(is_replay=is_replay):
            return "replayed" if is_replay else "ran"
        case StillRunning():
            return "in_progress"
        case KeyReused():
            return "key_reused"
        case OutcomeUnknown():
            return "outcome_unknown"
        case StoreAway():
            return "store_unavailable"
        case AnswerNotStored():
            return "answer_not_stored"
        case RunBroke():
            return "run_failed"
        case _:
            assert_never(outcome)


def _log_fields(claim: Claim) -> dict[str, object]:
    return {"idempotency.key": claim.client_key, "idempotency.operation": claim.operation, "idempotency.owner": claim.owner}
