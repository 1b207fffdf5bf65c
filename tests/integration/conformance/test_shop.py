"""Our own shop keeps every rule, its processes being killed in between; and so says the command line."""

import asyncio
import json
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner
from google.protobuf import wrappers_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.wrappers_pb2 import StringValue

from coordinator.cli.app import main
from participant_sdk import NoBarrier, Participant, ParticipantServer, StepContext, action
from participant_sdk.ids import new_saga_id
from participant_sdk.testing.conformance import RULES, Verdict, VerifyOptions, Way, verify_participant
from shop.v1.shop_pb2 import PlaceOrder
from tests.fork_server import FORK_SERVER, ForkedProcess
from tests.integration.conformance.careless import Careless
from tests.integration.conformance.plain_participant import INPUT_TYPE
from tests.integration.conformance.test_verify import ABOUT_FRAMES, ACTION, BROKEN_BY, EVERY_RULE, names, serving
from tests.processes import ROOT, free_port, python_environment, wait_until_serving

ORDER: Final = PlaceOrder(order_id="1", sku="widget", quantity=1, amount_cents=1250, card="4242", address="1 Main Street")
SHOP: Final = {
    "inventory": ("inventory.reserve", "SELECT count(*) FROM reservation"),
    "payments": ("payments.charge", "SELECT count(*) FROM payment WHERE NOT is_refunded"),
    "shipping": ("shipping.book", "SELECT count(*) FROM shipment WHERE NOT is_called_off"),
}
"""Actions, and how many of their effects were not undone."""
CITES: Final = {rule.name: " ".join(rule.cites) for rule in RULES}
DELAY_MS: Final = 150
"""Longer than the attempt that is cut short."""


class Service:
    """One service of the shop, a process of its own."""

    def __init__(self, name: str, directory: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.database = directory / f"{name}.db"
        self._name = name
        self._log = directory / f"{name}.log"
        self._process: ForkedProcess | None = None

    async def start(self) -> None:
        environment = python_environment(
            {
                "SHOP_DATABASE": str(self.database),
                "SHOP_ADDRESS": self.address,
                "SAGA_ADDRESS": f"127.0.0.1:{free_port()}",
                "SHOP_DELAY_MS": str(DELAY_MS),
            }
        )
        self._process = FORK_SERVER.spawn(f"examples.shop.{self._name}", [], log=self._log, environment=environment, directory=ROOT)
        await wait_until_serving(self.address, self._process)

    async def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self._process.wait, 30)

    async def restart(self) -> None:
        await self.kill()
        await self.start()


@asynccontextmanager
async def shop_service(name: str, directory: Path) -> AsyncIterator[Service]:
    service = Service(name, directory)
    await service.start()
    try:
        yield service
    finally:
        await service.kill()


@pytest.mark.full
@pytest.mark.parametrize("name", ["inventory", *(pytest.param(name, marks=pytest.mark.full) for name in SHOP if name != "inventory")])
async def test_participants_of_the_shop_keep_every_rule(name: str, tmp_path: Path) -> None:  # G3, P2, R18, R22
    action_name, left = SHOP[name]
    async with shop_service(name, tmp_path) as service:
        report = await verify_participant(service.address, action_name, ORDER, VerifyOptions(restart=service.restart))
    report.raise_if_broken()
    assert names(report, Verdict.KEPT) == EVERY_RULE
    assert report.left_behind == 0
    with closing(sqlite3.connect(service.database)) as books:
        assert books.execute(left).fetchone() == (0,)


class WithoutBarrier(Participant, name="sdk"):
    """Every part of the SDK but the barrier."""

    @action
    async def act(self, request: StringValue, step: StepContext) -> StringValue:
        return StringValue(value=new_saga_id())

    @act.compensation
    async def undo(self, request: StringValue, output: StringValue | None, step: StepContext) -> None:
        pass


async def test_participant_of_the_sdk_without_a_barrier_breaks_what_the_barrier_is_for() -> None:  # R23
    address = f"127.0.0.1:{free_port()}"
    async with ParticipantServer(WithoutBarrier(barrier=NoBarrier()), address=address, coordinator=None):
        report = await verify_participant(address, "sdk.act", StringValue(), VerifyOptions())
    assert names(report, Verdict.BROKEN) == BROKEN_BY[Careless.NO_BARRIER] - {"restart", "exchange-drain"}


async def saga(*arguments: str, code: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "coordinator", *arguments]
    environment = python_environment({"COLUMNS": "120"})
    ended = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == code, ended.stderr
    return ended


