"""Where commands write: tables and words for people, lines of JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console, RenderableType
from rich.text import Text

from coordinator.cli.wording import short_name
from participant_sdk.client import CoordinatorError, SagaNotCompleted
from saga.v1 import saga_pb2

PIPE_WIDTH = 160
"""Columns when the output goes to no terminal: wide enough that nothing is cut off."""

STATUS_STYLES: Mapping[int, str] = {
    saga_pb2.SAGA_STATUS_PENDING: "cyan",
    saga_pb2.SAGA_STATUS_RUNNING: "blue",
    saga_pb2.SAGA_STATUS_COMPLETED: "bold green",
    saga_pb2.SAGA_STATUS_COMPENSATING: "yellow",
    saga_pb2.SAGA_STATUS_COMPENSATED: "bold yellow",
    saga_pb2.SAGA_STATUS_FAILED: "bold red",
}


class _Terminal(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would exit with 1, which stands for something else here


class Output:
    """Standard output for what was asked, standard error for what went wrong."""

    def __init__(self, *, is_json: bool) -> None:
        self.is_json = is_json
        self.console = _Terminal(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        self._errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def show(self, renderable: RenderableType) -> None:
        """For people."""
        self.console.print(renderable)

    def line(self, content: Mapping[str, object]) -> None:
        """For programs: one object, one line, at once."""
        sys.stdout.write(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
        sys.stdout.flush()

    def failure(self, error: Exception, *, details: Sequence[str] = ()) -> None:
        """What went wrong, on standard error."""
        if not self.is_json:
            self._errors.print(Text("error: ", style="bold red") + Text(printable(str(error), keep_lines=True)))
            for detail in details:
                self._errors.print(Text("  - " + printable(detail)))
            return
        content: dict[str, object] = {"error": type(error).__name__, "message": str(error), "details": list(details)}
        if isinstance(error, CoordinatorError | SagaNotCompleted):
            content |= {"reason": error.reason, "saga_id": error.saga_id}
        sys.stderr.write(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")


def printable(text: str, *, keep_lines: bool = False) -> str:
    """The text without characters that steer a terminal: error messages come from participants, and they from anywhere."""
    return "".join(
        character if character.isprintable() or (keep_lines and character == "\n") else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def status_text(status: saga_pb2.SagaStatus.ValueType) -> Text:
    """A saga's status in its colour."""
    return Text(short_name(saga_pb2.SagaStatus, status, "SAGA_STATUS_"), style=STATUS_STYLES.get(status, ""))


def standing_text(saga: saga_pb2.Saga) -> Text:
    """A saga's status, with what a person did to it and whether one is needed."""
    parts = [status_text(saga.status)]
    if saga.HasField("terminated"):
        parts.append(Text("terminated", style="red"))
    if saga.HasField("paused"):
        parts.append(Text("paused", style="yellow"))
    if saga.HasField("turn_back_requested"):
        parts.append(Text("turn-back requested", style="yellow"))
    if saga.needs_person and saga.status != saga_pb2.SAGA_STATUS_FAILED:
        parts.append(Text("needs a person", style="red"))
    return Text(" ").join(parts)
