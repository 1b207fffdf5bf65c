"""One saga that was started, or is there already, in the hands of whoever waits for it."""

# ruff: noqa: ASYNC109 - a timeout here ends the waiting, not the saga: an error of its own tells it apart from a cancelled call

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any, Final, Generic, Protocol, TypeVar, overload

from typing_extensions import TypeVar as TypeVarWithDefault

from participant_sdk.payloads import PayloadType, payload_type
from saga.v1 import coordinator_pb2, saga_pb2

OutputT_co = TypeVarWithDefault("OutputT_co", covariant=True, default=object)
"""What the saga returns: None if that is nothing, or not known here."""
ResultT = TypeVar("ResultT")


class SagaCalls(Protocol):
    """What a handle needs of its client."""

    async def get(self, saga_id: str) -> saga_pb2.Saga: ...

    async def wait(self, saga_id: str, *, timeout: timedelta | None = None) -> saga_pb2.Saga: ...

    def ensure_completed(self, saga: saga_pb2.Saga) -> saga_pb2.Saga: ...

    async def cancel(self, saga_id: str, *, reason: str = "", actor: str = "") -> saga_pb2.Saga: ...

    def watch(
        self, saga_id: str, *, after: int = 0, timeout: timedelta | None = None
    ) -> AsyncGenerator[coordinator_pb2.WatchSagaResponse]: ...


class SagaHandle(Generic[OutputT_co]):
    """Names one saga. It holds nothing else, so it may be dropped and made again with `SagaClient.attach`."""

    def __init__(self, saga_id: str, *, client: SagaCalls, is_new: bool | None, output_type: type[OutputT_co] | None) -> None:
        """`output_type`: what the saga returns; None: nothing, or nobody knows here."""
        self.id: Final = saga_id
        self.is_new: Final = is_new
        """False: the start was answered with a saga that was there already. None: attached, not started."""
        self._client: Final = client
        self._output_type: Final = output_type

    def __repr__(self) -> str:
        return f"SagaHandle({self.id!r})"

    @overload
    async def result(self, *, timeout: timedelta | None = None) -> OutputT_co: ...

    @overload
    async def result(self, output_type: type[ResultT], *, timeout: timedelta | None = None) -> ResultT: ...

    async def result(self, output_type: type[Any] | None = None, *, timeout: timedelta | None = None) -> Any:
        """Waits until the saga is COMPLETED and returns its output, in the type that its definition here says it has.

        `output_type`: that type, of a saga that was started by its name or attached by its id; without it such a one gives None.

        Raises SagaNotCompleted if it was undone or needs a person; WaitTimedOut after `timeout`, if there is one;
        TypeError if the output is of another type; CoordinatorUnavailable if nobody answers for too long.
        """
        saga = self._client.ensure_completed(await self._client.wait(self.id, timeout=timeout))
        wanted = output_type if output_type is not None else self._output_type
        return None if wanted is None else output_of(saga, wanted)

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


def output_of(saga: saga_pb2.Saga, output_type: type[ResultT]) -> ResultT:
    """The output of a completed saga.

    Raises TypeError if it is of another type, or if the saga has none.
    """
    kind: PayloadType[Any] = payload_type(output_type)
    if not saga.HasField("output"):
        raise TypeError(
            f"saga {saga.id} ({saga.definition.name}) has no output, expected {kind.name}; say what it returns with .returns(...)"
        )
    if not kind.is_in(saga.output):
        raise TypeError(f"output of saga {saga.id} ({saga.definition.name}): expected {kind.name}, found {saga.output.TypeName()}")
    output: ResultT = kind.unpack(saga.output)
    return output
