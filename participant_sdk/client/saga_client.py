"""Starts sagas and follows them, from Python."""

# ruff: noqa: ASYNC109 - a timeout here ends the waiting, not the saga: an error of its own tells it apart from a cancelled call

import math
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, TypeVar, Unpack, cast, overload

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from participant_sdk.builder import Saga
from participant_sdk.client import completion
from participant_sdk.client.calls import ATTEMPT_TIMEOUT_S, call
from participant_sdk.client.connection import Connection
from participant_sdk.client.errors import CoordinatorError, InvalidRequest, SagaNotCompleted
from participant_sdk.client.operator_client import OperatorClient
from participant_sdk.client.outcomes import read_saga, start_and_wait, wait_at_rest
from participant_sdk.client.pages import definitions_of, events_of, sagas_of
from participant_sdk.client.saga_handle import SagaHandle, output_of
from participant_sdk.client.start_calls import StartCalls
from participant_sdk.client.start_many import WINDOW_DEFAULT, NotStarted, Started, in_window
from participant_sdk.client.starting import SharedStartOptions, Start, StartOptions, start_request
from participant_sdk.client.telemetry import start_span, trace_metadata
from participant_sdk.client.values import checked_id, to_timestamp
from participant_sdk.client.watching import watch_events
from participant_sdk.errors import Rejected
from participant_sdk.ids import new_saga_id
from participant_sdk.payloads import Payload
from saga.v1 import coordinator_pb2, participant_pb2, saga_pb2

DEFAULT_ADDRESS: Final = "127.0.0.1:7700"
DEFAULT_TIMEOUT: Final = timedelta(seconds=30)

InputT = TypeVar("InputT", bound=Payload)
OutputT = TypeVar("OutputT")


