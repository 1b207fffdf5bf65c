"""Idempotency for any gRPC method and any HTTP route: a key, one run, and its answer for every repetition.

`SqlIdempotencyStore` and `idempotency_table` are loaded when first asked for: they need SQLAlchemy, which comes with the extra
`idempotency`. Nothing else here needs more than the SDK itself.
"""

from typing import TYPE_CHECKING

from participant_sdk.idempotency.asgi import IdempotencyMiddleware, http_meaning, one_tenant, post_and_patch
from participant_sdk.idempotency.cleanup import forget_expired_keys_once, forgetting_expired_keys
from participant_sdk.idempotency.errors import (
    IdempotencySetupError,
    IdempotencyStoreBusyError,
    IdempotencyStoreUnavailableError,
    IdempotencyTableMissingError,
)
from participant_sdk.idempotency.interceptor import IdempotencyInterceptor, grpc_meaning
from participant_sdk.idempotency.memory_store import MemoryIdempotencyStore
from participant_sdk.idempotency.policy import IdempotencyPolicy, KeyRule, Meaning
from participant_sdk.idempotency.store import IdempotencyStore
from participant_sdk.idempotency.verdict import WhenUnknown

if TYPE_CHECKING:
    from participant_sdk.idempotency.sql_store import SqlIdempotencyStore
    from participant_sdk.idempotency.table import idempotency_table

__all__ = [
    "IdempotencyInterceptor",
    "IdempotencyMiddleware",
    "IdempotencyPolicy",
    "IdempotencySetupError",
    "IdempotencyStore",
    "IdempotencyStoreBusyError",
    "IdempotencyStoreUnavailableError",
    "IdempotencyTableMissingError",
    "KeyRule",
    "Meaning",
    "MemoryIdempotencyStore",
    "SqlIdempotencyStore",
    "WhenUnknown",
    "forget_expired_keys_once",
    "forgetting_expired_keys",
    "grpc_meaning",
    "http_meaning",
    "idempotency_table",
    "one_tenant",
    "post_and_patch",
]


def __getattr__(name: str) -> object:
    if name not in {"SqlIdempotencyStore", "idempotency_table"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from participant_sdk.idempotency.sql_store import SqlIdempotencyStore  # noqa: PLC0415 - needs the extra `idempotency`
        from participant_sdk.idempotency.table import idempotency_table  # noqa: PLC0415 - the same
    except ModuleNotFoundError as error:
        if error.name != "sqlalchemy":
            raise
        raise ImportError(f"{name} needs SQLAlchemy: install the extra with pip install 'saga-coordinator[idempotency]'") from error
    return SqlIdempotencyStore if name == "SqlIdempotencyStore" else idempotency_table
