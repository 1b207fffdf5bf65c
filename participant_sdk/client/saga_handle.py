"""One saga that was started, or is there already, in the hands of whoever waits for it."""

# ruff: noqa: ASYNC109 - a timeout here ends the waiting, not the saga: an error of its own tells it apart from a cancelled call

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Final, Protocol, TypeVar, overload

from google.protobuf.message import Message

from saga.v1 import coordinator_pb2, saga_pb2

OutputT = TypeVar("OutputT", bound=Message)


class SagaCalls(Protocol):
    """What a handle needs of its client."""

    async def get(self, saga_id: str) -> saga_pb2.Saga: ...

    async def wait(self, saga_id: str, *, timeout: timedelta | None = None) -> saga_pb2.Saga: ...

    def ensure_completed(self, saga: saga_pb2.Saga) -> saga_pb2.Saga: ...

    async def cancel(self, saga_id: str, *, reason: str = "", actor: str = "") -> saga_pb2.Saga: ...

    def watch(
        self, saga_id: str, *, after: int = 0, timeout: timedelta | None = None
    ) -> AsyncGenerator[coordinator_pb2.WatchSagaResponse]: ...


class SagaHandle:
    """Names one saga. It holds nothing else, so it may be dropped and made again with `SagaClient.attach`."""

    def __init__(self, saga_id: str, *, client: SagaCalls, is_new: bool | None) -> None:
        self.id: Final = saga_id
        self.is_new: Final = is_new
        """False: the start was answered with a saga that was there already. None: attached, not started."""
        self._client: Final = client

    def __repr__(self) -> str:
        return f"SagaHandle({self.id!r})"

    @overload
    async def result(self, *, timeout: timedelta | None = None) -> None: ...

    @overload
    async def result(self, output_type: type[OutputT], *, timeout: timedelta | None = None) -> OutputT: ...

    async def result(self, output_type: type[OutputT] | None = None, *, timeout: timedelta | None = None) -> OutputT | None:
        """Waits until the saga is COMPLETED and returns its output; without `output_type` nothing.

        Raises SagaNotCompleted if it was undone or needs a person; WaitTimedOut after `timeout`, if there is one;
        TypeError if the output is of another type; CoordinatorUnavailable if nobody answers for too long.
        """
        saga = self._client.ensure_completed(await self._client.wait(self.id, timeout=timeout))
        return None if output_type is None else output_of(saga, output_type)

    async def wait(self, *, timeout: timedelta | None = None) -> saga_pb2.Saga:
        """Waits until the saga is COMPLETED, COMPENSATED or FAILED, and returns it. Look at its status."""
        return await self._client.wait(self.id, timeout=timeout)

    async def get(self) -> saga_pb2.Saga:
        """The saga as it stands."""
        return await self._client.get(self.id)

    def watch(self, *, after: int = 0, timeout: timedelta | None = None) -> AsyncGenerator[coordinator_pb2.WatchSagaResponse]:
        """Its events as they are committed; see `SagaClient.watch`."""
        return self._client.watch(self.id, after=after, timeout=timeout)

    async def cancel(self, *, reason: str = "", actor: str = "") -> saga_pb2.Saga:
        """Asks it to turn back; see `SagaClient.cancel`."""
        return await self._client.cancel(self.id, reason=reason, actor=actor)


def output_of(saga: saga_pb2.Saga, output_type: type[OutputT]) -> OutputT:
    """The output of a completed saga.

    Raises TypeError if it is of another type, or if the saga has none.
    """
    output = output_type()
    expected = output.DESCRIPTOR.full_name
    if not saga.HasField("output"):
        raise TypeError(
            f"saga {saga.id} ({saga.definition.name}) has no output, expected {expected}; say what it returns with .returns(...)"
        )
    if not saga.output.Unpack(output):
        raise TypeError(f"output of saga {saga.id} ({saga.definition.name}): expected {expected}, found {saga.output.TypeName()}")
    return output
