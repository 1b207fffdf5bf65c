"""The clients for code that blocks: threads, scripts, WSGI applications. Each method is the async one of the same name, waited for.

Where a method has overloads they stand here once more, because a type checker loses them on the way through `blocking`.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, Unpack, overload

import grpc

from participant_sdk.builder import Saga
from participant_sdk.client.blocking import Face, blocking, iterating
from participant_sdk.client.loop_thread import LoopThread
from participant_sdk.client.operator_client import OperatorClient
from participant_sdk.client.saga_client import DEFAULT_ADDRESS, DEFAULT_TIMEOUT, SagaClient
from participant_sdk.client.saga_handle import OutputT_co, SagaHandle
from participant_sdk.client.start_many import WINDOW_DEFAULT, NotStarted, Started, checked_window
from participant_sdk.client.starting import SharedStartOptions, Start, StartOptions
from participant_sdk.payloads import Payload
from saga.v1 import coordinator_pb2, saga_pb2

InputT = TypeVar("InputT", bound=Payload)
OutputT = TypeVar("OutputT")
ResultT = TypeVar("ResultT")


class SyncSagaHandle(Face, Generic[OutputT_co]):
    """Names one saga. See `SagaHandle`."""

    def __init__(self, handle: SagaHandle[OutputT_co], thread: LoopThread) -> None:
        super().__init__(handle, thread)
        self.id: Final = handle.id
        self.is_new: Final = handle.is_new
        """False: the start was answered with a saga that was there already. None: attached, not started."""

    def __repr__(self) -> str:
        return f"SyncSagaHandle({self.id!r})"

    @overload
    def result(self, *, timeout: timedelta | None = None) -> OutputT_co: ...

    @overload
    def result(self, output_type: type[ResultT], *, timeout: timedelta | None = None) -> ResultT: ...

    def result(self, output_type: type[Any] | None = None, *, timeout: timedelta | None = None) -> Any:
        """Waits until the saga is COMPLETED and returns its output; see `SagaHandle.result`."""
        return self._wait_for(SagaHandle.result, output_type, timeout=timeout)

    wait = blocking(SagaHandle.wait)
    get = blocking(SagaHandle.get)
    watch = iterating(SagaHandle.watch)
    cancel = blocking(SagaHandle.cancel)


class SyncOperatorClient(Face):
    """A coordinator, as those see it who look after sagas. See `OperatorClient`."""

    explain = blocking(OperatorClient.explain)
    pause = blocking(OperatorClient.pause)
    resume = blocking(OperatorClient.resume)
    terminate = blocking(OperatorClient.terminate)
    resolve_output = blocking(OperatorClient.resolve_output)
    acknowledge_incident = blocking(OperatorClient.acknowledge_incident)
    retry_step = blocking(OperatorClient.retry_step)
    resolve_step = blocking(OperatorClient.resolve_step)
    change_step_policy = blocking(OperatorClient.change_step_policy)
    incidents = iterating(OperatorClient.incidents)
    dry_run = iterating(OperatorClient.dry_run)
    act_on_sagas = iterating(OperatorClient.act_on_sagas)
    nodes = blocking(OperatorClient.nodes)
    cordon = blocking(OperatorClient.cordon)
    participants = blocking(OperatorClient.participants)


class SyncSagaClient(Face):
    """A coordinator, as its users see it, for code that blocks. See `SagaClient`; use it with `with`, or call `close()`.

    One client serves any number of threads, and keeps one thread of its own from its first call until it is closed. It refuses to block
    a thread that runs an event loop: there a `SagaClient` is awaited. After a fork each process makes its own.
    """

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        channel_credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """See `SagaClient`."""
        client = SagaClient(address, timeout=timeout, channel_credentials=channel_credentials)
        super().__init__(client, LoopThread(type(self).__name__, closing=client.close))
        self.address: Final = client.address
        """Where the coordinator is; several addresses with commas between."""
        self.operator: Final = SyncOperatorClient(client.operator, self._thread)
        """What looks after sagas: explains them, and moves those that are stuck."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection and ends the thread; calls under way raise RuntimeError. Safe to call twice."""
        self._thread.close()

    register = blocking(SagaClient.register)
    register_definition = blocking(SagaClient.register_definition)
    get_definition = blocking(SagaClient.get_definition)
    list_definitions = iterating(SagaClient.list_definitions)

    @overload
    def start(
        self, saga: Saga[InputT, OutputT], message: InputT, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]
    ) -> SyncSagaHandle[OutputT]: ...

    @overload
    def start(
        self, saga: str, message: object, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]
    ) -> SyncSagaHandle[None]: ...

    def start(
        self, saga: Saga[Any, Any] | str, message: object, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]
    ) -> SyncSagaHandle[Any]:
        """Starts a saga with `message` as its input; see `SagaClient.start`."""
        return SyncSagaHandle(self._wait_for(SagaClient.start, saga, message, timeout=timeout, **options), self._thread)

    def start_prepared(self, request: coordinator_pb2.StartSagaRequest, /, *, timeout: timedelta | None = None) -> SyncSagaHandle[None]:
        """Starts what was prepared before; see `SagaClient.start_prepared`."""
        return SyncSagaHandle(self._wait_for(SagaClient.start_prepared, request, timeout=timeout), self._thread)

    @overload
    def run(
        self, saga: Saga[InputT, OutputT], message: InputT, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]
    ) -> OutputT: ...

    @overload
    def run(self, saga: str, message: object, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]) -> saga_pb2.Saga: ...

    def run(
        self, saga: Saga[Any, Any] | str, message: object, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]
    ) -> Any:
        """Starts a saga, waits until it is COMPLETED, and returns what it returned; see `SagaClient.run`."""
        return self._wait_for(SagaClient.run, saga, message, timeout=timeout, **options)

    @overload
    def start_many(
        self,
        saga: Saga[InputT, OutputT],
        messages: Iterable[Start[InputT]],
        /,
        *,
        timeout: timedelta | None = None,
        window: int = WINDOW_DEFAULT,
        **options: Unpack[SharedStartOptions],
    ) -> Iterator[Started[SyncSagaHandle[OutputT]] | NotStarted]: ...

    @overload
    def start_many(
        self,
        saga: Saga[InputT, OutputT],
        messages: Iterable[InputT],
        /,
        *,
        timeout: timedelta | None = None,
        window: int = WINDOW_DEFAULT,
        **options: Unpack[SharedStartOptions],
    ) -> Iterator[Started[SyncSagaHandle[OutputT]] | NotStarted]: ...

    @overload
    def start_many(
        self,
        saga: str,
        messages: Iterable[object],
        /,
        *,
        timeout: timedelta | None = None,
        window: int = WINDOW_DEFAULT,
        **options: Unpack[SharedStartOptions],
    ) -> Iterator[Started[SyncSagaHandle[None]] | NotStarted]: ...

    def start_many(
        self,
        saga: Saga[Any, Any] | str,
        messages: Iterable[object],
        /,
        *,
        timeout: timedelta | None = None,
        window: int = WINDOW_DEFAULT,
        **options: Unpack[SharedStartOptions],
    ) -> Iterator[Started[SyncSagaHandle[Any]] | NotStarted]:
        """Starts a saga with each of the messages, many at once; see `SagaClient.start_many`. The messages are taken in this thread."""
        under_way: deque[Future[Started[SagaHandle[Any]] | NotStarted]] = deque()
        iterator, position, trouble = iter(messages), 0, None
        checked_window(window)
        try:
            while True:
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                except Exception as error:
                    trouble = error
                    break
                one = self._behind._start_one(saga, item, position, timeout, options)  # noqa: SLF001 - another face of the same
                under_way.append(self._thread.submit(one))
                position += 1
                while under_way and (len(under_way) >= window or under_way[0].done()):
                    yield self._told(under_way.popleft())
            while under_way:
                yield self._told(under_way.popleft())
        finally:
            for future in under_way:
                future.cancel()
        if trouble is not None:
            raise trouble

    def _told(self, future: "Future[Started[SagaHandle[Any]] | NotStarted]") -> Started[SyncSagaHandle[Any]] | NotStarted:
        answer = self._thread.wait(future)
        if isinstance(answer, NotStarted):
            return answer
        return Started(position=answer.position, handle=SyncSagaHandle(answer.handle, self._thread))

    @overload
    def attach(self, saga_id: str) -> SyncSagaHandle[None]: ...

    @overload
    def attach(self, saga_id: str, saga: Saga[Any, OutputT]) -> SyncSagaHandle[OutputT]: ...

    def attach(self, saga_id: str, saga: Saga[Any, Any] | None = None) -> SyncSagaHandle[Any]:
        """A handle for a saga that is there already; see `SagaClient.attach`."""
        client: SagaClient = self._behind
        return SyncSagaHandle(client.attach(saga_id) if saga is None else client.attach(saga_id, saga), self._thread)

    get = blocking(SagaClient.get)
    list = iterating(SagaClient.list)
    history = iterating(SagaClient.history)
    watch = iterating(SagaClient.watch)
    wait = blocking(SagaClient.wait)
    ensure_completed = SagaClient.ensure_completed
    cancel = blocking(SagaClient.cancel)
    complete_step = blocking(SagaClient.complete_step)
    reject_step = blocking(SagaClient.reject_step)
    heartbeat = blocking(SagaClient.heartbeat)
