"""`saga verify`: whether a participant, in whatever language, keeps its side of the wire contract."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import click
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError, Message
from rich.console import Console
from rich.status import Status
from rich.text import Text

from coordinator.cli.calling import ExitCode, exits_for_errors
from coordinator.cli.checking import FOUND_SOMETHING
from coordinator.cli.output import Output, printable
from coordinator.cli.payloads import PayloadError, PayloadTypes
from coordinator.cli.tables import AdaptiveTable, Column
from coordinator.cli.values import SECONDS, read_source
from participant_sdk.testing.conformance import (
    RULES,
    ConformanceError,
    ConformanceReport,
    ParticipantUnreachableError,
    Rule,
    Verdict,
    VerifyOptions,
    describe_participant,
    find_action,
    verify_participant,
)

_STYLES: Final = {Verdict.KEPT: "green", Verdict.BROKEN: "bold red", Verdict.NOT_RUN: "yellow", Verdict.DOES_NOT_APPLY: "dim"}
_RULES_LISTED: Final = "\n".join(f"  {rule.name:<26}{rule.title}" for rule in RULES)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is to be verified, as it was asked for."""

    address: str
    pairs: Sequence[tuple[str, str]]
    """Actions with the JSON of their inputs."""
    input_type: str
    descriptors: FileDescriptorSet | None
    options: VerifyOptions


@click.command(
    short_help="Proves that a participant keeps its side of the wire contract.",
    epilog=f"\b\nThe rules:\n{_RULES_LISTED}",
)
@click.argument("address", metavar="HOST:PORT")
@click.option("--action", "actions", metavar="NAME.ACTION", multiple=True, required=True, help="What is called; or several.")
@click.option("--input", "inputs", metavar="JSON|@FILE|-", multiple=True, help="An input that the action accepts: one for each --action.")
@click.option("--restart", metavar="COMMAND", help="A shell command that restarts the participant; without it that rule is not run.")
@click.option("--deadline", type=SECONDS, default=0.1, show_default=True, metavar="SECONDS", help="Of the attempt that is cut short.")
@click.option("--timeout", type=SECONDS, default=10.0, show_default=True, metavar="SECONDS", help="For one call.")
@click.option("--input-type", default="", metavar="TYPE", help="Message type of the input, if the participant does not serve Describe.")
@click.option(
    "--descriptors",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.binpb",
    help="The message types then, as `buf build -o FILE.binpb` writes them.",
)
@click.option("--no-undo", is_flag=True, help="The action cannot be compensated, if the participant does not say so itself.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object per action.")
def verify(
    address: str, actions: tuple[str, ...], inputs: tuple[str, ...], restart: str | None, deadline: float, timeout: float,
    input_type: str, descriptors: Path | None, *, no_undo: bool, is_json: bool,
) -> None:  # fmt: skip
    """Calls the participant at HOST:PORT as coordinators do after crashes, lost replies and delays, and says which rules it keeps.

    It may be written in any language, with this SDK or without. If it says that it serves Exchange, the rules are tried out in frames too.
    THIS HAS REAL EFFECTS: up to ten executions of each action at once, each undone again if the action can be. Use a test environment,
    and an --input that is accepted that often.

    \b
      saga verify 127.0.0.1:7711 --action inventory.reserve \\
        --input '{"order_id": "1", "sku": "widget", "quantity": 1}' --restart 'docker restart inventory'

    Only answers are seen. Let the output carry an id that the effect makes: an effect that happens twice then answers differently.

    Exits 0 if no rule is broken, 1 if one is, 3 if nobody answers, 4 if the action is not there or refuses the input.
    """  # noqa: D301 - click reads \b
    if len(inputs) not in {0, len(actions)}:
        raise click.BadParameter(f"expected one for each of {len(actions)} --action, found {len(inputs)}", param_hint="--input")
    options = VerifyOptions(
        restart=_restarting(restart) if restart else None,
        is_compensatable=not no_undo,
        timeout=timedelta(seconds=timeout),
        deadline=timedelta(seconds=deadline),
    )
    sources = [read_source(source, "--input") for source in inputs] or ["{}"] * len(actions)
    wanted = _Wanted(
        address=address,
        pairs=list(zip(actions, sources, strict=True)),
        input_type=input_type,
        descriptors=_read(descriptors),
        options=options,
    )
    output = Output(is_json=is_json)
    with exits_for_errors(output):
        try:
            is_kept = asyncio.run(_verify_all(wanted, output))
        except ParticipantUnreachableError as error:
            output.failure(error)
            sys.exit(ExitCode.UNAVAILABLE)
        except ConformanceError as error:
            output.failure(error)
            sys.exit(ExitCode.REFUSED)
    sys.exit(ExitCode.DONE if is_kept else FOUND_SOMETHING)


