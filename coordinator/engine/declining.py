"""Why the engine takes something on no further: what callers are told, and the limits behind it."""

from typing import Final

from coordinator.core.values import Code, Failure

STARTS_UNCOMMITTED_MAX: Final = 10_000
"""Starts that may wait for their commit; more are declined, so that a database that is away cannot fill the memory."""
LIVE_SAGAS_MAX: Final = 200_000
"""Sagas under way in one process, about 8 KiB each; those that sleep are not held."""

CLOSING: Final = Failure(Code.UNAVAILABLE, "the coordinator is closing; send the same request again")
OVERLOADED: Final = Failure(
    Code.RESOURCE_EXHAUSTED, f"{STARTS_UNCOMMITTED_MAX} starts wait for the database already; send the same request again"
)
FULL: Final = Failure(Code.RESOURCE_EXHAUSTED, "as many sagas are under way here as are allowed; send the same request again later")
SETTLING: Final = Failure(Code.UNAVAILABLE, "what is known of this saga is being settled; send the same request again")
MOVED: Final = Failure(Code.UNAVAILABLE, "another node drives this saga now; send the same request again")
WITHOUT_SHARD: Final = Failure(Code.UNAVAILABLE, "this node has no share of the sagas yet; send the same request again")
WITHDRAWN: Final = Failure(Code.CANCELLED, "withdrawn before it was sent: the saga turned back, or shall")
