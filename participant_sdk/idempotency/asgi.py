"""Idempotency for any HTTP route: an ASGI middleware, with FastAPI, Starlette or by itself.

In the spirit of the IETF's draft "The Idempotency-Key HTTP Header Field". Needs no web framework.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from participant_sdk.idempotency.asgi_messages import (
    AnswerCapture,
    ApplicationError,
    AsgiApp,
    BodyTooLargeError,
    ClientGoneError,
    Message,
    Receive,
    Scope,
    Send,
    read_body,
    replayed_body,
)
from participant_sdk.idempotency.errors import IdempotencyKeyError
from participant_sdk.idempotency.guard import IdempotencyGuard, KeyedRequest
from participant_sdk.idempotency.keys import digest, parse_key
from participant_sdk.idempotency.outcomes import Answered, Outcome, Ran, RunBroke
from participant_sdk.idempotency.policy import IdempotencyPolicy, KeyRule, Meaning
from participant_sdk.idempotency.refusals import Refusal, answer_not_kept, key_invalid, key_missing, refusal_of, request_too_large
from participant_sdk.idempotency.store import IdempotencyStore
from participant_sdk.idempotency.verdict import StoredAnswer
from participant_sdk.shielding import outlast

KEY_HEADERS: Final = (b"idempotency-key", b"x-idempotency-key")
REPLAYED_HEADER: Final = (b"idempotent-replayed", b"true")
"""On every answer that was given to another request before."""

HEADERS_NOT_KEPT: Final = frozenset(
    {
        # Of one connection. Source: RFC 9110, section 7.6.1.
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        # Of one answer: a cookie is a secret, and a stored one would sign its owner in again tomorrow.
        b"set-cookie",
        b"date",
        b"server",
    }
)
"""Headers that are given once, and neither stored nor repeated."""

KeyRuleOf: TypeAlias = Callable[[Scope], KeyRule]
TenantOf: TypeAlias = Callable[[Scope], str]

_NO_EFFECT: Final = frozenset({401, 403, 407, 408, 409, 421, 425, 429})
"""Answers that say "not now" or "not you": with the same key the next request may fare better."""


def post_and_patch(scope: Scope) -> KeyRule:
    """Keys are for POST and PATCH, and nobody must send one."""
    return KeyRule.OPTIONAL if scope["method"] in {"POST", "PATCH"} else KeyRule.IGNORED


def http_meaning(status: int) -> Meaning:
    """What an HTTP status says by itself: 5xx is unknown, a few of 4xx ask to come again, and all else is final."""
    if status >= 500:
        return Meaning.UNKNOWN
    return Meaning.NO_EFFECT if status in _NO_EFFECT else Meaning.FINAL


def one_tenant(_: object) -> str:
    """All callers are one: whoever sends a key of another one, with the same request, gets the other one's answer. Only where callers
    may see each other's answers, as among the services of one team.
    """
    return ""


class IdempotencyMiddleware:
    """Lets a request with a key take effect once, and answers its repetitions with what was stored.

    Wrap it around the application outside of what parses bodies, and inside of what finds out who calls.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        store: IdempotencyStore,
        tenant_of: TenantOf,
        rule: KeyRuleOf = post_and_patch,
        policy: IdempotencyPolicy | None = None,
        meaning_of: Callable[[int], Meaning] = http_meaning,
        headers_not_kept: frozenset[bytes] = HEADERS_NOT_KEPT,
    ) -> None:
        """`tenant_of`: who calls, as something that does not change between a request and its repetition: a user's or customer's id, not
        a token. KEYS OF ONE TENANT ARE SHARED BY ALL WHO ARE THAT TENANT, ANSWERS INCLUDED. `one_tenant` if that is everybody.

        `rule`: whether a request is to have a key. `policy`: None for the defaults. `meaning_of`: what a status says about the effect.
        """
        self.app: Final = app
        self._guard = IdempotencyGuard(store, policy or IdempotencyPolicy(), "http")
        self._tenant_of = tenant_of
        self._rule = rule
        self._meaning_of = meaning_of
        self._headers_not_kept = headers_not_kept

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = self._rule(scope) if scope["type"] == "http" else KeyRule.IGNORED
        if rule is KeyRule.IGNORED:
            await self.app(scope, receive, send)
            return
        try:
            key = parse_key([value.decode("latin-1") for name, value in scope["headers"] if name in KEY_HEADERS])
        except IdempotencyKeyError as error:
            await _refuse(send, key_invalid(str(error)))
            return
        if key is not None:
            await self._guarded(scope, receive, send, key)
        elif rule is KeyRule.REQUIRED:
            await _refuse(send, key_missing("the header Idempotency-Key"))
        else:
            await self.app(scope, receive, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, key: str) -> None:
        policy = self._guard.policy
        try:
            body = await read_body(scope, receive, policy.request_bytes_max)
        except BodyTooLargeError:
            await _refuse(send, request_too_large(policy.request_bytes_max))
            return
        except ClientGoneError:
            return  # Nothing ran, and nobody is there to be told.
        request = KeyedRequest(
            tenant=self._tenant_of(scope),
            operation=f"{scope['method']} {scope['path']}",
            key=key,
            fingerprint=_fingerprint(scope, body),
        )
        _hide_extensions(scope)
        run = _HttpRun(self, scope, body, receive, send)
        try:
            outcome = await self._guard.answer(request, run, wait_s=policy.wait.total_seconds())
            await self._give(send, outcome, run.capture)
        finally:
            await run.wait_ended()

    def ran(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes | None) -> Ran:
        """What is stored of an answer, and what it means."""
        kept = tuple((name, value) for name, value in headers if name.lower() not in self._headers_not_kept)
        return Ran(answer=StoredAnswer(status=status, headers=kept, body=body), meaning=self._meaning_of(status))

    @property
    def answer_bytes_max(self) -> int:
        """Largest body that is stored."""
        return self._guard.policy.answer_bytes_max

    async def _give(self, send: Send, outcome: Outcome, capture: "AnswerCapture | None") -> None:
        match outcome:
            case Answered(is_replay=False) if capture is not None:
                await capture.release()
            case Answered(answer=answer):
                await _replay(send, answer)
            case RunBroke(error=error) if capture is not None:
                raise error
            case _:
                await _refuse(send, refusal_of(outcome, self._guard.policy.when_unknown))