@pytest.mark.full
async def test_command_shows_what_is_kept_and_what_was_not_run() -> None:
    async with serving() as server:
        ended = await saga("verify", server.address, "--action", ACTION, "--input", '"something"', "--timeout", "2", code=0)
    lines = ended.stdout.splitlines()
    assert lines[0] == f"plain.act at {server.address}"
    assert [line.split()[0] for line in lines[2:-1] if not line.startswith(" ")] == [rule.name for rule in RULES for _ in rule.ways]
    assert [" ".join(line.split()) for line in lines if line.startswith(("compensate-before", "restart"))] == [
        *(
            f"compensate-before-execute {way} kept there was nothing to undo, and it says COMPENSATED {CITES['compensate-before-execute']}"
            for way in Way
        ),
        *(f"restart {way} not run say how it is restarted: --restart {CITES['restart']}" for way in Way),
    ]
    assert lines[-1] == "no rule is broken"


@pytest.mark.full
async def test_command_passes_on_the_shop(tmp_path: Path) -> None:  # G3
    order = '{"order_id": "1", "sku": "widget", "quantity": 1}'
    async with shop_service("inventory", tmp_path) as service:
        ended = await saga("verify", service.address, "--action", "inventory.reserve", "--input", order, code=0)
    assert ended.stdout.splitlines()[-1] == "no rule is broken"


@pytest.mark.full
async def test_command_says_what_is_broken_for_programs_and_by_its_exit_code(tmp_path: Path) -> None:
    types = FileDescriptorSet()
    wrappers_pb2.DESCRIPTOR.CopyToProto(types.file.add())
    (tmp_path / "types.binpb").write_bytes(types.SerializeToString())
    marked = tmp_path / "restarted"
    async with serving(Careless.REFUSES_SECOND_UNDO, describes=False) as server:
        arguments = ["--action", ACTION, "--input", '"something"', "--input-type", INPUT_TYPE]
        arguments += ["--descriptors", str(tmp_path / "types.binpb")]
        restart = ["--restart", f"touch {shlex.quote(str(marked))}"]
        ended = await saga("verify", server.address, *arguments, *restart, "--timeout", "2", "--json", code=1)
        assert marked.exists()
        report = json.loads(ended.stdout)
        assert (report["address"], report["action"], report["kept"], report["left_behind"]) == (server.address, ACTION, False, 0)
        verdicts = {finding["rule"]: finding["verdict"] for finding in report["findings"] if finding["way"] == "one by one"}
        kept = dict.fromkeys(EVERY_RULE - ABOUT_FRAMES, "kept")
        assert verdicts == kept | {"describe": "does not apply", "compensate-twice": "broken"}
        in_frames = {finding["rule"]: finding["verdict"] for finding in report["findings"] if finding["way"] == "in frames"}
        assert in_frames == dict.fromkeys(EVERY_RULE - {"describe"}, "does not apply")
        (broken,) = (finding for finding in report["findings"] if finding["verdict"] == "broken")
        assert broken["seen"] == (
            "expected COMPENSATED for a step that is compensated already, found REJECTED FAILED_PRECONDITION it is undone already"
        )
        ended = await saga("verify", server.address, *arguments, "--restart", "echo no such service >&2; false", code=4)
        assert ended.stderr == "error: the restart command ended with 1: no such service\n"


@pytest.mark.full
async def test_command_says_what_is_missing_and_what_to_do() -> None:
    async with serving() as server:
        ended = await saga("verify", server.address, "--action", "plain.other", code=4)
        assert ended.stderr == f"error: expected an action plain.other at {server.address}, found plain.act\n"
        ended = await saga("verify", server.address, "--action", ACTION, "--input", "{broken", code=2)
        assert "this is no google.protobuf.StringValue in JSON" in ended.stderr
    async with serving(describes=False) as server:
        ended = await saga("verify", server.address, "--action", ACTION, code=2)
        assert "say the type of its input" in ended.stderr
    ended = await saga("verify", f"127.0.0.1:{free_port()}", "--action", ACTION, code=3)
    assert "nobody answers at" in ended.stderr


def test_inputs_are_one_for_each_action() -> None:
    result = CliRunner().invoke(main, ["verify", "127.0.0.1:1", "--action", "a.b", "--action", "a.c", "--input", "{}"])
    assert result.exit_code == 2
    assert "expected one for each of 2 --action, found 1" in result.stderr
