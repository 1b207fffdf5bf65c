"""What stands in for a collector of traces: takes every span, keeps none, and counts them. On SIGTERM it writes the count and ends."""

import argparse
import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceServicer, add_TraceServiceServicer_to_server


class _Counting(TraceServiceServicer):
    def __init__(self) -> None:
        self.spans = 0

    async def Export(  # noqa: N802 - the name in the contract
        self, request: ExportTraceServiceRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> ExportTraceServiceResponse:
        self.spans += sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        return ExportTraceServiceResponse()


async def main(address: str, count: Path) -> None:
    counting, server = _Counting(), grpc.aio.server(options=[("grpc.max_receive_message_length", 64 * 1024 * 1024)])
    add_TraceServiceServicer_to_server(counting, server)  # type: ignore[no-untyped-call]  # the package has no stubs for it
    server.add_insecure_port(address)

    def end() -> None:
        count.write_text(str(counting.spans))
        os._exit(0)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--count", type=Path, required=True, help="file that is written at the end")
    given = parser.parse_args()
    asyncio.run(main(given.address, given.count))
