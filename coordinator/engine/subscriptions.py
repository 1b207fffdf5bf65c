"""Who wants to be told when events of a saga are committed."""

from collections.abc import Callable

from coordinator.core.values import SagaId


class Subscriptions:
    """Listeners by saga. They are only told that there is something; what it is stands in the journal."""

    def __init__(self) -> None:
        self._listeners: dict[SagaId, dict[Callable[[], None], None]] = {}  # in the order in which they came: a set has none

    def add(self, saga_id: SagaId, listener: Callable[[], None]) -> Callable[[], None]:
        """Adds a listener; returns what takes it away again."""
        listeners = self._listeners.setdefault(saga_id, {})
        listeners[listener] = None

        def unsubscribe() -> None:
            listeners.pop(listener, None)
            if not listeners and self._listeners.get(saga_id) is listeners:
                del self._listeners[saga_id]

        return unsubscribe

    def tell(self, saga_id: SagaId) -> None:
        """Tells those of one saga."""
        for listener in list(self._listeners.get(saga_id, ())):
            listener()

    def tell_all(self) -> None:
        """Tells everybody."""
        for saga_id in list(self._listeners):
            self.tell(saga_id)
