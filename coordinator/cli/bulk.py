"""`saga bulk`: does the same to many sagas, after showing to which."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final, TypedDict, Unpack

import click
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from coordinator.cli.calling import ExitCode, ask_coordinator, client_options, current_output
from coordinator.cli.output import Output, printable, standing_text
from coordinator.cli.payloads import PayloadTypes
from coordinator.cli.values import (
    INCIDENT_KIND,
    KINDS_IN_WORDS,
    STATUS_NAMES,
    InstantType,
    parse_incident_kinds,
    parse_labels,
    parse_statuses,
    with_actor,
)
from participant_sdk.client import ActionResult, SagaClient, SagaSelection
from saga.v1 import operator_pb2

ROWS_MAX: Final = 20
"""Sagas that a table shows; the rest is counted. --json has them all."""

_DONE: Final = {"pause": "paused", "resume": "resumed", "cancel": "cancelled", "terminate": "terminated", "retry": "retried"}
"""The actions, and what is said of a saga to which it was done."""


class SelectionFlags(TypedDict):
    """Which sagas; what was not said selects all."""

    statuses: tuple[str, ...]
    definition: str
    labels: tuple[str, ...]
    kinds: tuple[str, ...]
    created_from: datetime | None
    created_before: datetime | None
    paused: bool | None
    needs_person: bool | None


@click.command(short_help="Does ACTION to every saga that a filter finds.")
@click.argument("action", type=click.Choice(tuple(_DONE)))
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice(STATUS_NAMES, case_sensitive=False), help="May be given several times."
)
@click.option("--definition", default="", metavar="NAME", help="Only sagas of this definition.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be given several times; all must hold.")
@click.option("--kind", "kinds", multiple=True, type=INCIDENT_KIND, metavar="KIND", help=f"With such an open incident: {KINDS_IN_WORDS}.")
@click.option("--from", "created_from", type=InstantType(), help="Accepted at this instant or later.")
@click.option("--before", "created_before", type=InstantType(), help="Accepted before this instant.")
@click.option("--paused/--not-paused", default=None, help="Only sagas that are paused, or only those that are not.")
@click.option("--needs-person/--needs-nobody", default=None, help="Only sagas with an open incident, or only those without.")
@click.option("--reason", default="", help="Why, for the history of each; needed unless --dry-run.")
@with_actor
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@client_options
def bulk(action: str, *, reason: str, actor: str, dry_run: bool, yes: bool, **flags: Unpack[SelectionFlags]) -> None:
    """Does ACTION to every saga that the options find: all of them must hold, and at least one must be given.

    First a dry run shows to which sagas, and which of them would refuse. Then you are asked, and it is done to those that would
    not: to no saga that came since, and to none that the options do not find any more.

    `retry` tries every step again that an open incident is about.

    \b
      saga bulk retry --kind step_exhausted --definition place-order --reason "payments is back"
      saga bulk pause --status running --label region=eu --reason "datacentre move" --yes
    """  # noqa: D301 - click reads \b
    selection = _selection_of(flags)
    output, chosen = current_output(), operator_pb2.BulkAction.Value(f"BULK_ACTION_{action.upper()}")
    if not dry_run and not reason:
        raise click.UsageError("expected --reason, or --dry-run to only look")
    if output.is_json and not (dry_run or yes):
        raise click.UsageError("with --json nobody can be asked: give --yes, or --dry-run to only look")
    found = ask_coordinator(lambda client, _: _dry_run(client, selection, chosen))
    _show_plan(output, action, found, is_all=dry_run)
    willing = sum(each.refusal is None for each in found)
    if dry_run or not willing:
        sys.exit(ExitCode.DONE if dry_run or not found else ExitCode.REFUSED)
    if not yes and not _is_confirmed(f"{action} {_count(willing)}?"):
        output.show("nothing was done")
        sys.exit(ExitCode.NOT_COMPLETED)
    sys.exit(ask_coordinator(lambda client, _: _act(client, output, action, selection, shown=found, reason=reason, actor=actor)))


def _selection_of(flags: SelectionFlags) -> SagaSelection:
    if all(given in (None, "", ()) for given in flags.values()):
        raise click.UsageError(
            "expected at least one of --status, --definition, --label, --kind and the like: all sagas at once is no selection"
        )
    return SagaSelection(
        statuses=parse_statuses(flags["statuses"]),
        definition=flags["definition"],
        labels=parse_labels(flags["labels"]),
        created_from=flags["created_from"],
        created_before=flags["created_before"],
        paused=flags["paused"],
        needs_person=flags["needs_person"],
        incident_kinds=parse_incident_kinds(flags["kinds"]),
    )


def _is_confirmed(question: str) -> bool:
    # Between two runs of the loop, not within one: there the first Ctrl-C would not end the question.
    try:
        return click.confirm(question, default=False, err=True)
    except click.Abort:
        sys.exit(ExitCode.INTERRUPTED)


async def _dry_run(client: SagaClient, selection: SagaSelection, action: operator_pb2.BulkAction.ValueType) -> Sequence[ActionResult]:
    async with aclosing(client.operator.dry_run(selection, action)) as results:
        return [each async for each in results]


async def _act(
    client: SagaClient, output: Output, action: str, selection: SagaSelection, *, shown: Sequence[ActionResult], reason: str, actor: str
) -> ExitCode:
    chosen = operator_pb2.BulkAction.Value(f"BULK_ACTION_{action.upper()}")
    willing = [each.saga.id for each in shown if each.refusal is None]
    acting = client.operator.act_on_sagas(selection, chosen, saga_ids=willing, reason=reason, actor=actor)
    refused: list[ActionResult] = []
    done, types = 0, PayloadTypes()
    # On standard error, if it is a terminal: standard output is for what came of it.
    console = Console(stderr=True)
    columns = (TextColumn(action), BarColumn(), MofNCompleteColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with progress:
        bar = progress.add_task(action, total=len(willing))
        async with aclosing(acting) as results:
            async for each in results:
                progress.update(bar, advance=1, total=each.found)
                if each.refusal is None:
                    done += 1
                else:
                    refused.append(each)
                if output.is_json:
                    output.line(_line_of(each, types, len(shown)))
    unwilling = [each for each in shown if each.refusal is not None]
    if output.is_json:
        _show_lines(output, unwilling, len(shown))
    else:
        output.show(_summary(action, done, refused))
    return ExitCode.REFUSED if refused or unwilling else ExitCode.DONE


def _show_plan(output: Output, action: str, found: Sequence[ActionResult], *, is_all: bool) -> None:
    """What would be done. For programs only if it is all that they asked for."""
    if output.is_json:
        if is_all:
            _show_lines(output, found, len(found))
        return
    willing = [each for each in found if each.refusal is None]
    parts: list[RenderableType] = [Text(f"{_count(len(found))} found, {_count(len(willing))} would be {_DONE[action]}", style="bold")]
    if willing:
        parts.append(_table(willing))
    output.show(Group(*parts, *_refusals([each for each in found if each.refusal is not None], "would refuse")))


def _show_lines(output: Output, results: Sequence[ActionResult], found: int) -> None:
    types = PayloadTypes()
    for each in results:
        output.line(_line_of(each, types, found))


def _summary(action: str, done: int, refused: Sequence[ActionResult]) -> RenderableType:
    style = "green" if not refused else "yellow"
    return Group(Text(f"{_count(done)} {_DONE[action]}", style=style), *_refusals(refused, "refused"))


def _refusals(refused: Sequence[ActionResult], verb: str) -> list[RenderableType]:
    """What is refused: how often, why, and for which sagas."""
    if not refused:
        return []
    reasons = Counter(each.refusal.reason or type(each.refusal).__name__ for each in refused if each.refusal is not None)
    counted = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
    return [Text(), Text(f"{_count(len(refused))} {verb}: {printable(counted)}", style="bold red"), _table(refused)]


def _table(results: Sequence[ActionResult]) -> RenderableType:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for each in results[:ROWS_MAX]:
        saga = each.saga
        words = Text.assemble(printable(f"{saga.definition.name} v{saga.definition.version} "), standing_text(saga))
        if each.refusal is not None:
            # The message repeats the id, which stands beside it.
            words.append(
                f": {printable(each.refusal.status.message if each.refusal.status is not None else str(each.refusal))}", style="red"
            )
        table.add_row(Text(saga.id, style="cyan"), words)
    if len(results) > ROWS_MAX:
        table.add_row(Text(f"… and {len(results) - ROWS_MAX} more", style="dim"), Text())
    return table


def _line_of(result: ActionResult, types: PayloadTypes, found: int) -> dict[str, object]:
    refusal = result.refusal
    error = None if refusal is None else {"error": type(refusal).__name__, "reason": refusal.reason, "message": str(refusal)}
    return {"saga": types.to_json(result.saga), "error": error, "found": found}


def _count(number: int) -> str:
    return f"{number} saga" if number == 1 else f"{number} sagas"
