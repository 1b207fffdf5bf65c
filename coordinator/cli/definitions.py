"""`saga register` and `saga definitions`."""

from pathlib import Path

import click
from rich.table import Table

from coordinator.cli.calling import ExitCode, client_command
from coordinator.cli.checking import descriptors_option
from coordinator.cli.definition_file import DefinitionFileError, at_line, read_definitions
from coordinator.cli.output import Output
from coordinator.cli.payloads import PayloadTypes
from participant_sdk.client import InvalidRequest, SagaClient


@click.command()
@click.argument("file")
@descriptors_option
@client_command
async def register(client: SagaClient, output: Output, file: str, descriptors: Path | None) -> ExitCode | None:
    """Stores the saga definitions of FILE.

    \b
      place_order.py                every Saga at the top of the file
      place_order.py:place_order    that one
      place_order.yaml              every definition of the file, as docs/definitions.md has it; .json likewise
      sagas.yaml:place-order        the definition of that name
      place_order.json              also a RegisterDefinitionRequest in protobuf's JSON

    Registering the same again changes nothing; other content needs another version. `saga check` says what is wrong
    without a coordinator, `saga diff` what a new version would change.
    """  # noqa: D301 - click reads \b
    try:
        found = read_definitions(file, descriptors)
    except DefinitionFileError as error:
        raise click.BadParameter(str(error), param_hint="FILE") from error
    for each in found:
        try:
            is_new = await client.register_definition(each.definition, each.descriptors)
        except InvalidRequest as error:
            problems = [each.place(violation.field, violation.description) for violation in error.violations]
            output.failure(error, details=[at_line(each.file, problem) for problem in problems])
            return ExitCode.REFUSED
        name, version = each.definition.name, each.definition.version
        if output.is_json:
            output.line({"name": name, "version": version, "created": is_new})
        else:
            output.show(f"{name} v{version}: {'registered' if is_new else 'was there already'}")
    return None


@click.command()
@click.option("--name", default="", help="Only versions of this definition.")
@client_command
async def definitions(client: SagaClient, output: Output, name: str) -> ExitCode | None:
    """Lists the saga definitions by name and version."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("definition", "version", "input", "steps"):
        table.add_column(title, overflow="fold")
    types = PayloadTypes()
    async for definition in client.list_definitions(name):
        if output.is_json:
            output.line(types.to_json(definition))
        else:
            steps = " → ".join(step.id for step in definition.steps)
            table.add_row(definition.name, str(definition.version), definition.input_type, steps)
    if table.row_count:
        output.show(table)
    return None
