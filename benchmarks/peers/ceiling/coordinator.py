"""The coordinator of the ceiling: starts in frames, calls in frames, and every step committed before the next one is called.

It knows one plan, trusts everybody, and forgets what it did not write: no retries, no deadlines, no recovery, no expressions, no spans.
"""

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc

from benchmarks.peers.books import STEP_NAMES
from benchmarks.peers.ceiling.frames import ACTIONS, Outgoing, channel, frames, server
from benchmarks.peers.ceiling.journal import Batch, Journal, PostgresJournal, Rows, SqliteJournal
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, participant_pb2, participant_pb2_grpc, saga_pb2

TIME_LEFT_S: Final = 30
LAST: Final = len(STEP_NAMES) - 1
Calls = Outgoing[participant_pb2.ExchangeRequest]
Answers = Outgoing[coordinator_pb2.StartSagasResponse]
StartStream = grpc.aio.ServicerContext[coordinator_pb2.StartSagasRequest, coordinator_pb2.StartSagasResponse]


class Saga:
    """One that runs."""

    __slots__ = ("answers", "id", "outputs", "sequence", "start", "step")

    def __init__(self, start: coordinator_pb2.StartCall, answers: Answers) -> None:
        self.id = start.start.saga_id
        self.start = start
        self.answers = answers
        self.step = 0
        self.sequence = 0
        self.outputs: list[participant_pb2.Succeeded] = []


class Coordinator:
    """Decides what is written and what follows from it. WHAT FOLLOWS LEAVES WHEN THE BATCH IS COMMITTED."""

    def __init__(self, journal: Journal, participants: int) -> None:
        self._journal = journal
        self._rows = Rows()
        self._batch = Batch()
        self._effects: list[tuple[Callable[[Saga], None], Saga]] = []
        self._filled = asyncio.Event()
        self._open: dict[int, Saga] = {}
        self._calls_made = 0
        self.calls: list[Calls] = []
        self._place = [step % participants for step in range(len(STEP_NAMES))]
        self._executions = [_execution(step) for step in range(len(STEP_NAMES))]
        self._compensations = [_compensation(step) for step in range(len(STEP_NAMES))]

    async def commit_forever(self) -> None:
        """Whatever is there at each turn is one batch."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            batch, self._batch = self._batch, Batch()
            effects, self._effects = self._effects, []
            await self._journal.commit(batch)
            for release, saga in effects:
                release(saga)

    def started(self, frame: coordinator_pb2.StartSagasRequest, answers: Answers) -> None:
        for start in frame.calls:
            saga = Saga(start, answers)
            self._rows.start(self._batch, saga.id)
            self._note(saga, start.start.input.value)
            self._effects.append((self._execute, saga))
        self._filled.set()

    def replied(self, frame: participant_pb2.ExchangeResponse) -> None:
        for reply in frame.replies:
            saga = self._open.pop(reply.id)
            if reply.HasField("compensated"):
                self._compensated(saga)
            elif reply.executed.HasField("succeeded"):
                self._succeeded(saga, reply.executed.succeeded)
            else:
                self._rejected(saga, reply.executed.SerializeToString())
        self._filled.set()

    def _succeeded(self, saga: Saga, succeeded: participant_pb2.Succeeded) -> None:
        self._note(saga, succeeded.output.value)
        saga.outputs.append(succeeded)
        if saga.step < LAST:
            saga.step += 1
            self._effects.append((self._execute, saga))
            return
        self._note(saga, b"completed")
        self._rows.change(self._batch, saga.id, saga.sequence, int(saga_pb2.SAGA_STATUS_COMPLETED), is_ended=True)
        self._effects.append((self._answer_completed, saga))

    def _rejected(self, saga: Saga, why: bytes) -> None:
        self._note(saga, why)
        self._note(saga, b"turned back")
        self._rows.change(self._batch, saga.id, saga.sequence, int(saga_pb2.SAGA_STATUS_COMPENSATING), is_ended=False)
        saga.step -= 1
        self._effects.append((self._compensate, saga))

    def _compensated(self, saga: Saga) -> None:
        self._note(saga, b"compensated")
        saga.step -= 1
        if saga.step >= 0:
            self._effects.append((self._compensate, saga))
            return
        self._note(saga, b"all is undone")
        self._rows.change(self._batch, saga.id, saga.sequence, int(saga_pb2.SAGA_STATUS_COMPENSATED), is_ended=True)
        self._effects.append((self._answer_compensated, saga))

    def _note(self, saga: Saga, payload: bytes) -> None:
        saga.sequence += 1
        self._rows.event(self._batch, saga.id, saga.sequence, payload)

    def _execute(self, saga: Saga) -> None:
        call = self._call(saga)
        request = call.execute
        request.CopyFrom(self._executions[saga.step])
        request.saga_id = saga.id
        request.key = f"{saga.id}/{request.step_id}/execute/1"
        request.input.CopyFrom(saga.start.start.input)

    def _compensate(self, saga: Saga) -> None:
        call = self._call(saga)
        request = call.compensate
        request.CopyFrom(self._compensations[saga.step])
        request.saga_id = saga.id
        request.key = f"{saga.id}/{request.step_id}/compensate/1"
        request.execute_key = f"{saga.id}/{request.step_id}/execute/1"
        request.input.CopyFrom(saga.start.start.input)
        request.succeeded.CopyFrom(saga.outputs[saga.step])

    def _call(self, saga: Saga) -> participant_pb2.ExchangeCall:
        call = self.calls[self._place[saga.step]].open().calls.add()
        self._calls_made += 1
        call.id = self._calls_made
        self._open[call.id] = saga
        return call

    def _answer_completed(self, saga: Saga) -> None:
        self._answer(saga, saga_pb2.SAGA_STATUS_COMPLETED)

    def _answer_compensated(self, saga: Saga) -> None:
        self._answer(saga, saga_pb2.SAGA_STATUS_COMPENSATED)

    def _answer(self, saga: Saga, status: saga_pb2.SagaStatus.ValueType) -> None:
        reply = saga.answers.open().replies.add()
        reply.id = saga.start.id
        answer = reply.started.saga
        answer.id = saga.id
        answer.status = status
        answer.definition.CopyFrom(saga.start.start.definition)
        answer.input.CopyFrom(saga.start.start.input)
        for step, succeeded in zip(STEP_NAMES, saga.outputs, strict=False):
            answer.steps.add(id=step).output.CopyFrom(succeeded.output)


class SagaService(coordinator_pb2_grpc.SagaServiceServicer):
    """What clients call."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def StartSagas(self, request_iterator: object, context: StartStream) -> None:  # type: ignore[override]  # noqa: N802
        answers = Answers(coordinator_pb2.StartSagasResponse, context.write)
        writing = asyncio.create_task(answers.write_forever())
        try:
            async for frame in frames(context.read, coordinator_pb2.StartSagasRequest):
                self._coordinator.started(frame, answers)
        finally:
            writing.cancel()


