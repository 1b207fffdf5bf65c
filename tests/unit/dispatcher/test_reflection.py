"""Descriptors by server reflection: from servers of every sort."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2

from coordinator.dispatcher.reflection import ReflectionError, read_descriptors
from tests.warehouse import SERVICE, TYPES, warehouse_files

V1, V1ALPHA = "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"
MESSAGES, METHODS = warehouse_files().file
Request, Response = reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse


class OneFileAtATime:
    """Sends the file that was asked for and not what it imports, as some servers do."""

    def __init__(self, *files: FileDescriptorProto) -> None:
        self._files = {file.name: file for file in files}

    async def answer(self, requests: AsyncIterator[Any], _: object) -> AsyncIterator[Any]:
        async for request in requests:
            name = request.file_by_filename or METHODS.name
            file = self._files.get(name)
            if file is None or request.file_containing_symbol not in ("", SERVICE):
                yield Response(error_response=reflection_pb2.ErrorResponse(error_code=5, error_message="not found"))
            else:
                yield Response(
                    file_descriptor_response=reflection_pb2.FileDescriptorResponse(file_descriptor_proto=[file.SerializeToString()])
                )


@asynccontextmanager
async def channel_to(server: "grpc.aio.Server") -> AsyncIterator[grpc.aio.Channel]:
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


def server_with(service: str, answering: OneFileAtATime) -> "grpc.aio.Server":
    handler = grpc.stream_stream_rpc_method_handler(
        answering.answer, request_deserializer=Request.FromString, response_serializer=Response.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": handler}),))
    return server


def names_of(files: Iterable[FileDescriptorProto]) -> set[str]:
    return {file.name for file in files if not file.name.startswith("google/protobuf/")}


async def test_server_of_grpcio_tells_everything() -> None:
    server = grpc.aio.server()
    reflection.enable_server_reflection((SERVICE,), server, pool=TYPES.pool)
    async with channel_to(server) as channel:
        found = await read_descriptors(channel, [SERVICE], time_limit_s=5)
    assert names_of(found.file) == {MESSAGES.name, METHODS.name}


@pytest.mark.parametrize("service", [V1, V1ALPHA])
async def test_imports_are_asked_for_under_either_name(service: str) -> None:
    async with channel_to(server_with(service, OneFileAtATime(MESSAGES, METHODS))) as channel:
        found = await read_descriptors(channel, [SERVICE], time_limit_s=5)
    assert list(found.file) == [METHODS, MESSAGES]


async def test_service_that_is_not_there_is_left_out() -> None:
    async with channel_to(server_with(V1, OneFileAtATime(MESSAGES, METHODS))) as channel:
        found = await read_descriptors(channel, ["warehouse.v1.Other"], time_limit_s=5)
    assert list(found.file) == []


async def test_import_that_is_not_told_is_named() -> None:
    async with channel_to(server_with(V1, OneFileAtATime(METHODS))) as channel:
        with pytest.raises(ReflectionError, match=f"does not tell '{MESSAGES.name}'"):
            await read_descriptors(channel, [SERVICE], time_limit_s=5)


async def test_server_without_reflection_is_told_with_what_to_do() -> None:
    async with channel_to(grpc.aio.server()) as channel:
        with pytest.raises(ReflectionError, match="name that as `descriptors`"):
            await read_descriptors(channel, [SERVICE], time_limit_s=5)


async def test_server_that_is_away_is_told() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(ReflectionError, match="UNAVAILABLE"):
            await read_descriptors(channel, [SERVICE], time_limit_s=5)


async def test_server_that_is_silent_is_given_up_in_time() -> None:
    class Silent(OneFileAtATime):
        async def answer(self, requests: AsyncIterator[Any], _: object) -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield Response()

    async with channel_to(server_with(V1, Silent())) as channel:
        with pytest.raises(ReflectionError, match="no answer to server reflection within"):
            await read_descriptors(channel, [SERVICE], time_limit_s=0.1)


async def test_bytes_that_are_no_file_are_told() -> None:
    class Garbage(OneFileAtATime):
        async def answer(self, requests: AsyncIterator[Any], _: object) -> AsyncIterator[Any]:
            async for _request in requests:
                yield Response(file_descriptor_response=reflection_pb2.FileDescriptorResponse(file_descriptor_proto=[b"\xff\xff"]))

    async with channel_to(server_with(V1, Garbage())) as channel:
        with pytest.raises(ReflectionError, match="cannot be read"):
            await read_descriptors(channel, [SERVICE], time_limit_s=5)
