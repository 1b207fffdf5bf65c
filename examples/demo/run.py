"""How a demo runs: in a folder of its own, until it has told its story, failed to keep a promise, or was interrupted."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from examples.demo.processes import DemoError
from participant_sdk import CoordinatorError, configure_otlp
from saga.v1 import saga_pb2

Demo = Callable[[Path], Awaitable[None]]
"""The whole story, told in a folder. Raises DemoError if something is not as promised."""


def run(demo: Demo, *, name: str) -> int:
    """Runs a demo; returns the exit code of its process. `name` is what its traces are called by."""
    stop_telemetry = configure_otlp(name)
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        try:
            asyncio.run(_until_interrupted(demo, Path(folder)))
        except asyncio.CancelledError:
            print("\ninterrupted; every process is stopped", file=sys.stderr)
            return 130
        except (DemoError, CoordinatorError) as failure:
            return _failed(failure)
        except ExceptionGroup as failures:
            broken_promises, others = failures.split((DemoError, CoordinatorError))
            if broken_promises is None or others is not None:
                raise
            return _failed(*broken_promises.exceptions)
        finally:
            stop_telemetry()
    return 0


def name_of(status: saga_pb2.SagaStatus.ValueType) -> str:
    """A status as people read it."""
    return saga_pb2.SagaStatus.Name(status).removeprefix("SAGA_STATUS_")


def say(text: str) -> None:
    """Tells something, now."""
    print(text, flush=True)


async def _until_interrupted(demo: Demo, folder: Path) -> None:
    running = asyncio.ensure_future(demo(folder))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    await running


def _failed(*failures: Exception) -> int:
    for failure in failures:
        print(f"\nFAILED: {failure}", file=sys.stderr)
    return 1
