"""The wheel and the sdist of this checkout, and environments with nothing else in them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.documents import ROOT

BUILD_TIME_LIMIT_S = 120
INSTALL_TIME_LIMIT_S = 300
PIP = (sys.executable, "-m", "pip")


def run(*command: str, cwd: Path | str = "/", time_limit_s: float = INSTALL_TIME_LIMIT_S) -> str:
    """What it prints. Fails if it does. The tree under test is not on its path."""
    done = subprocess.run(command, cwd=cwd, env=environment(), check=False, capture_output=True, text=True, timeout=time_limit_s)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def environment() -> dict[str, str]:
    """That of a user, who has no checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def build_wheel(folder: Path, source: Path = ROOT) -> Path:
    """Built without asking anybody for anything: the backend is in the dev group. `source`: a folder or an sdist."""
    command = (*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    run(*command, time_limit_s=BUILD_TIME_LIMIT_S)
    (built,) = folder.glob("*.whl")
    return built


def build_sdist(folder: Path) -> Path:
    """The same for the sdist."""
    command = (sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder))
    run(*command, cwd=ROOT, time_limit_s=BUILD_TIME_LIMIT_S)
    (built,) = folder.glob("*.tar.gz")
    return built


def environment_with(folder: Path, wheel: Path, extra: str = "") -> str:
    """The Python of a fresh environment with the wheel in it. `extra`: such as "[testing]"."""
    run(sys.executable, "-m", "venv", str(folder))
    python = str(folder / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", f"saga-coordinator{extra} @ {wheel.as_uri()}")
    return python


def download_with_dependencies(folder: Path, wheel: Path, extra: str) -> Path:
    """A folder that pip can install the wheel from, and what it needs, without an index."""
    run(*PIP, "download", "--quiet", "--dest", str(folder), f"saga-coordinator{extra} @ {wheel.as_uri()}")
    return folder
