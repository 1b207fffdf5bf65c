"""The README's snippet does what it says, in a folder of its own, beside a coordinator on the default port."""

import asyncio
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from participant_sdk import SagaClient
from tests.processes import ROOT, CoordinatorProcess, python_environment

DEFAULT = "127.0.0.1:7700"


def snippet() -> str:
    (found,) = re.findall(r"<!-- the test-suite runs this -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert isinstance(found, str)
    return found


def test_forty_lines_are_forty() -> None:
    code = [line for line in snippet().splitlines() if line.strip() and not line.startswith(("import ", "from "))]
    assert len(code) <= 40


def default_port_is_free() -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", 7700)) != 0


@pytest.mark.xdist_group("default-port")
async def test_forty_lines_of_the_readme_do_what_they_say(tmp_path: Path) -> None:
    if not default_port_is_free():
        pytest.fail(f"{DEFAULT} must be free: the README's snippet uses the default address")
    program = tmp_path / "order.py"
    program.write_text(snippet())
    with CoordinatorProcess(tmp_path, address=DEFAULT) as coordinator:
        await coordinator.start()
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(program)],
            cwd=tmp_path,
            env=python_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        async with SagaClient() as client:
            assert len([saga async for saga in client.list()]) == 2
    paid, declined, books = ended.stdout.splitlines()
    assert paid == "paid for one bicycle"
    assert "CARD_DECLINED" in declined or "nobody can pay" in declined
    assert books == "{'bicycle': 9, 'yacht': 10}"
