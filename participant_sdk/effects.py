"""Where the effect of an action takes place."""

from enum import StrEnum
from typing import Final


class Effect(StrEnum):
    """Where the effect of an action takes place: decides what the barrier can promise about it."""

    DATABASE = "DATABASE"
    """Through `step.session`: committed together with the barrier's row, so it happens at most once per key (R18)."""
    EXTERNAL = "EXTERNAL"
    """Anywhere else, such as a card charged over HTTP: after a crash the handler runs again with the same key, and the
    compensation runs also when nobody knows whether the effect happened (R19)."""


EXTERNAL: Final = Effect.EXTERNAL
"""Short for `Effect.EXTERNAL`: `@action(effect=EXTERNAL)`."""
DATABASE: Final = Effect.DATABASE
"""Short for `Effect.DATABASE`, which is the default."""
