"""Asks a service for its descriptors by server reflection, https://github.com/grpc/grpc/blob/master/doc/server-reflection.md."""

import asyncio
from collections.abc import Collection
from typing import Final

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from google.rpc.code_pb2 import Code
from grpc_reflection.v1alpha import reflection_pb2

from participant_sdk.descriptors import WELL_KNOWN_PREFIX

FILES_MAX: Final = 1_000
"""Files that are read of one service."""
DESCRIPTOR_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of them together."""
_METHODS: Final = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
"""The same messages under two names; servers speak the one, the other, or both."""


class ReflectionError(Exception):
    """The service does not tell its descriptors. The message is for people."""

    def __init__(self, message: str, *, ended_by: grpc.aio.AioRpcError | None = None) -> None:
        super().__init__(message)
        self.ended_by = ended_by
        """How the call ended; None: it was answered."""


async def read_descriptors(channel: grpc.aio.Channel, services: Collection[str], *, time_limit_s: float) -> FileDescriptorSet:
    """The files of those services with everything that they import. A service that is not there is left out.

    Raises ReflectionError, and nothing else.
    """
    ends_at_s = asyncio.get_running_loop().time() + time_limit_s
    try:
        for method in _METHODS:
            found = await _Reader(channel, method, ends_at_s).read(services)
            if found is not None:
                return found
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise ReflectionError(f"no answer to server reflection within {time_limit_s:g} s", ended_by=error) from error
        raise ReflectionError(f"server reflection ended with {error.code().name}: {error.details()}", ended_by=error) from error
    except (grpc.aio.UsageError, DecodeError) as error:
        raise ReflectionError(f"the answer to server reflection cannot be read: {error}") from error
    raise ReflectionError("it does not serve reflection; write its descriptors into a file and name that as `descriptors`")


class _Reader:
    """Asks one question after the other, each on a stream of its own: writing to one that a server has ended hides what it ended with."""

    def __init__(self, channel: grpc.aio.Channel, method: str, ends_at_s: float) -> None:
        self._call = channel.unary_unary(
            method,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        self._ends_at_s = ends_at_s
        self._files: dict[str, FileDescriptorProto] = {}
        self._bytes = 0

    async def read(self, services: Collection[str]) -> FileDescriptorSet | None:
        """None: reflection is not served under this name."""
        try:
            for service in services:
                await self._ask(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service), service)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return None
            raise
        while missing := self._find_missing():
            before = len(self._files)
            await self._ask(reflection_pb2.ServerReflectionRequest(file_by_filename=missing), missing)
            if len(self._files) == before:
                raise ReflectionError(f"server reflection does not tell {missing!r}, which another file imports; name `descriptors`")
        return FileDescriptorSet(file=list(self._files.values()))

    async def _ask(self, request: reflection_pb2.ServerReflectionRequest, what: str) -> None:
        """Keeps the files of the answer: none, if it does not know that."""
        answer = await self._call(request, timeout=max(self._ends_at_s - asyncio.get_running_loop().time(), 0.0))
        match answer.WhichOneof("message_response"):
            case "file_descriptor_response":
                for content in answer.file_descriptor_response.file_descriptor_proto:
                    self._keep(content)
            case "error_response":
                said = answer.error_response
                if said.error_code != Code.NOT_FOUND:
                    raise ReflectionError(f"asked for {what}, server reflection answered {said.error_code}: {said.error_message}")
            case found:
                raise ReflectionError(f"asked for {what}, server reflection answered with {found or 'nothing'}")

    def _keep(self, content: bytes) -> None:
        self._bytes += len(content)
        if len(self._files) >= FILES_MAX or self._bytes > DESCRIPTOR_BYTES_MAX:
            raise ReflectionError(f"expected at most {FILES_MAX} files of {DESCRIPTOR_BYTES_MAX} bytes together; name `descriptors`")
        file = FileDescriptorProto.FromString(content)
        self._files[file.name] = file

    def _find_missing(self) -> str | None:
        """A file that is imported and was not sent. Those of google.protobuf are here already."""
        imported = (name for file in self._files.values() for name in file.dependency)
        return next((name for name in imported if name not in self._files and not name.startswith(WELL_KNOWN_PREFIX)), None)
