"""What can come of the outbox: one class per reaction of whoever meets it."""

from participant_sdk.errors import ParticipantSetupError

# ruff: noqa: N818 - what a publisher raises is named for what is so, and reads well behind `raise`


class PublishRefused(Exception):
    """Raised by a publisher: this event will never be taken, such as one that is too large for the broker.

    The row becomes FAILED at once. Any other exception is tried again, and counted.
    """


class BrokerUnavailable(Exception):
    """Raised by a publisher: nobody can be reached, whatever the event.

    Not held against the event: it is tried again for as long as it takes, and the relay tries one at a time until one gets through.
    """


class OutboxRowInvalidError(ValueError):
    """What was given to the outbox can never be published: too large, or a text that no database takes. Nothing was written."""


class OutboxTableMissingError(ParticipantSetupError):
    """The database has no outbox table. Create it with a migration or `Outbox.create_table()`."""


class OutboxUnavailableError(Exception):
    """The outbox's database could not do what was asked: away, busy, or its time was over. Nothing is lost; ask again later."""
