"""What guards a participant's actions."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Protocol, TypeAlias

from google.protobuf.any_pb2 import Any as PackedAny

from participant_sdk.barrier.completions import OpenCompletion, StoredResult
from participant_sdk.barrier.outcomes import CompensateAnswer, CompensateOutcome, ExecuteAnswer, ExecuteOutcome
from participant_sdk.barrier.verdict import CompensateCall, CompletionCall, ExecuteCall
from participant_sdk.step_context import SessionSource

RunExecute: TypeAlias = Callable[[SessionSource], Awaitable[ExecuteOutcome]]
"""Runs the handler, with the session that it may use. Raises CancelledError only."""

RunCompensate: TypeAlias = Callable[[SessionSource, PackedAny | None], Awaitable[CompensateOutcome]]
"""Runs the compensation handler, with the output that it undoes; None if nobody knows one. Raises CancelledError only."""


class Barrier(Protocol):
    """Decides whether a handler runs, and keeps what it answered."""

    @property
    def is_effect_once(self) -> bool:
        """Whether each key takes effect at most once; what Describe promises."""

    @property
    def is_blocking(self) -> bool:
        """Whether handlers with an effect in the database are plain ones, run in its threads with a blocking session."""

    @property
    def retention(self) -> timedelta | None:
        """How long keys are remembered; None if they are not."""

    async def execute(self, call: ExecuteCall, run: RunExecute) -> ExecuteAnswer:
        """Answers a call to execute, running the handler at most once per call."""

    async def compensate(self, call: CompensateCall, claimed: PackedAny | None, run: RunCompensate) -> CompensateAnswer:
        """Answers a call to compensate; `claimed` is the output that the coordinator knows, None if it knows of none."""

    def completing(self, call: CompletionCall) -> AbstractAsyncContextManager[OpenCompletion | StoredResult]:
        """The row of an accepted step, locked while it is completed; or the result that was stored before (R24).

        Entering raises CompletionRefusedError, CompletionPostponedError; ParticipantSetupError if there is no barrier.
        """

    async def check(self) -> None:
        """Proves before serving that the barrier can keep its promise. Raises ParticipantSetupError if it never could."""

    async def delete_expired(self, limit: int) -> int:
        """Forgets at most `limit` keys beyond retention; returns how many. To be repeated while it returns `limit`."""