async def _verify_all(wanted: _Wanted, output: Output) -> bool:
    is_kept = True
    errors = Console(stderr=True)
    for action, source in wanted.pairs:
        message = await _input_of(wanted, action, source)
        with errors.status(f"verifying {action} …") if errors.is_terminal else nullcontext() as status:

            def tell(rule: Rule, action: str = action, status: Status | None = status) -> None:
                if status is not None:
                    status.update(f"verifying {action}: {rule.name} …")

            report = await verify_participant(wanted.address, action, message, replace(wanted.options, on_rule=tell))
        is_kept = is_kept and not report.broken
        _show(report, output)
    return is_kept


async def _input_of(wanted: _Wanted, action: str, source: str) -> Message:
    """The input as a message of its type. Raises BadParameter if it is none."""
    described = await describe_participant(wanted.address, action.partition(".")[0], wanted.options.timeout)
    known = find_action(described, wanted.address, action)
    types = described.descriptors if described is not None and wanted.descriptors is None else wanted.descriptors
    type_name = wanted.input_type or (known.input_type if known is not None else "")
    if not type_name:
        raise click.BadParameter(
            f"the participant does not describe {action}: say the type of its input, and give --descriptors unless it is a well-known one",
            param_hint="--input-type",
        )
    try:
        return PayloadTypes(types).parse(source, type_name)
    except (PayloadError, TypeError) as error:
        raise click.BadParameter(f"{action}: {error}", param_hint="--input") from error


def _show(report: ConformanceReport, output: Output) -> None:
    if output.is_json:
        output.line(report.to_json())
        return
    table = AdaptiveTable(
        Column(title="rule", is_whole=True),
        Column(title="calls", is_whole=True),
        Column(title="verdict", is_whole=True),
        Column(title="what was seen"),
        Column(title="cites"),
    )
    for finding in report.findings:
        table.add_row(
            Text(finding.rule),
            Text(finding.way),
            Text(finding.verdict.upper() if finding.verdict is Verdict.BROKEN else finding.verdict, style=_STYLES[finding.verdict]),
            Text(printable(finding.seen)),
            Text(" ".join(finding.cites), style="dim"),
        )
    output.show(Text(f"{report.action} at {report.address}", style="bold"))
    output.show(table)
    if report.broken:
        output.show(Text(f"{len(report.broken)} of {len(report.findings)} rules are BROKEN", style="bold red"))
    else:
        output.show(Text("no rule is broken", style="bold green"))
    if report.left_behind:
        output.show(Text(f"{report.left_behind} executions were not undone: their effects may have stayed", style="yellow"))


def _restarting(command: str) -> Callable[[], Awaitable[None]]:
    async def restart() -> None:
        # A file, not a pipe: what the command leaves running would hold the other end of a pipe.
        with TemporaryFile() as told:
            process = await asyncio.create_subprocess_shell(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=told)
            if not await process.wait():
                return
            told.seek(0)
            why = told.read().decode(errors="replace").strip() or command
        raise ConformanceError(f"the restart command ended with {process.returncode}: {why}")

    return restart


def _read(path: Path | None) -> FileDescriptorSet | None:
    if path is None:
        return None
    try:
        return FileDescriptorSet.FromString(path.read_bytes())
    except DecodeError as error:
        raise click.BadParameter(
            f"expected a FileDescriptorSet in {path}, as `buf build -o` writes it", param_hint="--descriptors"
        ) from error
