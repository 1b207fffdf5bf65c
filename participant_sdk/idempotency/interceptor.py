"""Idempotency for any gRPC method with one request and one response: a server interceptor for grpc.aio."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn, TypeAlias

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.idempotency.errors import IdempotencyKeyError
from participant_sdk.idempotency.guard import IdempotencyGuard, KeyedRequest
from participant_sdk.idempotency.keys import digest, parse_key
from participant_sdk.idempotency.outcomes import Answered, Outcome, Ran, RunBroke
from participant_sdk.idempotency.policy import IdempotencyPolicy, KeyRule, Meaning
from participant_sdk.idempotency.recording_context import EndedCallError, RecordingContext, metadata_of
from participant_sdk.idempotency.refusals import Refusal, answer_not_kept, key_invalid, key_missing, refusal_of, streaming_refused
from participant_sdk.idempotency.store import IdempotencyStore
from participant_sdk.idempotency.verdict import Headers, StoredAnswer
from participant_sdk.rpc_errors import abort_with, find_detail

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
TenantOf: TypeAlias = Callable[[Context], str]

KEY_METADATA: Final = ("idempotency-key", "x-idempotency-key")
REPLAYED_METADATA: Final = ("idempotent-replayed", "true")
"""In the trailing metadata of every answer that was given to another call before."""
WAIT_SHARE: Final = 0.9
"""Of the time left of a call it waits for another one; the rest is for the answer to arrive."""

_STATUS_DETAILS: Final = b"grpc-status-details-bin"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_FINAL: Final = frozenset(
    code.value[0]
    for code in (
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
    )
)
_NO_EFFECT: Final = frozenset(
    code.value[0] for code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)
)


def grpc_meaning(code: int) -> Meaning:
    """What a gRPC status says by itself: the kinds of R6. A status with RetryInfo is never final."""
    if code in _FINAL:
        return Meaning.FINAL
    return Meaning.NO_EFFECT if code in _NO_EFFECT else Meaning.UNKNOWN


class IdempotencyInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call with a key take effect once, and answers its repetitions with what was stored.

    For `grpc.aio.server(interceptors=[…])`, inside of what finds out who calls. Handlers are `async def`. A call that is begun goes to its
    end even if its caller cancels or its deadline passes.
    """

    def __init__(
        self,
        store: IdempotencyStore,
        *,
        tenant_of: TenantOf,
        methods: Mapping[str, KeyRule] | Callable[[str], KeyRule] = lambda _: KeyRule.OPTIONAL,
        policy: IdempotencyPolicy | None = None,
        meaning_of: Callable[[int], Meaning] = grpc_meaning,
    ) -> None:
        """`tenant_of`: who calls, as something that does not change between a call and its repetition: a user's or customer's id, not a
        token. KEYS OF ONE TENANT ARE SHARED BY ALL WHO ARE THAT TENANT, ANSWERS INCLUDED. `one_tenant` if that is everybody.

        `methods`: the rule of each method by its full name, such as "/shop.v1.Shop/Pay"; in a mapping those not named are IGNORED.
        By default each method honours a key that comes.
        """
        self._guard = IdempotencyGuard(store, policy or IdempotencyPolicy(), "grpc")
        self._tenant_of = tenant_of
        self._methods = methods
        self._meaning_of = meaning_of

    async def intercept_service(
        self, continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]", handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        rule = self._methods.get(method, KeyRule.IGNORED) if isinstance(self._methods, Mapping) else self._methods(method)
        if handler is None or rule is KeyRule.IGNORED:
            return handler
        metadata = handler_call_details.invocation_metadata or ()
        values = [value if isinstance(value, str) else value.decode("latin-1") for name, value in metadata if name in KEY_METADATA]
        try:
            key = parse_key(values)
        except IdempotencyKeyError as error:
            return _refusing(handler, key_invalid(str(error)))
        if key is None:
            return handler if rule is KeyRule.OPTIONAL else _refusing(handler, key_missing(f"metadata {KEY_METADATA[0]}"))
        if handler.request_streaming or handler.response_streaming:
            # To pass it would let its caller believe in what a repetition does again.
            return _refusing(handler, streaming_refused(method))
        return _guarding(handler, _Method(method, handler, self, self._guard), key)

    def tenant(self, context: Context) -> str:
        """Whose key it is."""
        return self._tenant_of(context)

    def meaning(self, code: int, trailing: Headers) -> Meaning:
        """What the end of a call says about its effect."""
        meaning = self._meaning_of(code)
        is_final_error = meaning is Meaning.FINAL and code != grpc.StatusCode.OK.value[0]
        return Meaning.NO_EFFECT if is_final_error and _asks_to_come_again(trailing) else meaning


class _Encoded:
    """A response as bytes: what was stored is not decoded to be encoded again."""

    __slots__ = ("body",)

    def __init__(self, body: bytes) -> None:
        self.body = body