class SagaClient:
    """A coordinator, as its users see it.

    Every call is safe to repeat, and is repeated with backoff while the coordinator is away, up to `timeout` (30 s by
    default): reads and cancels by their nature, starts because the client makes the saga's id (R2). What is then still
    not answered raises CoordinatorUnavailable. The errors stand in `participant_sdk.client.errors`, one per reaction.

    A coordinator of several nodes may be given by several addresses, "a:7700,b:7700" or a sequence: a call goes to the node that answered
    last, and on to the next one when it does not answer any more. Any node does for any saga.

    Use it with `async with`, or call `close()`. One client serves any number of concurrent calls of one event loop.
    """

    def __init__(
        self,
        address: str | Sequence[str] = DEFAULT_ADDRESS,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        channel: grpc.aio.Channel | None = None,
        channel_credentials: grpc.ChannelCredentials | None = None,
        start_in_frames: bool | None = None,
    ) -> None:
        """`address`: "host:port", several of them, or a gRPC target such as "dns:///host:port" or "unix:path".

        `channel_credentials`: for TLS, as `grpc.ssl_channel_credentials(…)` makes them; None: none.
        `channel`: one that is made otherwise; it becomes the client's own, and `address` is then not dialled.

        `start_in_frames`: whether starts share gRPC messages on one stream, at a third of the processor time; None: when many are under
        way. A coordinator, or something in between, that knows no such stream gets them one by one in any case.
        """
        self._connection: Final = Connection(address, timeout=timeout, channel=channel, credentials=channel_credentials)
        self.address: Final = self._connection.address
        """Where the coordinator is; several addresses with commas between."""
        self._start_saga: Final = StartCalls(self._connection, in_frames=start_in_frames)
        self.operator: Final = OperatorClient(self._connection)
        """What looks after sagas: explains them, and moves those that are stuck."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls under way are cut off. Safe to call twice."""
        await self._connection.close()

    # ── Definitions ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def register(self, saga: Saga[Any, Any]) -> bool:
        """Stores the saga's definition under its name and version. True if it is new, False if the same was there.

        Raises DefinitionError before anything is sent; AlreadyExists if that version is there with other content (raise
        the version); InvalidRequest with one violation per problem that only the coordinator can see.
        """
        return await self.register_definition(saga.definition(), saga.descriptors())

    async def register_definition(self, definition: saga_pb2.SagaDefinition, descriptors: FileDescriptorSet) -> bool:
        """The same for a definition made without the builder. `descriptors`: its message types, closed over imports."""
        request = coordinator_pb2.RegisterDefinitionRequest(definition=definition, descriptors=descriptors)
        doing = f"register {definition.name} v{definition.version}"
        return (
            await call(self._connection.saga_service.RegisterDefinition, request, retries=self._connection.retries(), doing=doing)
        ).created

    async def get_definition(self, name: str, *, version: int = 0) -> coordinator_pb2.GetDefinitionResponse:
        """One definition with its message types; version 0 is the highest. Raises DefinitionNotFound."""
        reference = saga_pb2.DefinitionReference(name=name, version=version)
        request = coordinator_pb2.GetDefinitionRequest(definition=reference)
        return await call(
            self._connection.saga_service.GetDefinition, request, retries=self._connection.retries(), doing=f"read definition {name}"
        )

    def list_definitions(self, name: str = "") -> AsyncGenerator[saga_pb2.SagaDefinition]:
        """All definitions by name and version, or all versions of one name."""
        return definitions_of(self._connection, name)

    # ── Starting ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    async def start(
        self, saga: Saga[InputT, OutputT], message: InputT, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]
    ) -> SagaHandle[OutputT]: ...

    @overload
    async def start(
        self, saga: str, message: object, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]
    ) -> SagaHandle[None]: ...

    async def start(
        self, saga: Saga[Any, Any] | str, message: object, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]
    ) -> SagaHandle[Any]:
        """Starts a saga with `message` as its input. When this returns, the coordinator has committed to end it (P1).

        `saga` is the builder's saga, of which exactly that version is started, or the name of a registered definition.
        `timeout`: how long to go on trying; None: as long as the client does by default.

        Raises DefinitionNotFound, AlreadyExists, InvalidRequest; CoordinatorUnavailable, whose `saga_id` serves to repeat
        the start later, since nobody knows whether it took place.
        """
        return await self._start(start_request(saga, message, options, timeout=timeout), _output_type_of(saga), timeout)

    async def start_prepared(self, request: coordinator_pb2.StartSagaRequest, /, *, timeout: timedelta | None = None) -> SagaHandle[None]:
        """Starts what was prepared before, as by `Outbox.start_saga`: a request with a saga id, which may be repeated (R2).

        Raises what `start` raises.
        """
        return await self._start(request, None, timeout)

    @overload
    async def run(
        self, saga: Saga[InputT, OutputT], message: InputT, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]
    ) -> OutputT: ...

    @overload
    async def run(
        self, saga: str, message: object, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]
    ) -> saga_pb2.Saga: ...

    async def run(
        self, saga: Saga[Any, Any] | str, message: object, /, *, timeout: timedelta | None = None, **options: Unpack[StartOptions]
    ) -> Any:
        """Starts a saga, waits until it is COMPLETED, and returns what it returned.

        Of a saga that is named by its text nobody knows here what that is: the saga itself is returned, for `output_of`, without its
        input and steps, because most callers look at neither and they are most of it; `get` has them.
        A coordinator that is restarted meanwhile is asked again with the same id. `timeout`: how long to wait; None: as
        long as the saga takes.

        Raises what `start` raises; SagaNotCompleted if it was undone or needs a person; WaitTimedOut after `timeout`.
        """
        request = start_request(saga, message, options, timeout=timeout)
        request.wait = request.outcome_only = True
        with start_span(request.definition.name, request.saga_id):
            retries = self._connection.waiting(timeout)
            finished = self.ensure_completed(await start_and_wait(request, self._connection, self._start_saga, retries))
        if isinstance(saga, str):
            return finished
        return output_of(finished, saga.output_type) if saga.output_type is not None else None

    @overload
    def start_many(
        self,
        saga: Saga[InputT, OutputT],
        messages: Iterable[Start[InputT]] | AsyncIterable[Start[InputT]],
        /,
        *,
        timeout: timedelta | None = None,
        window: int = WINDOW_DEFAULT,
        **options: Unpack[SharedStartOptions],
    ) -> AsyncGenerator[Started[SagaHandle[OutputT]] | NotStarted]: ...

    @overload
    def start_many(
        self,
        saga: Saga[InputT, OutputT],
        messages: Iterable[InputT] | AsyncIterable[InputT],
        /,
        *,
        timeout: timedelta | None = None,
        window: int = WINDOW_DEFAULT,
        **options: Unpack[SharedStartOptions],
    ) -> AsyncGenerator[Started[SagaHandle[OutputT]] | NotStarted]: ...

    @overload
    def start_many(
        self,
        saga: str,
        messages: Iterable[object] | AsyncIterable[object],
        /,
        *,
        timeout: timedelta | None = None,
        window: int = WINDOW_DEFAULT,
        **options: Unpack[SharedStartOptions],
    ) -> AsyncGenerator[Started[SagaHandle[None]] | NotStarted]: ...

    async def start_many(
        self,
        saga: Saga[Any, Any] | str,
        messages: Iterable[object] | AsyncIterable[object],
        /,
        *,
        timeout: timedelta | None = None,
        window: int = WINDOW_DEFAULT,
        **options: Unpack[SharedStartOptions],
    ) -> AsyncGenerator[Started[SagaHandle[Any]] | NotStarted]:
        """Starts a saga with each of the messages, many at once, and tells what became of each, in their order. None of them fails others.

        A message comes by itself, or as `Start(message, {"key": …})` if something is to be said about it alone. They are taken as there is
        room: at most `window` starts, 1 to 4,096, are under way or not yet looked at. `timeout`: how long to go on trying, for each.

        A NotStarted holds the Start to repeat, with the same id. Whoever stops listening cancels the starts under way, and nobody knows
        what became of those; wrap it in `contextlib.aclosing` to stop in the middle. What taking a message raises is raised here, after
        the answers for those before it.
        """

        async def answer(position: int, item: object) -> Started[SagaHandle[Any]] | NotStarted:
            return await self._start_one(saga, item, position, timeout, options)

        async with aclosing(in_window(messages, answer, window)) as answers:
            async for each in answers:
                yield each

    async def _start_one(
        self, saga: Saga[Any, Any] | str, item: object, position: int, timeout: timedelta | None, shared: SharedStartOptions
    ) -> Started[SagaHandle[Any]] | NotStarted:
        """One of `start_many`: a message or a Start."""
        start = item if isinstance(item, Start) else Start(cast("Any", item))
        options: StartOptions = {"saga_id": new_saga_id(), **shared, **start.options}
        try:
            request = _checked_request(saga, start.message, options, timeout)
            handle = await self._start(request, _output_type_of(saga), timeout)
        except CoordinatorError as error:
            return NotStarted(position=position, start=Start(start.message, options), error=error)
        return Started(position=position, handle=handle)

    async def _start(
        self, request: coordinator_pb2.StartSagaRequest, output_type: type[Any] | None, timeout: timedelta | None
    ) -> SagaHandle[Any]:
        with start_span(request.definition.name, request.saga_id):
            response = await call(
                self._start_saga,
                request,
                retries=self._connection.retries(timeout),
                doing=f"start {request.definition.name}",
                saga_id=request.saga_id,
                metadata=trace_metadata(),
                # The deadline of the call is the one that is inherited: it must not be that of one attempt.
                attempt_timeout_s=math.inf if request.inherit_deadline else ATTEMPT_TIMEOUT_S,
            )
        # With an idempotency key it may be a saga of another id, started before.
        return SagaHandle(response.saga.id, client=self, is_new=response.created, output_type=output_type)

    # ── Following ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def attach(self, saga_id: str) -> SagaHandle[None]: ...

    @overload
    def attach(self, saga_id: str, saga: Saga[Any, OutputT]) -> SagaHandle[OutputT]: ...

    def attach(self, saga_id: str, saga: Saga[Any, Any] | None = None) -> SagaHandle[Any]:
        """A handle for a saga that is there already; `saga` says what it returns. Asks nobody whether it is there and of that definition.

        Raises InvalidRequest if the id is no UUID.
        """
        output_type = saga.output_type if saga is not None else None
        return SagaHandle(checked_id(saga_id), client=self, is_new=None, output_type=output_type)

    async def get(self, saga_id: str) -> saga_pb2.Saga:
        """The saga as it stands, with its steps, payloads and incidents. Raises SagaNotFound."""
        return await read_saga(self._connection, checked_id(saga_id), self._connection.retries())

    def list(
        self,
        *,
        statuses: Iterable[saga_pb2.SagaStatus.ValueType] = (),
        definition: str = "",
        labels: Mapping[str, str] = MappingProxyType({}),
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        paused: bool | None = None,
        needs_person: bool | None = None,
    ) -> AsyncGenerator[saga_pb2.Saga]:
        """All sagas for which every condition given holds, newest first, without steps and payloads. Instants are aware.

        `paused` and `needs_person`, which is whether an incident of it is open: None means both. Pages by itself; stop
        listening when there is enough.
        """
        request = coordinator_pb2.ListSagasRequest(
            statuses=statuses,
            definition_name=definition,
            labels=labels,
            created_from=to_timestamp("created_from", created_from),
            created_before=to_timestamp("created_before", created_before),
            paused=paused,
            needs_person=needs_person,
        )
        return sagas_of(self._connection, request)

    def history(self, saga_id: str, *, after: int = 0) -> AsyncGenerator[saga_pb2.Event]:
        """Everything that has happened to a saga after sequence `after`, in order. Pages by itself. Raises SagaNotFound."""
        return events_of(self._connection, checked_id(saga_id), after)

    async def watch(
        self, saga_id: str, *, after: int = 0, timeout: timedelta | None = None
    ) -> AsyncGenerator[coordinator_pb2.WatchSagaResponse]:
        """Each event after sequence `after` as it is committed, with the saga's status after it; ends with the saga and its hook.

        Goes on across restarts of the coordinator without losing or doubling an event. A FAILED saga has not ended, unless
        it was terminated: the watch goes on until a person has resolved it. Wrap it in `contextlib.aclosing` to stop listening
        in the middle.

        Raises SagaNotFound; WaitTimedOut after `timeout`, if there is one; CoordinatorUnavailable if nobody answers for
        longer than the client's timeout.
        """
        events = watch_events(self._connection.saga_service, checked_id(saga_id), after=after, retries=self._connection.waiting(timeout))
        async with aclosing(events):
            async for response in events:
                yield response

    async def wait(self, saga_id: str, *, timeout: timedelta | None = None) -> saga_pb2.Saga:
        """Waits until the saga is COMPLETED, COMPENSATED or FAILED, not for its hook, and returns it. Look at its status.

        Raises SagaNotFound; WaitTimedOut after `timeout`, if there is one; CoordinatorUnavailable as `watch` does.
        """
        return await wait_at_rest(self._connection, checked_id(saga_id), self._connection.waiting(timeout))

    @staticmethod
    def ensure_completed(saga: saga_pb2.Saga) -> saga_pb2.Saga:
        """Returns the saga if it is COMPLETED; raises SagaNotCompleted otherwise, with the step that made it turn back."""
        if saga.status == saga_pb2.SAGA_STATUS_COMPLETED:
            return saga
        raise SagaNotCompleted(saga)

    async def cancel(self, saga_id: str, *, reason: str = "", actor: str = "") -> saga_pb2.Saga:
        """Asks a saga to turn back, and returns it as it then stood: usually COMPENSATING, seldom at its end already.

        While nobody knows whether the pivot took effect, the saga is RUNNING with `turn_back_requested`: it turns back only
        if the pivot did not (R10). Wait for its end to know. `reason` and `actor` go into its history.

        Raises SagaNotFound; SagaAlreadyEnded if there is nothing left to turn back; PointOfNoReturnPassed if that is
        behind it.
        """
        request = coordinator_pb2.CancelSagaRequest(saga_id=checked_id(saga_id), reason=reason, actor=actor)
        doing = f"cancel saga {request.saga_id}"
        response = await call(
            self._connection.saga_service.CancelSaga, request, retries=self._connection.retries(), doing=doing, saga_id=request.saga_id
        )
        return response.saga

    # ── Steps that finish later ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def complete_step(self, token: str, output: object) -> bool:
        """Tells that a step which its participant accepted took effect; `output` is what its action returns (R24).

        `token` is the completion token that came with Execute. True if the coordinator knew it already: repeating it with the
        same output is safe, and before the acceptance has reached the coordinator the result is kept.

        Raises StepNotWaitingError if it is too late; CompletionTokenInvalidError; InvalidRequest if the output is of another
        type than the saga's definition says; SagaNotFound.
        """
        return await completion.complete_step(self._connection.saga_service, token, output, retries=self._connection.retries())

    async def reject_step(self, token: str, rejection: Rejected | participant_pb2.Rejected) -> bool:
        """Tells that such a step is refused: `Rejected("DENIED", "not this year")`. True if the coordinator knew it already.

        Unless a barrier has sealed it, as `Participant.completing` does, the step ends UNKNOWN and is compensated (R5).

        Raises what `complete_step` raises.
        """
        return await completion.reject_step(self._connection.saga_service, token, rejection, retries=self._connection.retries())

    async def heartbeat(self, token: str, *, time_limit: timedelta | None = None, progress: object | None = None) -> completion.Heartbeat:
        """Tells that such a step is worked on, and learns whether it is still wanted.

        `time_limit`: how long it may take from now; None: as long as was said when it was accepted. It never shortens.
        `progress`: how far it is, for people, at most 16 KiB; None: nothing new.

        Raises StepNotWaitingError if it was completed; CompletionTokenInvalidError; InvalidRequest; SagaNotFound.
        """
        retries = self._connection.retries()
        return await completion.heartbeat(self._connection.saga_service, token, retries=retries, time_limit=time_limit, progress=progress)


def _output_type_of(saga: Saga[Any, Any] | str) -> type[Any] | None:
    return None if isinstance(saga, str) else saga.output_type


def _checked_request(
    saga: Saga[Any, Any] | str, message: object, options: StartOptions, timeout: timedelta | None
) -> coordinator_pb2.StartSagaRequest:
    """For one of many, a mistake of which must not end the others. Raises InvalidRequest for whatever is wrong."""
    try:
        return start_request(saga, message, options, timeout=timeout)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"cannot start {saga if isinstance(saga, str) else saga.name}: {error}") from error
