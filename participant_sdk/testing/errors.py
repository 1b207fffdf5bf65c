"""What is wrong with a test that uses the kit."""


class KitError(Exception):
    """The kit was used in a way that it cannot be; says what to do instead."""


class SagaStandstillError(KitError):
    """A saga is waited for, and nothing that could move it will ever happen. Says how it stands and what it waits for."""
