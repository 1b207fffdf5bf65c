"""What the stores of idempotency raise: a class per reaction of the guard. Clients never see these; they are answered by status."""

from participant_sdk.errors import ParticipantSetupError


class IdempotencyStoreUnavailableError(Exception):
    """The store cannot be reached or written, or is full. What was asked of it may have happened: ask again, or refuse the request."""


class IdempotencyStoreBusyError(Exception):
    """The store asks to repeat: deadlock, serialisation failure, locked. Nothing happened."""


class IdempotencySetupError(ParticipantSetupError):
    """Idempotency was put together in a way that cannot work. Fix the set-up and start again."""


class IdempotencyTableMissingError(IdempotencySetupError):
    """The database has no table for it. Create it with a migration, or with `SqlIdempotencyStore.create_table()`."""


class IdempotencyKeyError(ValueError):
    """A client's key is missing or is not written as a key. The message is for the client."""