class _Method:
    """One method behind the guard."""

    def __init__(self, name: str, handler: Handler, interceptor: IdempotencyInterceptor, guard: IdempotencyGuard) -> None:
        self._name = name
        self._handler = handler
        self._interceptor = interceptor
        self._guard = guard
        self._behaviour: Callable[[Any, Any], Awaitable[Any]] = handler.unary_unary  # type: ignore[assignment]  # it is of that kind

    async def call(self, key: str, request: Any, context: Context) -> Any:
        self._refuse_plain_function()
        keyed = KeyedRequest(
            tenant=self._interceptor.tenant(context),
            operation=self._name,
            key=key,
            fingerprint=digest((self._name.encode(), _bytes_of(request))),
        )
        recording = RecordingContext(context)
        outcome = await self._guard.answer(keyed, lambda: self._run(request, recording), wait_s=self._wait_s(context))
        return await self._give(outcome, recording, context)

    def encode(self, response: Any) -> bytes:
        """The response on the wire."""
        if isinstance(response, _Encoded):
            return response.body
        serializer = self._handler.response_serializer
        return response if serializer is None else serializer(response)

    def _refuse_plain_function(self) -> None:
        behaviour = self._behaviour
        if not inspect.iscoroutinefunction(behaviour) and not inspect.iscoroutinefunction(type(behaviour).__call__):
            raise TypeError(f"{self._name} is a plain function: write `async def`, since its calls have idempotency keys")

    def _wait_s(self, context: Context) -> float:
        wait_s = self._guard.policy.wait.total_seconds()
        left_s = context.time_remaining()
        return wait_s if left_s is None else min(wait_s, left_s * WAIT_SHARE)

    async def _run(self, request: Any, recording: RecordingContext) -> Ran:
        recording.was_used = True
        try:
            response = await self._behaviour(request, recording)
        except EndedCallError:
            response = None
        code, trailing = recording.end_code.value[0], recording.trailing
        if code != grpc.StatusCode.OK.value[0]:
            body: bytes | None = recording.end_message.encode("utf-8", "replace")
        else:
            body = self.encode(response)
            recording.response = body
            body = body if len(body) <= self._guard.policy.answer_bytes_max else None
        return Ran(answer=StoredAnswer(status=code, headers=trailing, body=body), meaning=self._interceptor.meaning(code, trailing))

    async def _give(self, outcome: Outcome, recording: RecordingContext, context: Context) -> Any:
        match outcome:
            case Answered(is_replay=False, answer=answer):
                if recording.response is not None:  # It may be too large to be stored, but its first reader gets it.
                    answer = StoredAnswer(status=answer.status, headers=answer.headers, body=recording.response)
                return await _end(context, answer, ())
            case Answered(answer=answer):
                return await _end(context, answer, (REPLAYED_METADATA,))
            case RunBroke(error=error) if recording.was_used:
                raise error
            case _:
                return await abort_with(context, refusal_of(outcome, self._guard.policy.when_unknown).status)


def _guarding(handler: Handler, method: _Method, key: str) -> Handler:
    async def guarded(request: Any, context: Context) -> Any:
        return await method.call(key, request, context)

    return grpc.unary_unary_rpc_method_handler(
        guarded, request_deserializer=handler.request_deserializer, response_serializer=method.encode
    )


def _refusing(handler: Handler, refusal: Refusal) -> Handler:
    """A handler of the same kind that only refuses."""

    async def refuse(_: Any, context: Context) -> NoReturn:
        await abort_with(context, refusal.status)

    match bool(handler.request_streaming), bool(handler.response_streaming):
        case True, True:
            return grpc.stream_stream_rpc_method_handler(refuse)
        case True, False:
            return grpc.stream_unary_rpc_method_handler(refuse)
        case False, True:
            return grpc.unary_stream_rpc_method_handler(refuse)
        case _:
            return grpc.unary_unary_rpc_method_handler(refuse)


async def _end(context: Context, answer: StoredAnswer, marks: tuple[tuple[str, str], ...]) -> _Encoded:
    """Ends the call as its answer says."""
    trailing = (*metadata_of(answer.headers), *marks)
    if answer.body is None:
        context.set_trailing_metadata(trailing)
        await abort_with(context, answer_not_kept(f"with {_code(answer.status).name}").status)
    if answer.status != grpc.StatusCode.OK.value[0]:
        await context.abort(_code(answer.status), answer.body.decode("utf-8", "replace"), trailing)
    if trailing:
        context.set_trailing_metadata(trailing)
    return _Encoded(answer.body)


def _code(number: int) -> grpc.StatusCode:
    return _CODES.get(number, grpc.StatusCode.UNKNOWN)


def _bytes_of(request: Any) -> bytes:
    """R3: what this side encodes, never what two clients happened to encode."""
    if isinstance(request, Message):
        return request.SerializeToString(deterministic=True)
    if isinstance(request, bytes):
        return request
    raise TypeError(f"expected a protobuf message or bytes to take a fingerprint of, found {type(request).__name__}")


def _asks_to_come_again(trailing: Headers) -> bool:
    packed = next((value for name, value in trailing if name == _STATUS_DETAILS), None)
    if packed is None:
        return False
    try:
        status = status_pb2.Status.FromString(packed)
    except ValueError:
        return False  # Details that nobody can read ask for nothing.
    return find_detail(status, error_details_pb2.RetryInfo) is not None
