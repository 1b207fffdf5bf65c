"""A process that can be stopped in the midst of everything, as by SIGSTOP, and goes on later as if nothing had been."""

import asyncio
from collections.abc import Callable


class Suspension:
    """Whatever would make the process do something passes through here, and waits while it is stopped."""

    def __init__(self) -> None:
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._waiting: list[Callable[[], None]] = []

    @property
    def is_stopped(self) -> bool:
        """Whether it is stopped now."""
        return not self._goes_on.is_set()

    def stop(self) -> None:
        """Nothing happens in it any more."""
        self._goes_on.clear()

    def go_on(self) -> None:
        """Everything that has waited happens, in the order in which it came."""
        self._goes_on.set()
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            asyncio.get_running_loop().call_soon(callback)

    def run(self, callback: Callable[[], None]) -> None:
        """Calls back at once, or when it goes on."""
        if self.is_stopped:
            self._waiting.append(callback)
        else:
            callback()

    async def passed(self) -> None:
        """Returns at once, or when it goes on."""
        while self.is_stopped:
            await self._goes_on.wait()
