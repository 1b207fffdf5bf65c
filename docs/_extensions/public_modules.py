"""The modules whose names are public: what their `__all__` says is kept. Reference, frozen surface and type checks all read this list."""

from typing import Final

PUBLIC_MODULES: Final = (
    "participant_sdk",
    "participant_sdk.barrier.migrations",
    "participant_sdk.idempotency",
    "participant_sdk.outbox",
    "participant_sdk.testing",
    "participant_sdk.testing.conformance",
    "participant_sdk.testing.dry_run",
    "participant_sdk.testing.replaying",
)
"""Each has a page docs/reference/<name>.md."""