def _execution(step: int) -> participant_pb2.ExecuteRequest:
    request = participant_pb2.ExecuteRequest(step_id=STEP_NAMES[step], action=ACTIONS[step], attempt=1)
    request.definition.name, request.definition.version = "bench", 1
    request.first_attempt_at.GetCurrentTime()
    request.time_left.seconds = TIME_LEFT_S
    return request


def _compensation(step: int) -> participant_pb2.CompensateRequest:
    request = participant_pb2.CompensateRequest(step_id=STEP_NAMES[step], action=ACTIONS[step], attempt=1)
    request.definition.name, request.definition.version = "bench", 1
    request.first_attempt_at.GetCurrentTime()
    request.time_left.seconds = TIME_LEFT_S
    return request


async def main(given: argparse.Namespace) -> None:
    journal: Journal
    if given.postgres_url:
        journal = await PostgresJournal.open(given.postgres_url, given.tables)
    else:
        journal = SqliteJournal(given.sqlite, given.tables)
    coordinator = Coordinator(journal, len(given.participants))
    async with asyncio.TaskGroup() as group:
        for port in given.participants:
            stub = participant_pb2_grpc.ParticipantServiceStub(channel(f"127.0.0.1:{port}"))
            stream = stub.Exchange()
            calls = Calls(participant_pb2.ExchangeRequest, stream.write)
            coordinator.calls.append(calls)
            group.create_task(calls.write_forever())
            group.create_task(_read_forever(stream, coordinator))
        group.create_task(coordinator.commit_forever())
        serving = server()
        coordinator_pb2_grpc.add_SagaServiceServicer_to_server(SagaService(coordinator), serving)  # type: ignore[abstract]
        serving.add_insecure_port(f"127.0.0.1:{given.port}")
        await serving.start()


async def _read_forever(
    stream: "grpc.aio.StreamStreamCall[participant_pb2.ExchangeRequest, participant_pb2.ExchangeResponse]", coordinator: Coordinator
) -> None:
    async for frame in frames(stream.read, participant_pb2.ExchangeResponse):
        coordinator.replied(frame)
    raise ConnectionError("a participant has ended its stream")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="to serve on")
    parser.add_argument("--participants", type=int, nargs="+", required=True, help="their ports")
    parser.add_argument("--sqlite", type=Path, help="file that is made")
    parser.add_argument("--postgres-url", default="", help="of a database that is made")
    parser.add_argument("--tables", choices=["lean", "journal"], required=True)
    asyncio.run(main(parser.parse_args()))
