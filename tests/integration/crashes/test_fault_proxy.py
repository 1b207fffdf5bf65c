"""The bad network of the crash tests does what it says, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.integration.crashes.fault_proxy import CALM, FaultProxy, Harm, Tell, Weather
from tests.processes import free_port
from tests.simulation.chance import Chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A connection through a proxy, from both ends."""

    proxy: FaultProxy
    client: asyncio.StreamReader
    to_server: asyncio.StreamWriter
    server: asyncio.StreamReader
    to_client: asyncio.StreamWriter


@asynccontextmanager
async def proxied(seed: int = 1, tell: Tell = lambda _: None) -> AsyncIterator[tuple[FaultProxy, "asyncio.Queue[_Side]"]]:
    """A proxy before a server whose connections are put into a queue."""
    accepted: asyncio.Queue[_Side] = asyncio.Queue()
    server = await asyncio.start_server(lambda reader, writer: accepted.put_nowait((reader, writer)), "127.0.0.1", 0)
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, asyncio.timeout(20), FaultProxy("way", target, chance=Chance(seed), tell=tell) as proxy:
        yield proxy, accepted


_Side = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(proxy: FaultProxy) -> _Side:
    host, _, port = proxy.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    async with proxied() as (proxy, accepted):
        client, to_server = await connect(proxy)
        server, to_client = await accepted.get()
        to_server.write(b"hello")
        assert await server.readexactly(5) == b"hello"
        try:
            yield Line(proxy=proxy, client=client, to_server=to_server, server=server, to_client=to_client)
        finally:
            to_server.close()
            to_client.close()


async def test_bytes_pass_unchanged_both_ways_however_slowly() -> None:
    there, back = bytes(range(256)) * 2_000, bytes(reversed(range(256))) * 2_000
    async with line() as on:
        on.proxy.harm_all(Harm.DELAY, for_s=10.0)
        on.to_server.write(there)
        on.to_client.write(back)
        assert await on.server.readexactly(len(there)) == there
        assert await on.client.readexactly(len(back)) == back


async def test_end_of_one_side_is_the_end_of_the_other() -> None:
    async with line() as on:
        on.to_server.write(b"last words")
        on.to_server.close()
        assert await on.server.read() == b"last words"


async def test_cut_ends_both_sides() -> None:
    async with line() as on:
        on.proxy.harm_all(Harm.CUT)
        assert await on.client.read() == b""
        assert await on.server.read() == b""


async def test_reset_is_an_error_on_both_sides() -> None:
    async with line() as on:
        on.proxy.harm_all(Harm.RESET)
        for side in (on.client, on.server):
            with pytest.raises(ConnectionResetError):
                await side.read()


async def test_stall_holds_back_and_then_gives_everything() -> None:
    async with line() as on:
        began = asyncio.get_running_loop().time()
        on.proxy.harm_all(Harm.STALL, for_s=0.2)
        on.to_server.write(b"later")
        on.to_client.write(b"and later")
        assert await on.server.readexactly(5) == b"later"
        assert await on.client.readexactly(9) == b"and later"
        assert asyncio.get_running_loop().time() - began >= 0.2


async def test_deaf_server_hears_nothing_and_can_talk_until_all_is_well_again() -> None:
    async with line() as on:
        on.proxy.harm_all(Harm.DEAF)
        on.to_server.write(b"nobody hears this")
        on.to_client.write(b"are you there?")
        assert await on.client.readexactly(14) == b"are you there?"
        on.proxy.change(CALM)
        with pytest.raises(ConnectionResetError):
            await on.server.read()


async def test_mute_server_hears_everything_and_cannot_be_heard() -> None:
    async with line() as on:
        on.proxy.harm_all(Harm.MUTE)
        on.to_client.write(b"nobody hears this")
        on.to_server.write(b"are you there?")
        assert await on.server.readexactly(14) == b"are you there?"
        on.proxy.change(CALM)
        with pytest.raises(ConnectionResetError):
            await on.client.read()


async def test_connections_are_refused_as_often_as_asked_for() -> None:
    async with proxied() as (proxy, accepted):
        proxy.change(Weather(every_s=float("inf"), refused=1.0))
        reader, writer = await connect(proxy)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert accepted.empty()
        proxy.change(CALM)
        reader, writer = await connect(proxy)
        writer.write(b"!")
        assert await (await accepted.get())[0].readexactly(1) == b"!"
        writer.close()


async def test_target_that_is_not_there_is_a_reset_and_may_come_later() -> None:
    port = free_port()
    async with FaultProxy("way", f"127.0.0.1:{port}", chance=Chance(1)) as proxy, asyncio.timeout(20):
        reader, writer = await connect(proxy)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        accepted: asyncio.Queue[_Side] = asyncio.Queue()
        async with await asyncio.start_server(lambda reader, writer: accepted.put_nowait((reader, writer)), "127.0.0.1", port):
            _, writer = await connect(proxy)
            (await accepted.get())[1].close()
            writer.close()


async def harms_of(seed: int) -> list[str]:
    """What happens to a connection until it has ended."""
    told: list[str] = []
    async with proxied(seed, told.append) as (proxy, accepted):
        proxy.change(Weather(every_s=0.002, harms=(Harm.STALL, Harm.DELAY, Harm.STALL, Harm.CUT), lasts_s=(0.0, 0.003)))
        reader, writer = await connect(proxy)
        _, to_client = await accepted.get()
        assert await reader.read() == b""
        writer.close()
        to_client.close()
    return told


async def test_what_goes_wrong_follows_from_the_seed() -> None:
    seen = [await harms_of(seed) for seed in range(8)]
    assert all(each[-1] == "way 1: cut" for each in seen)
    assert len({tuple(each) for each in seen}) > 1
    assert await harms_of(3) == seen[3]