class _HttpRun:
    """One call of the application. Ends for the guard as soon as its answer is known; what the application does after it goes on."""

    def __init__(self, middleware: IdempotencyMiddleware, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        self._middleware = middleware
        self._scope = scope
        self._body = body
        self._receive = receive
        self._send = send
        self._running: asyncio.Task[None] | None = None
        self.capture: AnswerCapture | None = None
        """None until it is called: it was answered without a run of this request."""

    async def __call__(self) -> Ran:
        middleware = self._middleware
        capture = self.capture = AnswerCapture(self._send, bytes_max=middleware.answer_bytes_max, judge=middleware.ran)
        receive = replayed_body(self._body, self._receive, capture)
        running = self._running = asyncio.get_running_loop().create_task(self._call(receive, capture.send))
        try:
            either: set[asyncio.Future[Any]] = {running, capture.ran}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            running.cancel()
            await asyncio.wait({running})
            raise
        if capture.ran.done():
            return capture.ran.result()
        running.result()
        raise ApplicationError(f"the application returned from {self._scope['path']} before its answer was complete")

    async def wait_ended(self) -> None:
        """Waits for what the application does after its answer, such as background tasks, and raises what that raises."""
        if self._running is None or self.capture is None:
            return
        self.capture.discard()
        if self.capture.ran.done():  # Otherwise it has ended, and the guard knows how.
            await outlast(self._running)

    async def _call(self, receive: Receive, send: Send) -> None:
        await self._middleware.app(self._scope, receive, send)


def _fingerprint(scope: Scope, body: bytes) -> bytes:
    content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    path = scope["path"].encode("utf-8", "surrogatepass")
    return digest((scope["method"].encode(), path, scope.get("query_string", b""), content_type, body))


def _hide_extensions(scope: Scope) -> None:
    """What an answer cannot be captured through: files by path, trailers, pushes."""
    extensions = scope.get("extensions")
    if extensions:
        scope["extensions"] = {name: value for name, value in extensions.items() if not name.startswith("http.response.")}


async def _replay(send: Send, answer: StoredAnswer) -> None:
    if answer.body is None:
        await _refuse(send, answer_not_kept(f"with status {answer.status}"), REPLAYED_HEADER)
        return
    headers = [*answer.headers, REPLAYED_HEADER]
    await _answer(send, answer.status, headers, answer.body)


async def _refuse(send: Send, refusal: Refusal, *more: tuple[bytes, bytes]) -> None:
    body = json.dumps(refusal.problem).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode()), *more]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", str(refusal.retry_after).encode()))
    await _answer(send, refusal.http_status, headers, body)


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    start: Message = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})
