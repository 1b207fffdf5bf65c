"""Waiting for how a saga ends, across restarts of the coordinator."""

import math
from contextlib import aclosing
from typing import Final

import grpc

from participant_sdk.client.calls import call, pause_or_raise
from participant_sdk.client.connection import Connection
from participant_sdk.client.retries import Retries
from participant_sdk.client.start_calls import StartCalls
from participant_sdk.client.telemetry import trace_metadata
from participant_sdk.client.watching import AT_REST, wait_timed_out, watch_events
from saga.v1 import coordinator_pb2, saga_pb2

WAIT_ATTEMPT_S: Final = 60.0
"""How long one call waits for the end of a saga before it is made again."""


async def start_and_wait(
    request: coordinator_pb2.StartSagaRequest, connection: Connection, start_saga: StartCalls, retries: Retries
) -> saga_pb2.Saga:
    """Starts a saga with a request that waits, and returns it when it is at rest. See `SagaClient.run` for what it raises."""
    metadata = trace_metadata()
    attempt_s = math.inf if request.inherit_deadline else WAIT_ATTEMPT_S
    while True:
        try:
            timeout_s = retries.begin_attempt(attempt_s)
            response = await start_saga(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                doing = f"start {request.definition.name}"
                await pause_or_raise(error, retries=retries, doing=doing, saga_id=request.saga_id)
                continue
            if timeout_s < attempt_s:
                raise wait_timed_out(request.saga_id) from error
            # A long saga, not an outage: a broken connection would be UNAVAILABLE.
            retries.note_progress()
            await retries.wait_before_next()
        else:
            if response.saga.status in AT_REST:
                return response.saga
            # Answered early, as by a coordinator that shuts down.
            return await wait_at_rest(connection, response.saga.id, retries)


async def wait_at_rest(connection: Connection, saga_id: str, retries: Retries) -> saga_pb2.Saga:
    """Returns the saga when it is COMPLETED, COMPENSATED or FAILED. See `SagaClient.wait` for what it raises."""
    saga = await read_saga(connection, saga_id, retries)
    if saga.status in AT_REST:
        return saga
    async with aclosing(watch_events(connection.saga_service, saga_id, after=saga.sequence, retries=retries)) as events:
        async for response in events:
            if response.status in AT_REST:
                break
    return await read_saga(connection, saga_id, retries)


async def read_saga(connection: Connection, saga_id: str, retries: Retries) -> saga_pb2.Saga:
    """The saga as it stands. Raises SagaNotFound."""
    request = coordinator_pb2.GetSagaRequest(saga_id=saga_id)
    return (await call(connection.saga_service.GetSaga, request, retries=retries, doing=f"read saga {saga_id}", saga_id=saga_id)).saga
