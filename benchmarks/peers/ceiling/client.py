"""The client of the ceiling: streams of starts, each on a connection of its own."""

import argparse
import asyncio
import secrets
from typing import Final

import grpc

from benchmarks.measured_run import add_work_arguments, measure, tell, work_of
from benchmarks.peers.ceiling.frames import NUMBER_DIGITS, Outgoing, channel, frames, message
from benchmarks.peers.processes import add_client_arguments, processes_of
from saga.v1 import coordinator_pb2, coordinator_pb2_grpc, saga_pb2

TIME_LEFT_S: Final = 60
AnswerStream = grpc.aio.StreamStreamCall[coordinator_pb2.StartSagasRequest, coordinator_pb2.StartSagasResponse]


class Starts:
    """One stream. Starts of one turn of the loop go in one frame."""

    def __init__(self, stream: AnswerStream, definition: saga_pb2.DefinitionReference) -> None:
        self._stream = stream
        self._outgoing = Outgoing(coordinator_pb2.StartSagasRequest, stream.write)
        self._waiting: dict[int, asyncio.Future[saga_pb2.SagaStatus.ValueType]] = {}
        self._template = coordinator_pb2.StartSagaRequest(definition=definition, input=message(), wait=True)
        self._tasks = [asyncio.create_task(self._outgoing.write_forever()), asyncio.create_task(self._read_forever())]

    async def run(self, number: int) -> saga_pb2.SagaStatus.ValueType:
        """Starts a saga, and returns how it has ended."""
        call = self._outgoing.open().calls.add()
        call.id = number + 1
        call.time_left.seconds = TIME_LEFT_S
        call.start.CopyFrom(self._template)
        call.start.saga_id = _saga_id(number)
        ended = self._waiting[call.id] = asyncio.get_running_loop().create_future()
        status: saga_pb2.SagaStatus.ValueType = await ended
        return status

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._stream.cancel()

    async def _read_forever(self) -> None:
        async for frame in frames(self._stream.read, coordinator_pb2.StartSagasResponse):
            for reply in frame.replies:
                self._waiting.pop(reply.id).set_result(reply.started.saga.status)
        for ended in self._waiting.values():
            ended.set_exception(ConnectionError("the coordinator has ended the stream"))


def _saga_id(number: int) -> str:
    """As random as others, but for its end, which tells the participants the number."""
    chance = secrets.token_hex(10)
    return f"{chance[:8]}-{chance[8:12]}-4{chance[13:16]}-8{chance[17:20]}-{number:0{NUMBER_DIGITS}x}"


async def main(given: argparse.Namespace) -> None:
    work = work_of(given)
    definition = saga_pb2.DefinitionReference(name="bench", version=1)
    expected = saga_pb2.SAGA_STATUS_COMPENSATED if work.is_compensated else saga_pb2.SAGA_STATUS_COMPLETED
    target = f"127.0.0.1:{given.port}"
    stubs = [coordinator_pb2_grpc.SagaServiceStub(channel(target)) for _ in range(given.streams)]
    streams = [Starts(stub.StartSagas(), definition) for stub in stubs]

    async def run_one(number: int) -> None:
        status = await streams[number % len(streams)].run(number)
        if status != expected:
            raise SystemExit(f"saga {number} ended {saga_pb2.SagaStatus.Name(status)}")

    tell(await measure(work, run_one, processes_of(given)))
    for stream in streams:
        stream.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_work_arguments(parser)
    add_client_arguments(parser)
    parser.add_argument("--port", type=int, required=True, help="of the coordinator")
    parser.add_argument("--streams", type=int, default=1)
    asyncio.run(main(parser.parse_args()))
