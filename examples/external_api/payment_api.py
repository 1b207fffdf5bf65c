"""A payment company's HTTP API, as small as one can be. It stands for what you reach over HTTP, and keeps what it knows in memory.

    POST /charges   {"card": "4242", "cents": 1200}            201 {"id": "charge-1"}       402 if the bank says no
    POST /refunds   {"charged_by": "<the charge's key>"}        201 {"id": "refund-1"}       404 if nothing was charged by that key

Both need the header Idempotency-Key. Asked again with the same key it answers what it answered, and does nothing; the same key with another
body is answered 422.
"""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

EMPTY_CARD = "empty"
"""The bank declines it."""
Answer = tuple[HTTPStatus, dict[str, str]]


class Ledger:
    """What the company knows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, tuple[str, Answer]] = {}
        self.charges: dict[str, int] = {}
        """Cents, by the key that they were charged by."""
        self.refunds: list[str] = []
        """Keys of the charges that were given back."""

    def answer(self, path: str, key: str, body: dict[str, Any]) -> Answer:
        """Does what is asked, once per key."""
        asked = f"{path} {json.dumps(body, sort_keys=True)}"
        with self._lock:
            before = self._answers.get(key)
            if before is not None:
                return (
                    before[1] if before[0] == asked else (HTTPStatus.UNPROCESSABLE_ENTITY, {"error": "the key was used for something else"})
                )
            answered = self._charge(key, body) if path == "/charges" else self._refund(body)
            self._answers[key] = (asked, answered)
            return answered

    def _charge(self, key: str, body: dict[str, Any]) -> Answer:
        if body["card"] == EMPTY_CARD:
            return HTTPStatus.PAYMENT_REQUIRED, {"error": "the bank declined the card"}
        self.charges[key] = body["cents"]
        return HTTPStatus.CREATED, {"id": f"charge-{len(self.charges)}"}

    def _refund(self, body: dict[str, Any]) -> Answer:
        key = body["charged_by"]
        if key not in self.charges:
            return HTTPStatus.NOT_FOUND, {"error": "nothing was charged by that key"}
        self.refunds.append(key)
        return HTTPStatus.CREATED, {"id": f"refund-{len(self.refunds)}"}


class PaymentApi:
    """Serves a ledger on the loopback address, in threads, between entering and leaving its context."""

    def __init__(self, between: Callable[[str], None] = lambda moment: None) -> None:
        """`between`: called with "asked" before and "done" after something was done, and may take its time."""
        self.ledger = Ledger()
        handler = type("Handler", (_Handler,), {"ledger": self.ledger, "betweens": (between,)})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "PaymentApi":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    ledger: ClassVar[Ledger]
    betweens: ClassVar[tuple[Callable[[str], None], ...]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._reach("asked")
        status, answer = self.ledger.answer(self.path, self.headers["Idempotency-Key"], body)
        self._reach("done")
        content = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            """Whoever asked is gone."""

    def _reach(self, moment: str) -> None:
        for between in self.betweens:
            between(moment)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server asks for
        """Quiet."""
