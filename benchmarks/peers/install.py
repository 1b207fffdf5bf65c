"""Installs the peers, each into an environment of its own under `build/bench/`, in the versions that stand beside its driver.

    python -m benchmarks.peers.install            # all of them
    python -m benchmarks.peers.install dbos       # this one

What is there already is left alone. Needs Python's `venv` and `pip`, and `npm` for Restate's server.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

PEERS: Final = ("restate", "dbos", "naive", "temporal")
HERE: Final = Path(__file__).parent
ENVIRONMENTS: Final = HERE.parent.parent / "build" / "bench"
INSTALL_LIMIT_S: Final = 900.0


def install(peer: str) -> None:
    """Makes the environment of a peer, unless it is there as its files want it."""
    environment, stamp = ENVIRONMENTS / peer, ENVIRONMENTS / peer / ".installed"
    wanted = _wanted(peer)
    if stamp.exists() and stamp.read_text() == wanted:
        print(f"{peer}: is there", flush=True)
        return
    print(f"{peer}: installing into {environment.relative_to(ENVIRONMENTS.parent.parent)} ...", flush=True)
    shutil.rmtree(environment, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(environment))
    _run(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(HERE / peer / "requirements.txt"))
    package = HERE / peer / "package.json"
    if package.exists():
        shutil.copy(package, environment)
        _run("npm", "install", "--prefix", str(environment), "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    stamp.write_text(wanted)
    print(f"{peer}: installed", flush=True)


def _wanted(peer: str) -> str:
    """Changes with the versions wanted, and with the interpreter."""
    parts = [sys.version, *(path.read_text() for path in sorted((HERE / peer).glob("requirements.txt")))]
    parts += [path.read_text() for path in sorted((HERE / peer).glob("package.json"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=INSTALL_LIMIT_S, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="peer", help=f"of {', '.join(PEERS)}; none: all")
    given = parser.parse_args()
    unknown = set(given.peers) - set(PEERS)
    if unknown:
        parser.error(f"expected peers of {', '.join(PEERS)}, found {', '.join(sorted(unknown))}")
    for peer in given.peers or PEERS:
        install(peer)
