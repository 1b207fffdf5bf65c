"""The participants: each on a port of its own, all in one process. They answer, and count in memory what they have done and undone."""

import argparse
import asyncio
from pathlib import Path

import grpc

from benchmarks.peers.books import STEP_NAMES, Books
from benchmarks.peers.ceiling.frames import frames, message, number_of, server
from saga.v1 import participant_pb2, participant_pb2_grpc

ReplyStream = grpc.aio.ServicerContext[participant_pb2.ExchangeRequest, participant_pb2.ExchangeResponse]


class Participant(participant_pb2_grpc.ParticipantServiceServicer):
    """Answers a frame with a frame."""

    def __init__(self, books: Books, *, is_refusing: bool) -> None:
        self._books = books
        self._succeeded = participant_pb2.ExchangeReply()
        self._succeeded.executed.succeeded.output.CopyFrom(message())
        self._undone = participant_pb2.ExchangeReply()
        self._undone.compensated.compensated.handler_ran = True
        self._refused = participant_pb2.ExchangeReply()
        self._refused.executed.rejected.status.code = grpc.StatusCode.FAILED_PRECONDITION.value[0]
        self._refused.executed.rejected.status.message = "refused"
        self._refuses = STEP_NAMES[-1] if is_refusing else ""

    async def Exchange(self, request_iterator: object, context: ReplyStream) -> None:  # type: ignore[override]  # noqa: N802
        async for frame in frames(context.read, participant_pb2.ExchangeRequest):
            answer = participant_pb2.ExchangeResponse()
            for call in frame.calls:
                reply = answer.replies.add()
                reply.CopyFrom(self._reply(call))
                reply.id = call.id
            await context.write(answer)

    def _reply(self, call: participant_pb2.ExchangeCall) -> participant_pb2.ExchangeReply:
        if call.HasField("compensate"):
            self._books.undo(call.compensate.step_id, number_of(call.compensate.saga_id))
            return self._undone
        step = call.execute.step_id
        if step == self._refuses:
            return self._refused
        self._books.do(step, number_of(call.execute.saga_id))
        return self._succeeded


async def main(ports: list[int], books_path: Path, *, is_refusing: bool) -> None:
    books = Books()
    books.end_when_asked(books_path)
    servers = []
    for port in ports:
        one = server()
        participant = Participant(books, is_refusing=is_refusing)  # type: ignore[abstract]
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(participant, one)
        one.add_insecure_port(f"127.0.0.1:{port}")
        await one.start()
        servers.append(one)
    await asyncio.gather(*(one.wait_for_termination() for one in servers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ports", type=int, nargs="+", required=True)
    parser.add_argument("--books", type=Path, required=True, help="file that is written at the end")
    parser.add_argument("--refusing", action="store_true", help="whether the last step refuses")
    given = parser.parse_args()
    asyncio.run(main(given.ports, given.books, is_refusing=given.refusing))
