"""What a person does to one saga: pauses, resumes, terminates it, retries or resolves its steps, and the like."""

from dataclasses import replace
from typing import Final, TypedDict, Unpack

import click
from google.protobuf.message import Message

from coordinator.cli.calling import ExitCode, client_command
from coordinator.cli.output import Output
from coordinator.cli.plans import Plan, RetryName, plan_of
from coordinator.cli.reading import show_standing
from coordinator.cli.values import SECONDS, length, with_reason, with_required_reason
from participant_sdk.client import PolicyChange, Resolution, SagaClient
from participant_sdk.completion_token import TokenInvalidError, read_token
from participant_sdk.errors import Rejected
from participant_sdk.policies import RetryPolicy

_SOURCE: Final = "JSON|@FILE|-"


@click.command(short_help="Stops the saga ID for a while.")
@click.argument("saga_id", metavar="ID")
@with_reason
@client_command
async def pause(client: SagaClient, output: Output, saga_id: str, reason: str, actor: str) -> ExitCode | None:
    """Stops the saga ID for a while: attempts under way come to rest, nothing new starts.

    Its clocks run on and are judged when it is resumed: a time limit that passed meanwhile turns it back then.

    \b
      saga pause ID --reason "payments is being moved"
    """  # noqa: D301 - click reads \b
    show_standing(output, await client.operator.pause(saga_id, reason=reason, actor=actor))
    return None


@click.command(short_help="Lets the paused saga ID go on.")
@click.argument("saga_id", metavar="ID")
@with_reason
@client_command
async def resume(client: SagaClient, output: Output, saga_id: str, reason: str, actor: str) -> ExitCode | None:
    """Lets the paused saga ID go on.

    \b
      saga resume ID
    """  # noqa: D301 - click reads \b
    show_standing(output, await client.operator.resume(saga_id, reason=reason, actor=actor))
    return None


@click.command(short_help="Ends the saga ID as it stands, undoing nothing.")
@click.argument("saga_id", metavar="ID")
@with_required_reason
@client_command
async def terminate(client: SagaClient, output: Output, saga_id: str, reason: str, actor: str) -> ExitCode | None:
    """Ends the saga ID as it stands: FAILED for good. Nothing is undone by that; `saga cancel ID` undoes.

    \b
      saga terminate ID --reason "refunded by hand, see ticket 4711"
    """  # noqa: D301 - click reads \b
    show_standing(output, await client.operator.terminate(saga_id, reason=reason, actor=actor))
    return None


@click.command(short_help="Closes an incident of the saga ID that only had to be known.")
@click.argument("saga_id", metavar="ID")
@click.argument("incident_id", metavar="NUMBER", type=click.IntRange(min=1))
@with_required_reason
@client_command
async def acknowledge(client: SagaClient, output: Output, saga_id: str, incident_id: int, reason: str, actor: str) -> ExitCode | None:
    """Closes the incident NUMBER of the saga ID, which asks for nothing but to be known: a late outcome.

    Any other incident is closed by what you do about it; `saga explain ID` tells what that can be.

    \b
      saga acknowledge ID 2 --reason "refunded by hand"
    """  # noqa: D301 - click reads \b
    show_standing(output, await client.operator.acknowledge_incident(saga_id, incident_id, reason=reason, actor=actor))
    return None


@click.command(short_help="Tries a step of the saga ID again now.")
@click.argument("saga_id", metavar="ID")
@click.argument("step_id", metavar="STEP")
@click.option("--input", "source", metavar=_SOURCE, help="Another input: only for a step that is known to have had no effect.")
@with_reason
@client_command
async def retry(
    client: SagaClient, output: Output, saga_id: str, step_id: str, source: str | None, reason: str, actor: str
) -> ExitCode | None:
    """Tries the step STEP of the saga ID again now: one that waits for its next attempt, or one that a person is asked for.

    STEP may be a hook too, on_success or on_failure. With another input the step gets a new idempotency key.

    \b
      saga retry ID charge
      saga retry ID charge --input '{"order_id": "42", "card": "visa"}' --reason "the customer gave another card"
    """  # noqa: D301 - click reads \b
    message = None
    if source is not None:
        plan = await plan_of(client, saga_id)
        message = plan.read(source, plan.step_of(step_id).input_type, "--input")
    show_standing(output, await client.operator.retry_step(saga_id, step_id, message=message, reason=reason, actor=actor))
    return None


