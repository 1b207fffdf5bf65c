"""`saga replay`: recorded sagas against a new definition, before it is registered."""

import sys
from pathlib import Path

import click
from rich.text import Text

from coordinator.cli.calling import ExitCode
from coordinator.cli.checking import FOUND_SOMETHING, descriptors_option
from coordinator.cli.definition_file import DefinitionFileError, at_line, find_definitions
from coordinator.cli.output import Output, printable


@click.command(short_help="Says where a new definition would decide recorded sagas differently; needs no coordinator.")
@click.argument("histories", metavar="HISTORY...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--with", "file", metavar="FILE", required=True, help="The definition: FILE, or FILE:NAME for one of several.")
@descriptors_option
@click.option("--json", "is_json", is_flag=True, help="One JSON object per saga.")
def replay(histories: tuple[Path, ...], file: str, descriptors: Path | None, *, is_json: bool) -> None:
    """Decides again what was decided for recorded sagas, with what participants answered and persons did then, under another definition or
    another release. HISTORY is what `saga show ID --json` writes, of any number of sagas.

    \b
      saga show 0190163d-8694-739b-aea5-966c26f8ad90 --json >> sagas.json
      saga replay sagas.json --with place_order.py

    A replay ends where the definition would do something else: nobody knows what participants would have answered to that. Other times,
    such as those of another backoff, are told and do not end it. Exits 0 if everything would be the same, 1 if not.
    """  # noqa: D301 - click reads \b
    # A whole coordinator, which no other command needs.
    from participant_sdk.testing.plans import Definition
    from participant_sdk.testing.replaying import HistoryError, read_histories
    from participant_sdk.testing.replaying import replay as replay_history

    try:
        found = find_definitions(file, descriptors)
    except DefinitionFileError as error:
        raise click.BadParameter(str(error), param_hint="--with") from error
    if len(found) > 1:
        names = ", ".join(each.definition.name for each in found)
        raise click.BadParameter(f"{file} holds {names}; say which with {file}:NAME", param_hint="--with")
    if problems := found[0].judge():
        shown = "\n".join(at_line(found[0].file, problem) for problem in problems)
        raise click.BadParameter(f"{file} is no sound definition:\n{shown}", param_hint="--with")
    definition, output, is_same = Definition(found[0].definition, found[0].descriptors), Output(is_json=is_json), True
    try:
        for history in (each for path in histories for each in read_histories(path, definition.descriptors)):
            result = replay_history(definition, history)
            is_same = is_same and result.difference is None
            if is_json:
                output.line(result.to_json())
            else:
                output.console.print(Text(printable(str(result), keep_lines=True)), soft_wrap=True)
    except HistoryError as error:
        raise click.BadParameter(str(error), param_hint="HISTORY") from error
    sys.exit(ExitCode.DONE if is_same else FOUND_SOMETHING)
