"""Tells a node of commits of another node for which somebody waits here, sooner than it would see them by looking.

Who waits for a saga of another node says so; whoever drives the saga then says of each commit that there was one.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from coordinator.core.values import MICROS_PER_SECOND, Instant, SagaId
from coordinator.engine.engine import Engine
from coordinator.engine.ports import Clock
from coordinator.engine.subscriptions import Subscriptions

INTEREST_US: Final = 60 * MICROS_PER_SECOND
"""How long commits of a saga are told after somebody has said that he waits for it."""
ASK_AGAIN_US: Final = INTEREST_US // 2
"""How often who waits says so."""
INTERESTS_MAX: Final = 10_000
"""Sagas whose commits are told at the same time; the oldest interest makes room."""
_WAITS: Final = "waits "
_MOVED: Final = "moved "


class Signals(Protocol):
    """What nodes call to each other. It may be lost, late or doubled."""

    def follow(self, heard: Callable[[str], None], /) -> None:
        """Calls back with every hint of other nodes."""

    def send(self, word: str, /) -> None:
        """Hints something to other nodes, without waiting. `word`: one line of at most 70 bytes."""


class Silence:
    """For a process that has nobody to call to."""

    def follow(self, heard: Callable[[str], None], /) -> None:
        """There is nothing to hear."""

    def send(self, word: str, /) -> None:
        """Nobody would hear it."""


class Hints:
    """Of one node."""

    def __init__(self, clock: Clock, engine: Engine, signals: Signals) -> None:
        self._clock = clock
        self._engine = engine
        self._signals = signals
        self._waiting = Subscriptions()
        self._asked_at: dict[SagaId, Instant] = {}
        self._interests: OrderedDict[SagaId, _Interest] = OrderedDict()
        signals.follow(self._hear)

    def wait_for(self, saga_id: SagaId, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls the listener when another node has hinted at a commit of the saga; returns what ends that."""
        unsubscribe = self._waiting.add(saga_id, listener)

        def leave() -> None:
            unsubscribe()
            self._asked_at.pop(saga_id, None)

        return leave

    def ask(self, saga_id: SagaId) -> None:
        """Another node drives it: says that somebody waits for it here, unless that was said lately."""
        now = self._clock.now()
        asked_at = self._asked_at.get(saga_id)
        if asked_at is None or now - asked_at >= ASK_AGAIN_US:
            self._asked_at[saga_id] = now
            self._signals.send(f"{_WAITS}{saga_id}")

    def _hear(self, word: str) -> None:
        if word.startswith(_WAITS):
            self._take_interest(SagaId(word.removeprefix(_WAITS)))
        elif word.startswith(_MOVED):
            self._waiting.tell(SagaId(word.removeprefix(_MOVED)))

    def _take_interest(self, saga_id: SagaId) -> None:
        interest = self._interests.get(saga_id)
        if interest is None:
            interest = self._interests[saga_id] = _Interest()
            interest.leave = self._engine.subscribe(saga_id, lambda: self._tell(saga_id))
        interest.until = Instant(self._clock.now() + INTEREST_US)
        self._interests.move_to_end(saga_id)
        oldest_id, oldest = next(iter(self._interests.items()))
        if len(self._interests) > INTERESTS_MAX or oldest.until < self._clock.now():
            del self._interests[oldest_id]
            oldest.leave()

    def _tell(self, saga_id: SagaId) -> None:
        interest = self._interests.get(saga_id)
        if interest is None:
            return  # it was taken back while all were being told
        if interest.until < self._clock.now():
            del self._interests[saga_id]
            interest.leave()
        else:
            self._signals.send(f"{_MOVED}{saga_id}")


class _Interest:
    __slots__ = ("leave", "until")

    def __init__(self) -> None:
        self.leave: Callable[[], None] = lambda: None
        self.until = Instant(0)
