"""The events of one saga as they are committed, across restarts of the coordinator."""

from collections.abc import AsyncGenerator
from typing import Final

import grpc

from participant_sdk.client.calls import call, pause_or_raise
from participant_sdk.client.errors import CoordinatorError, CoordinatorUnavailable, WaitTimedOut
from participant_sdk.client.retries import Retries
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, saga_pb2

AT_REST: Final = frozenset({saga_pb2.SAGA_STATUS_COMPLETED, saga_pb2.SAGA_STATUS_COMPENSATED, saga_pb2.SAGA_STATUS_FAILED})
"""Its steps do not move without a person. Its hook may."""

_HOOK_MOVES: Final = frozenset({saga_pb2.STEP_STATUS_WAITING, saga_pb2.STEP_STATUS_EXECUTING, saga_pb2.STEP_STATUS_ACCEPTED})


async def watch_events(
    service: "coordinator_pb2_grpc.SagaServiceAsyncStub", saga_id: str, *, after: int, retries: Retries
) -> AsyncGenerator[coordinator_pb2.WatchSagaResponse]:
    """Yields each event after sequence `after` once, in order; ends when the saga has ended and its hook, if it has one, is at rest.

    A stream that breaks is opened again after the event that was yielded last (H2), so none is lost and none doubled.

    Raises WaitTimedOut when the time of `retries` is over; CoordinatorUnavailable if nobody answers for too long;
    SagaNotFound; CoordinatorError if the coordinator leaves out an event.
    """
    while True:
        request = coordinator_pb2.WatchSagaRequest(saga_id=saga_id, after_sequence=after)
        stream = service.WatchSaga(request, timeout=retries.begin_stream())
        try:
            await stream.initial_metadata()  # comes at once, though the saga may be silent for long
            if not stream.done():
                retries.note_progress()
            async for response in stream:
                retries.note_progress()
                _check_sequence(response.event, after)
                after = response.event.sequence
                yield response
            # The stream ended well, yet the saga may go on: so does a coordinator that is shutting down say goodbye.
            if await _is_over(service, saga_id, after=after, retries=retries):
                return
            if not await retries.wait_before_next():
                raise CoordinatorUnavailable(f"cannot watch saga {saga_id}: the coordinator keeps ending the stream", saga_id=saga_id)
        except grpc.aio.AioRpcError as error:
            # The only deadline of this call is the caller's own.
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and retries.time_left_s() is not None:
                raise wait_timed_out(saga_id) from error
            await pause_or_raise(error, retries=retries, doing=f"watch saga {saga_id}", saga_id=saga_id)
        finally:
            # Whoever stops listening in the middle leaves nothing open at the coordinator.
            stream.cancel()


def wait_timed_out(saga_id: str) -> WaitTimedOut:
    """The error for a saga that takes longer than the caller wants to wait."""
    return WaitTimedOut(f"saga {saga_id} has not ended within the time given; it goes on, wait for it again by its id", saga_id=saga_id)


def _check_sequence(event: saga_pb2.Event, after: int) -> None:
    if event.sequence != after + 1:
        raise CoordinatorError(
            f"cannot watch saga {event.saga_id}: expected event {after + 1}, found {event.sequence}; start again from sequence {after}",
            saga_id=event.saga_id,
        )


async def _is_over(service: "coordinator_pb2_grpc.SagaServiceAsyncStub", saga_id: str, *, after: int, retries: Retries) -> bool:
    request = coordinator_pb2.GetSagaRequest(saga_id=saga_id)
    response = await call(service.GetSaga, request, retries=retries, doing=f"read saga {saga_id}", saga_id=saga_id)
    saga = response.saga
    hook_moves = saga.HasField("hook") and saga.hook.status in _HOOK_MOVES
    return has_ended(saga) and not hook_moves and saga.sequence <= after


def has_ended(saga: saga_pb2.Saga) -> bool:
    """Whether the saga has ended. FAILED is no end, unless a person terminated the saga (R15)."""
    return saga.status in AT_REST - {saga_pb2.SAGA_STATUS_FAILED} or saga.HasField("terminated")