class Endings(TypedDict):
    """How a step is said to have ended: exactly one of them."""

    succeeded: str | None
    skipped: bool
    rejected: bool
    compensated: bool


@click.command(short_help="Says how a step of the saga ID ended.")
@click.argument("saga_id", metavar="ID")
@click.argument("step_id", metavar="STEP")
@click.option("--succeeded", metavar=_SOURCE, help="It took effect and returned this.")
@click.option("--skipped", is_flag=True, help="It had no effect; the saga goes on without it.")
@click.option("--rejected", is_flag=True, help="It had no effect and cannot be done; the saga turns back.")
@click.option("--compensated", is_flag=True, help="It is undone.")
@with_required_reason
@client_command
async def resolve(
    client: SagaClient, output: Output, saga_id: str, step_id: str, reason: str, actor: str, **endings: Unpack[Endings]
) -> ExitCode | None:
    """Says how the step STEP of the saga ID ended, when a person knows better than the coordinator.

    Look at the participant first: what is said here decides what the saga does, and whether the step is undone if it turns
    back. Refused while the participant still has the step. STEP may be a hook too, on_success or on_failure.

    \b
      saga resolve ID charge --succeeded '{"payment_id": "p-17"}' --reason "seen at the bank"
      saga resolve ID notify --skipped --reason "told by telephone"
      saga resolve ID reserve --compensated --reason "put back by hand"
    """  # noqa: D301 - click reads \b
    flags = (
        (endings["skipped"], Resolution.SKIPPED),
        (endings["rejected"], Resolution.REJECTED),
        (endings["compensated"], Resolution.COMPENSATED),
    )
    chosen = [resolution for is_given, resolution in flags if is_given]
    if len(chosen) + (endings["succeeded"] is not None) != 1:
        raise click.UsageError("expected exactly one of --succeeded, --skipped, --rejected and --compensated")
    ended: Message | Resolution
    if endings["succeeded"] is None:
        ended = chosen[0]
    else:
        plan = await plan_of(client, saga_id)
        ended = plan.read(endings["succeeded"], plan.step_of(step_id).output_type, "--succeeded")
    show_standing(output, await client.operator.resolve_step(saga_id, step_id, ended, reason=reason, actor=actor))
    return None


@click.command("resolve-output", short_help="Says what the saga ID returns.")
@click.argument("saga_id", metavar="ID")
@click.argument("source", metavar=_SOURCE)
@with_required_reason
@client_command
async def resolve_output(client: SagaClient, output: Output, saga_id: str, source: str, reason: str, actor: str) -> ExitCode | None:
    """Says what the saga ID returns, because the expression for its output failed. The saga is then COMPLETED.

    \b
      saga resolve-output ID '{"tracking_number": "T-1"}' --reason "the expression divides by zero"
    """  # noqa: D301 - click reads \b
    plan = await plan_of(client, saga_id)
    if not plan.definition.output_type:
        raise click.UsageError(f"{plan.definition.name} v{plan.definition.version} does not say of which type its output is")
    message = plan.read(source, plan.definition.output_type, _SOURCE)
    show_standing(output, await client.operator.resolve_output(saga_id, message, reason=reason, actor=actor))
    return None


class PolicyFlags(TypedDict):
    """What `saga policy` may be told; None where it was not."""

    max_attempts: int | None
    initial_backoff: float | None
    multiplier: float | None
    max_backoff: float | None
    attempt_timeout: float | None
    execute_time_limit: float | None
    recovery_time_limit: float | None


