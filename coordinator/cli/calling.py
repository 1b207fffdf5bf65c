"""What every command that calls a coordinator shares: its options, its client, and its exit codes."""

import asyncio
import functools
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from typing import Concatenate, Final, ParamSpec, TypeVar

import click

from coordinator.cli.output import Output
from participant_sdk.builder import DefinitionError
from participant_sdk.client import (
    CoordinatorError,
    CoordinatorUnavailable,
    InvalidRequest,
    SagaClient,
    SagaNotCompleted,
    WaitTimedOut,
)

ParametersP = ParamSpec("ParametersP")
FunctionT = TypeVar("FunctionT", bound=Callable[..., object])
ResultT = TypeVar("ResultT")

_META: Final = "coordinator.cli."


class ExitCode(IntEnum):
    """What the shell is told; scripts decide by it."""

    DONE = 0
    NOT_COMPLETED = 1
    """The saga was undone, needs a person, or was not waited for long enough; or you said no."""
    WRONG_USAGE = 2
    UNAVAILABLE = 3
    """Nobody knows whether it took place; repeat it."""
    REFUSED = 4
    """Repeating it gives the same."""
    DEFECT = 70
    """A bug of this program; a traceback stands on stderr."""
    INTERRUPTED = 130
    NOBODY_READS = 141
    """Standard output was closed, as `| head` does; what the shell says of a program that SIGPIPE ended."""


def client_command(
    function: Callable[Concatenate[SagaClient, Output, ParametersP], Awaitable[ExitCode | None]],
) -> Callable[ParametersP, None]:
    """Makes a click callback of a function that is given a client and an output first. Adds --address, --timeout and --json."""

    @functools.wraps(function)
    def run(*args: ParametersP.args, **kwargs: ParametersP.kwargs) -> None:
        sys.exit(ask_coordinator(lambda client, output: function(client, output, *args, **kwargs)) or ExitCode.DONE)

    return client_options(run)


def ask_coordinator(function: Callable[[SagaClient, Output], Awaitable[ResultT]]) -> ResultT:
    """Runs a function with a client and an output, in a loop of its own; a command with `client_options` may do so several times.

    Ends the program with the exit code for what goes wrong.
    """
    meta = click.get_current_context().meta
    address, timeout = str(meta[_META + "address"]), timedelta(seconds=float(meta[_META + "timeout"]))
    output = current_output()

    try:
        client = SagaClient(address, timeout=timeout)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--address") from error

    async def run() -> ResultT:
        async with client:
            return await function(client, output)

    with exits_for_errors(output):
        return asyncio.run(run())


def current_output() -> Output:
    """Where a command with `client_options` writes."""
    return Output(is_json=bool(click.get_current_context().meta[_META + "json"]))


@contextmanager
def exits_for_errors(output: Output) -> Generator[None]:
    """Ends the program with the exit code for what goes wrong."""
    try:
        yield
    except (SagaNotCompleted, WaitTimedOut) as error:
        output.failure(error)
        sys.exit(ExitCode.NOT_COMPLETED)
    except CoordinatorUnavailable as error:
        output.failure(error)
        sys.exit(ExitCode.UNAVAILABLE)
    except InvalidRequest as error:
        output.failure(error, details=[str(violation) for violation in error.violations])
        sys.exit(ExitCode.REFUSED)
    except (CoordinatorError, DefinitionError) as error:
        output.failure(error)
        sys.exit(ExitCode.REFUSED)
    except click.ClickException:
        raise  # Wrong usage that only the coordinator's answer could show; click says it and exits 2.
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again when it flushes at its end
        sys.exit(ExitCode.NOBODY_READS)
    except Exception:
        # Python would exit 1, which scripts would take for a saga that was undone.
        traceback.print_exc()
        sys.exit(ExitCode.DEFECT)


def client_options(function: FunctionT) -> FunctionT:
    """Adds --address, --timeout and --json."""
    for option in (
        click.option(
            "--address",
            envvar="SAGA_ADDRESS",
            default="127.0.0.1:7700",
            show_default=True,
            expose_value=False,
            callback=_remember,
            help="Where the coordinator is; several nodes with commas between.  [SAGA_ADDRESS]",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=30.0,
            show_default=True,
            metavar="SECONDS",
            expose_value=False,
            callback=_remember,
            help="How long to go on trying while the coordinator cannot be reached.",
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="One JSON object per line on stdout; an error is one on stderr.",
        ),
    ):
        function = option(function)
    return function


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    # Kept beside the command's own parameters, so that a command's function has its own only, and typed.
    context.meta[_META + str(parameter.name)] = value
