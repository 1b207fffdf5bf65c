"""Services that are there already and know nothing of sagas: which of their unary methods are actions of a participant.

Plain values, as they stand in the settings. Whether a service has such methods shows when its descriptors are there
(`coordinator.codec.services`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KEY_METADATA_DEFAULT: Final = "idempotency-key"
"""As the Idempotency-Key header of HTTP APIs is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAction:
    """An action that calls methods of a service. Methods are written "warehouse.v1.Warehouse/Reserve"."""

    execute: str
    """Does it. What it takes and returns is what the action takes and returns."""
    compensate: str = ""
    """Undoes it; empty: nothing does."""
    compensate_input: str = ""
    """An expression for what `compensate` takes; empty: the same message that `execute` took."""
    key_field: str = ""
    """A text field of what `execute` takes, into which the idempotency key is written too; empty: none."""
    nothing_to_undo: tuple[str, ...] = ()
    """Statuses of `compensate` that mean that there is nothing to undo, or no more. Example: "NOT_FOUND". All others are failed attempts
    (R8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingService:
    """A service as it was found, and what of it is used."""

    target: str
    """gRPC target, e.g. "dns:///warehouse:50051"."""
    actions: Mapping[str, ServiceAction]
    """By name, at least one."""
    descriptors: Path | None = None
    """A FileDescriptorSet with everything that its methods take and return; None: the service is asked by server reflection."""
    key_metadata: str = KEY_METADATA_DEFAULT
    """Name of the metadata in which it gets the idempotency key of a call."""