@click.command(short_help="Changes how a step of the saga ID is repeated.")
@click.argument("saga_id", metavar="ID")
@click.argument("step_id", metavar="STEP")
@click.option("--max-attempts", type=click.IntRange(min=0), metavar="N", help="Attempts at most, the first included; 0: no limit but time.")
@click.option("--initial-backoff", type=SECONDS, metavar="SECONDS", help="Wait before the second attempt.")
@click.option("--multiplier", type=click.FloatRange(min=1, max=100), metavar="FACTOR", help="Growth of the wait.")
@click.option("--max-backoff", type=SECONDS, metavar="SECONDS", help="Longest wait between two attempts.")
@click.option("--compensate", is_flag=True, help="These four are about undoing the step instead of executing it.")
@click.option("--attempt-timeout", type=SECONDS, metavar="SECONDS", help="Time for one attempt, in either direction.")
@click.option("--execute-time-limit", type=SECONDS, metavar="SECONDS", help="Time for all attempts, while the saga can turn back.")
@click.option("--recovery-time-limit", type=SECONDS, metavar="SECONDS", help="Time for all attempts of recovery, until a person is asked.")
@with_reason
@client_command
async def policy(
    client: SagaClient,
    output: Output,
    saga_id: str,
    step_id: str,
    *,
    compensate: bool,
    reason: str,
    actor: str,
    **flags: Unpack[PolicyFlags],
) -> ExitCode | None:
    """Changes how the step STEP of the saga ID is repeated, in this saga only. What is not given stays as it is.

    \b
      saga policy ID charge --attempt-timeout 60 --reason "the bank is slow today"
      saga policy ID charge --max-attempts 20 --max-backoff 300
      saga policy ID reserve --compensate --max-attempts 0
    """  # noqa: D301 - click reads \b
    if all(value is None for value in flags.values()):
        raise click.UsageError("expected at least one of --max-attempts, --attempt-timeout and the like, found none")
    change: PolicyChange = {"reason": reason, "actor": actor}
    if any(flags[name] is not None for name in ("max_attempts", "initial_backoff", "multiplier", "max_backoff")):
        name: RetryName = "compensate_retry" if compensate else "execute_retry"
        plan, events = await plan_of(client, saga_id), [event async for event in client.history(saga_id)]
        change[name] = _changed(plan.retry_of(step_id, name, events), flags)
    if (attempt_timeout := length(flags["attempt_timeout"])) is not None:
        change["attempt_timeout"] = attempt_timeout
    if (execute_time_limit := length(flags["execute_time_limit"])) is not None:
        change["execute_time_limit"] = execute_time_limit
    if (recovery_time_limit := length(flags["recovery_time_limit"])) is not None:
        change["compensate_time_limit"] = recovery_time_limit
    show_standing(output, await client.operator.change_step_policy(saga_id, step_id, **change))
    return None


def _changed(now: RetryPolicy, flags: PolicyFlags) -> RetryPolicy:
    """The whole policy with what is given changed in it: the wire knows it only as a whole."""
    max_attempts, multiplier = flags["max_attempts"], flags["multiplier"]
    try:
        return replace(
            now,
            max_attempts=now.max_attempts if max_attempts is None else max_attempts,
            initial_backoff=length(flags["initial_backoff"]) or now.initial_backoff,
            multiplier=now.multiplier if multiplier is None else multiplier,
            max_backoff=length(flags["max_backoff"]) or now.max_backoff,
        )
    except ValueError as error:
        raise click.UsageError(f"this makes no policy: {error}") from error


@click.command(short_help="Finishes a step that its participant accepted.")
@click.argument("token")
@click.option("--output", "source", metavar=_SOURCE, help="It took effect and returned this.")
@click.option("--reject", "rejection", metavar="REASON", help='It had no effect and is refused, for example "DENIED".')
@click.option("--message", default="", help="More words about a rejection.")
@client_command
async def complete(
    client: SagaClient, output: Output, token: str, source: str | None, rejection: str | None, message: str
) -> ExitCode | None:
    """Finishes the step that TOKEN, its completion token, is about. The participant got the token when it accepted the step.

    A participant with a barrier finishes its steps itself: what is said here does not reach its database.

    \b
      saga complete TOKEN --output '{"approved_by": "ann"}'
      saga complete TOKEN --reject DENIED --message "not this year"
    """  # noqa: D301 - click reads \b
    if (source is None) == (rejection is None):
        raise click.UsageError("expected either --output or --reject")
    try:
        identity = read_token(token)[0]
    except TokenInvalidError as error:
        raise click.BadParameter(str(error), param_hint="TOKEN") from error
    if source is None:
        is_known = await client.reject_step(token, Rejected(str(rejection), message))
    else:
        plan: Plan = await plan_of(client, identity.saga_id)
        is_known = await client.complete_step(token, plan.read(source, plan.step_of(identity.step_id).output_type, "--output"))
    if output.is_json:
        output.line({"saga_id": identity.saga_id, "step_id": identity.step_id, "repeated": is_known})
    else:
        output.show(f"{identity.saga_id} {identity.step_id}{'  (was known already)' if is_known else ''}")
    return None
