"""No guard, for participants without a database: handlers may run again, and must be idempotent by key (R23)."""

from datetime import timedelta
from typing import NoReturn

from google.protobuf.any_pb2 import Any as PackedAny

from participant_sdk.barrier import answers
from participant_sdk.barrier.barrier import RunCompensate, RunExecute
from participant_sdk.barrier.outcomes import (
    CompensateAnswer,
    ExecuteAnswer,
    HandlerAccepted,
    HandlerFailed,
    HandlerPostponed,
    HandlerRejected,
    HandlerSucceeded,
    HandlerUndid,
)
from participant_sdk.barrier.verdict import CompensateCall, CompletionCall, ExecuteCall
from participant_sdk.errors import ParticipantSetupError
from participant_sdk.step_context import NoSession
from saga.v1 import participant_pb2

_NO_SESSION = NoSession(
    "step.session needs a database: give the participant barrier=SqlBarrier(engine), or open your own session; NoBarrier() has none"
)


class NoBarrier:
    """Runs every call. Describe says AT_LEAST_ONCE; implements `Barrier`.

    A handler may run again with the same key, also after it succeeded, and the compensation runs for every call, also when
    nothing was executed: both must be idempotent by `step.key` and tolerate undoing nothing. When nobody knows the output of
    the execution, the compensation gets None if its annotation allows that, otherwise an empty message.
    """

    @property
    def is_effect_once(self) -> bool:
        return False

    @property
    def is_blocking(self) -> bool:
        return False

    @property
    def retention(self) -> timedelta | None:
        return None

    async def execute(self, call: ExecuteCall, run: RunExecute) -> ExecuteAnswer:
        match await run(_NO_SESSION):
            case HandlerSucceeded(response=response) | HandlerAccepted(response=response):
                return response
            case HandlerRejected(status=status):
                return answers.rejection(status, sealed=False)  # Nothing was stored: R5 decides how far to believe it.
            case HandlerPostponed(after=after, status=status):
                return participant_pb2.ExecuteResponse(retry_later=answers.retry_later(after, status))
            case HandlerFailed(status=status):
                return status

    async def compensate(self, call: CompensateCall, claimed: PackedAny | None, run: RunCompensate) -> CompensateAnswer:
        match await run(_NO_SESSION, claimed):
            case HandlerUndid():
                return answers.compensated(handler_ran=True)
            case HandlerPostponed(after=after, status=status):
                return participant_pb2.CompensateResponse(retry_later=answers.retry_later(after, status))
            case HandlerFailed(status=status):
                return status

    def completing(self, call: CompletionCall) -> NoReturn:
        raise ParticipantSetupError(
            "completing() needs a barrier, which remembers what was accepted: give the participant barrier=SqlBarrier(engine), or use "
            "SagaClient.complete_step(token, output) and reject_step(token, Rejected(…))"
        )

    async def check(self) -> None:
        """There is nothing to prove."""

    async def delete_expired(self, limit: int) -> int:
        return 0
