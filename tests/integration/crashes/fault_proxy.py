"""A TCP proxy that is a bad network: it cuts, resets, stalls, delays and half-opens the connections through it, each by chance.

Everything follows from the seed and the number of the connection. It knows nothing of what is sent, and never changes a byte of it.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from types import TracebackType
from typing import Final, Self

from tests.simulation.chance import Chance

CHUNK_BYTES: Final = 64 * 1024
CONNECT_TIMEOUT_S: Final = 5.0


class Harm(StrEnum):
    """What can be done to a connection."""

    CUT = "cut"
    """It ends, as when somebody closes it."""
    RESET = "reset"
    """It ends at once with RST; what was under way is lost."""
    STALL = "stall"
    """Nothing gets through for a while, and everything afterwards."""
    DELAY = "delay"
    """Everything takes longer for a while."""
    DEAF = "deaf"
    """Nothing gets to the server any more, for good; the other way works."""
    MUTE = "mute"
    """Nothing comes back from the server any more, for good; the other way works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What goes wrong on the connections of one proxy, and how often."""

    every_s: float
    """Mean time between two harms of one connection."""
    harms: tuple[Harm, ...] = tuple(Harm)
    """Drawn from these; one that stands there twice comes twice as often."""
    refused: float = 0.0
    """Share of new connections that are reset at once."""
    lasts_s: tuple[float, float] = (0.05, 2.0)
    """Shortest and longest stall, and time of delays."""
    delay_s: float = 0.2
    """Longest delay of a chunk."""


CALM: Final = Weather(every_s=float("inf"))

Tell = Callable[[str], None]
"""Is told of each harm, in words."""


class FaultProxy:
    """Passes on what comes to `address`, well until `weather` says otherwise. Between `start` and `close`, or with `async with`."""

    def __init__(self, name: str, target: str, *, chance: Chance, tell: Tell = lambda _: None) -> None:
        """`name`: of the way, for people and for chance. `target`: "host:port", which need not be there yet."""
        self._name = name
        self._target = target
        self._chance = chance
        self._tell = tell
        self._server: asyncio.Server | None = None
        self._connections: dict[int, _Connection] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._made = 0
        self._weather = CALM
        self.address = ""
        """Where it listens, after `start`."""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Ends every connection. Safe to call twice."""
        if self._server is not None:
            self._server.close()
        for connection in self.connections:
            connection.reset()
        if self._serving:
            await asyncio.wait(self._serving)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def change(self, weather: Weather) -> None:
        """From now on it is like that, also on connections that are open. `CALM` ends everything: whoever hears nothing is reset."""
        self._weather = weather
        for connection in self.connections:
            if weather is CALM:
                connection.heal()
            else:
                connection.expose(weather)

    def harm_all(self, harm: Harm, *, for_s: float = 0.0) -> None:
        """Does that to all connections that are open now."""
        for connection in self.connections:
            connection.harm(harm, for_s=for_s)

    @property
    def connections(self) -> "list[_Connection]":
        """Those that are open now."""
        return list(self._connections.values())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._made += 1
        number, chance = self._made, self._chance.stream(self._name, self._made)
        if chance.random() < self._weather.refused:
            self._tell(f"{self._name} {number}: refused")
            _reset(writer)
            return
        host, _, port = self._target.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                upstream = await asyncio.open_connection(host, int(port))
        except (OSError, TimeoutError):
            _reset(writer)  # as if nobody listened here either
            return
        connection = _Connection(f"{self._name} {number}", (reader, writer), upstream, chance, self._tell)
        with self._kept(number, connection):
            await connection.run(self._weather)

    @contextmanager
    def _kept(self, number: int, connection: "_Connection") -> Iterator[None]:
        self._connections[number] = connection
        try:
            yield
        finally:
            del self._connections[number]


