"""Requests that wait for the engine: each awaits a future, and all of them end when the coordinator closes."""

import asyncio
from typing import TypeVar

from coordinator.api.errors import RefusedError, unavailable
from participant_sdk.rpc_errors import ErrorReason

_T = TypeVar("_T")


class OpenWaits:
    """Every future that a request awaits, so that no caller hangs on a coordinator that goes away."""

    def __init__(self) -> None:
        self._futures: dict[asyncio.Future[object], None] = {}  # in the order in which they came: a set has none
        self._closed = False

    def add(self, future: "asyncio.Future[_T]") -> "asyncio.Future[_T]":
        """Ends the future with UNAVAILABLE if the coordinator closes before it is done."""
        kept: asyncio.Future[object] = future  # type: ignore[assignment] # only ever ended through this reference, never read
        self._futures[kept] = None
        kept.add_done_callback(lambda done: self._futures.pop(done, None))
        if self._closed and not future.done():
            future.set_exception(closing())
        return future

    def close(self) -> None:
        """Ends what is awaited now and later; the caller sends the same request to whoever is there next."""
        self._closed = True
        for future in list(self._futures):
            if not future.done():
                future.set_exception(closing())


def closing() -> RefusedError:
    """The coordinator goes away; nothing is lost."""
    return unavailable(ErrorReason.SHUTTING_DOWN, "the coordinator is closing; send the same request again, nothing is lost")
