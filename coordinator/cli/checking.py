"""`saga check` and `saga diff`: what a definition is worth, and what a new version changes, before anything is registered."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from coordinator.cli.calling import ExitCode, client_command
from coordinator.cli.definition_diff import Change, Side, Verb, compare_definitions
from coordinator.cli.definition_file import (
    DefinitionFileError,
    FileProblem,
    FoundDefinition,
    at_line,
    find_definitions,
    names_a_file,
)
from coordinator.cli.definition_view import definition_to_json, render_definition, to_mermaid
from coordinator.cli.output import Output, printable
from participant_sdk.client import CoordinatorUnavailable, DefinitionNotFound, SagaClient
from participant_sdk.definitions import can_check_expressions
from saga.v1 import saga_pb2

UNFINISHED_MAX: Final = 10_000
"""Sagas that are looked at to count those in flight; beyond that the count is "more than"."""
COUNT_TIMEOUT: Final = timedelta(seconds=2)
"""How long a coordinator is tried for what is only said besides."""
FOUND_SOMETHING: Final = ExitCode.NOT_COMPLETED
"""1: problems, or differences, as grep and diff have it."""
_VERB_SIGNS: Final = {Verb.ADDED: ("+", "green"), Verb.REMOVED: ("-", "red"), Verb.CHANGED: ("~", "yellow")}

descriptors_option = click.option(
    "--descriptors",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.binpb",
    help="Message types for a YAML or JSON file that names none, as `buf build -o FILE.binpb` writes them.",
)


@click.command(short_help="Says everything that is wrong with the definitions of FILE; needs no coordinator.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@descriptors_option
@click.option("--mermaid", "is_mermaid", is_flag=True, help="Print sound definitions as Mermaid flowcharts.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object per definition.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Run sound definitions with stubs, in no time, and show what is called when.")
@click.option("--input", "dry_input", default="", metavar="JSON|@FILE|-", help="What a dry run starts with. Default: an empty message.")
@click.option("--latency", "latencies", multiple=True, metavar="STEP=SECONDS", help="How long a call takes in a dry run. Default: 10 ms.")
@click.option("--refuse", "refused", multiple=True, metavar="STEP", help="A step that is refused in a dry run, to see the way back.")
def check(
    files: tuple[str, ...],
    descriptors: Path | None,
    *,
    is_mermaid: bool,
    is_json: bool,
    is_dry_run: bool,
    dry_input: str,
    latencies: tuple[str, ...],
    refused: tuple[str, ...],
) -> None:
    """Judges saga definitions by the rules of the coordinator, expressions included, without one.

    \b
      saga check place_order.py                 every Saga at the top of the file
      saga check place_order.yaml               as docs/definitions.md has it; .json likewise
      saga check sagas.yaml:place-order         that one
      saga check --mermaid place_order.py       a picture for your documents
      saga check --dry-run place_order.py       what is called when; with --latency charge=2 --refuse ship

    Whether participants serve the actions is not known here; the coordinator says so when the saga is registered.
    Exits 0 if all is well, 1 if there are problems.
    """  # noqa: D301 - click reads \b
    output = Output(is_json=is_json)
    try:
        found = [each for file in files for each in find_definitions(file, descriptors)]
    except DefinitionFileError as error:
        raise click.BadParameter(str(error), param_hint="FILE") from error
    is_sound = True
    for each in found:
        problems = each.judge()
        is_sound = is_sound and not problems
        if is_dry_run and not problems:
            from coordinator.cli.dry_running import DryRunOptions, show_dry_run  # a whole coordinator, which no other command needs

            show_dry_run(output, each, DryRunOptions(input=dry_input, latencies=latencies, refused=refused))
        elif is_json:
            output.line(_checked_to_json(each, problems))
        elif is_mermaid and not problems:
            click.echo(to_mermaid(each.definition))
        else:
            _show_checked(output, each, problems)
    if not can_check_expressions():
        click.echo("expressions were not compiled: that needs pip install 'saga-coordinator[definitions]'", err=True)
    sys.exit(ExitCode.DONE if is_sound else FOUND_SOMETHING)


def _show_checked(output: Output, found: FoundDefinition, problems: Sequence[FileProblem]) -> None:
    definition = found.definition
    title = f"{definition.name or 'a definition without a name'} v{definition.version}"
    if not problems:
        output.show(Text(f"{found.file}: {title} is sound", style="bold green"))
        output.show(render_definition(definition))
        return
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    output.show(Text(f"{found.file}: {printable(title)}: {count}", style="bold red"))
    for problem in problems:
        _show_line(output, Text(printable(at_line(found.file, problem), keep_lines=True)))


def _show_line(output: Output, text: Text) -> None:
    # Not broken into lines: editors and grep look for FILE:LINE, and terminals break lines themselves.
    output.console.print(text, soft_wrap=True)


def _checked_to_json(found: FoundDefinition, problems: Sequence[FileProblem]) -> dict[str, object]:
    content: dict[str, object] = {
        "file": str(found.file),
        "name": found.definition.name,
        "version": found.definition.version,
        "sound": not problems,
        "problems": [problem._asdict() for problem in problems],
    }
    return content if problems else content | definition_to_json(found.definition)


# ── Differences ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unfinished:
    """How many sagas of a version have not ended."""

    count: int
    is_more: bool
    """Whether there are more than were counted."""

    def __str__(self) -> str:
        return f"more than {self.count}" if self.is_more else str(self.count)


@click.command(short_help="Says what changed from definition A to B, and what that means.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@descriptors_option
@client_command
async def diff(client: SagaClient, output: Output, first: str, second: str, descriptors: Path | None) -> ExitCode | None:
    """Compares two saga definitions, step by step and field by field, and says what that means for sagas in flight.

    A and B are each one of

    \b
      FILE, FILE:NAME       a definition in a file, as `saga check` reads it
      NAME@VERSION, NAME    a definition that is registered; without a version the highest one

    \b
      saga diff place-order place_order.py      what registering the file would change
      saga diff place-order@3 place-order@4     two versions

    A saga keeps the version that it started with. How many of A are still under way is said if a coordinator can be reached.
    Exits 0 if they are the same but for the version, 1 if they differ.
    """  # noqa: D301 - click reads \b
    before = _in_file(first, "A", descriptors) or await _registered(client, first, "A")
    after = _in_file(second, "B", descriptors) or await _registered(client, second, "B")
    changes = compare_definitions(before, after)
    unfinished = await _count_unfinished(client, before.definition)
    notes = _notes(before, after, changes)
    if output.is_json:
        output.line(_diff_to_json(before, after, changes, unfinished, notes))
    else:
        _show_diff(output, before, after, changes)
        for note in (*notes, _in_flight_text(before, unfinished, client.address)):
            _show_line(output, Text(note))
    return FOUND_SOMETHING if changes else ExitCode.DONE


def _in_file(text: str, hint: str, descriptors: Path | None) -> Side | None:
    """None: it does not name a file."""
    if not names_a_file(text) and not Path(text).is_file():
        return None
    try:
        found = find_definitions(text, descriptors)
    except DefinitionFileError as error:
        raise click.BadParameter(str(error), param_hint=hint) from error
    if len(found) > 1:
        names = ", ".join(each.definition.name for each in found)
        raise click.BadParameter(f"{text} holds {names}; say which with {text}:NAME", param_hint=hint)
    if problems := found[0].judge():
        shown = "\n".join(at_line(found[0].file, problem) for problem in problems)
        raise click.BadParameter(f"{text} is no sound definition:\n{shown}", param_hint=hint)
    return Side(definition=found[0].definition, descriptors=found[0].descriptors)


async def _registered(client: SagaClient, text: str, hint: str) -> Side:
    name, at, version = text.partition("@")
    if at and not version.isdecimal():
        raise click.BadParameter(f"expected NAME@VERSION like place-order@3, found {text}", param_hint=hint)
    response = await client.get_definition(name, version=int(version or 0))
    return Side(definition=response.definition, descriptors=response.descriptors)


async def _count_unfinished(client: SagaClient, definition: saga_pb2.SagaDefinition) -> _Unfinished | None:
    """None: it is not registered, or nobody answers."""
    statuses = (
        saga_pb2.SAGA_STATUS_PENDING,
        saga_pb2.SAGA_STATUS_RUNNING,
        saga_pb2.SAGA_STATUS_COMPENSATING,
        saga_pb2.SAGA_STATUS_FAILED,
    )
    count = looked_at = 0
    async with SagaClient(client.address, timeout=COUNT_TIMEOUT) as quick:
        try:
            await quick.get_definition(definition.name, version=definition.version)
            async for saga in quick.list(definition=definition.name, statuses=statuses):
                if looked_at == UNFINISHED_MAX:
                    return _Unfinished(count=count, is_more=True)
                looked_at += 1
                # One that a person terminated is FAILED for ever, and has ended.
                count += saga.definition.version == definition.version and not saga.HasField("ended_at")
        except (CoordinatorUnavailable, DefinitionNotFound):
            return None
    return _Unfinished(count=count, is_more=False)


def _notes(first: Side, second: Side, changes: Sequence[Change]) -> list[str]:
    if not changes or first.definition.name != second.definition.name or second.definition.version > first.definition.version:
        return []
    return [f"B needs a version above {first.definition.version}: once registered, a version never changes."]


def _in_flight_text(first: Side, unfinished: _Unfinished | None, address: str) -> str:
    pinned = f"Sagas of {first.title} keep that version to their end."
    if unfinished is None:
        return f"{pinned} How many there are is not known: it is not registered at {address}, or nobody answers there."
    return f"{pinned} Not ended yet: {unfinished}."


def _show_diff(output: Output, first: Side, second: Side, changes: Sequence[Change]) -> None:
    if not changes:
        output.show(Text(f"{first.title} and {second.title} say the same."))
        return
    output.show(Text(f"{first.title} → {second.title}", style="bold"))
    for change in changes:
        sign, style = _VERB_SIGNS[change.verb]
        what = printable(_what(change), keep_lines=True)
        _show_line(output, Text.assemble((f"{sign} {printable(change.place)}: ", style), what))
        if change.hint:
            _show_line(output, Text(f"    {change.hint}", style="italic"))


def _what(change: Change) -> str:
    if change.verb is Verb.ADDED:
        return f"added: {change.after}"
    if change.verb is Verb.REMOVED:
        return f"removed: {change.before}"
    if "\n" in change.before or "\n" in change.after:
        return f"\n{_indented(change.before, '    - ')}\n{_indented(change.after, '    + ')}"
    return f"{change.before} → {change.after}"


def _indented(text: str, mark: str) -> str:
    return "\n".join(mark + line for line in text.rstrip().splitlines())


def _diff_to_json(
    first: Side, second: Side, changes: Sequence[Change], unfinished: _Unfinished | None, notes: Sequence[str]
) -> dict[str, object]:
    def named(side: Side) -> dict[str, object]:
        return {"name": side.definition.name, "version": side.definition.version}

    return {
        "a": named(first),
        "b": named(second),
        "same": not changes,
        "changes": [
            {"verb": change.verb, "place": change.place, "before": change.before, "after": change.after, "hint": change.hint}
            for change in changes
        ],
        "notes": list(notes),
        "unfinished": None if unfinished is None else {"count": unfinished.count, "more": unfinished.is_more},
    }