_Side = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Way:
    """One direction of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.is_open = asyncio.Event()
        """Cleared: nothing is read from the one side, so that it hears nothing and fills its buffers."""
        self.is_open.set()

    async def run(self, delay_s: Callable[[], float]) -> None:
        """Until its source has ended."""
        while True:
            await self.is_open.wait()
            chunk = await self.reader.read(CHUNK_BYTES)
            await self.is_open.wait()  # what was read in the moment when it closed is held back too
            if not chunk:
                self.writer.close()
                return
            if (later_s := delay_s()) > 0:
                await asyncio.sleep(later_s)
            self.writer.write(chunk)
            await self.writer.drain()


class _Connection:
    """One connection through the proxy, and what is done to it."""

    def __init__(self, name: str, near: _Side, far: _Side, chance: Random, tell: Tell) -> None:
        self._name = name
        self._there, self._back = _Way(near[0], far[1]), _Way(far[0], near[1])
        self._writers = near[1], far[1]
        self._chance = chance
        self._tell = tell
        self._delay_s = 0.0
        self._is_lasting = False
        """Whether a way is closed for good."""
        self._is_over = False
        self._timers: list[asyncio.TimerHandle] = []

    async def run(self, weather: Weather) -> None:
        """Until both ways have ended."""
        self.expose(weather)
        ways = [asyncio.ensure_future(way.run(self._draw_delay)) for way in (self._there, self._back)]
        try:
            # With one way closed for good its end is never seen; then the end of the other one is the end of both.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if not self._is_lasting and not any(way.done() and way.exception() for way in ways):
                await asyncio.wait(ways, timeout=1.0)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._end(asyncio.StreamWriter.close)

    def expose(self, weather: Weather) -> None:
        """Something goes wrong with it sooner or later."""
        self._stop_timers()
        if weather.every_s < float("inf"):
            self._after(self._chance.expovariate(1 / weather.every_s), lambda: self._suffer(weather))

    def heal(self) -> None:
        """Nothing goes wrong with it any more."""
        self._stop_timers()
        if self._is_lasting:
            self.reset()
        self._delay_s = 0.0
        self._there.is_open.set()
        self._back.is_open.set()

    def harm(self, harm: Harm, *, for_s: float, delay_s: float = 0.2) -> None:
        """Does that to it now."""
        self._tell(f"{self._name}: {harm}" + (f" for {for_s:.2f} s" if harm in (Harm.STALL, Harm.DELAY) else ""))
        match harm:
            case Harm.CUT:
                self._end(asyncio.StreamWriter.close)
            case Harm.RESET:
                self.reset()
            case Harm.STALL:
                self._there.is_open.clear()
                self._back.is_open.clear()
                self._after(for_s, self._go_on)
            case Harm.DELAY:
                self._delay_s = delay_s
                self._after(for_s, self._hurry)
            case Harm.DEAF:
                self._is_lasting = True
                self._there.is_open.clear()
            case Harm.MUTE:
                self._is_lasting = True
                self._back.is_open.clear()

    def reset(self) -> None:
        """Ends it with RST on both sides."""
        self._end(_reset)

    def _suffer(self, weather: Weather) -> None:
        self.harm(self._chance.choice(weather.harms), for_s=self._chance.uniform(*weather.lasts_s), delay_s=weather.delay_s)
        if not self._is_over:
            self._after(self._chance.expovariate(1 / weather.every_s), lambda: self._suffer(weather))

    def _after(self, delay_s: float, act: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, act))

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _go_on(self) -> None:
        if not self._is_lasting:
            self._there.is_open.set()
            self._back.is_open.set()

    def _hurry(self) -> None:
        self._delay_s = 0.0

    def _draw_delay(self) -> float:
        return self._chance.uniform(0, self._delay_s) if self._delay_s else 0.0

    def _end(self, end: Callable[[asyncio.StreamWriter], None]) -> None:
        self._stop_timers()
        self._is_over = True
        for writer in self._writers:
            end(writer)
        for way in (self._there, self._back):
            way.is_open.set()  # to see that it has ended


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends it without a word: unsent bytes are dropped, and the peer gets ECONNRESET."""
    bare = writer.get_extra_info("socket")
    if bare is not None and not writer.transport.is_closing():
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
