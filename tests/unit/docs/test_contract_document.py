"""The contract for implementers says what the code does: its tables are read, and its verdicts and statements are run."""

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from itertools import product
from types import SimpleNamespace
from typing import Final

import pytest
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import status_pb2
from google.rpc.code_pb2 import Code
from sqlalchemy import MetaData

from coordinator.api.requests import REGISTRATION_TTL_US_DEFAULT, REGISTRATION_TTL_US_MAX, REGISTRATION_TTL_US_MIN
from coordinator.codec.outcomes import (
    ACCEPTED_US_MAX,
    ACCEPTED_US_MIN,
    FAILURE_DETAILS_BYTES_MAX,
    FAILURE_MESSAGE_CHARS_MAX,
    RETRY_DELAY_US_MAX,
    STATUS_MEANINGS,
)
from coordinator.dispatcher.channels import MESSAGE_BYTES_MAX
from coordinator.dispatcher.registry import TARGETS_MAX
from coordinator.limits import ParticipantLimits
from participant_sdk import NoBarrier, Participant, StepContext, action, rpc_errors
from participant_sdk.barrier import answers, table, verdict
from participant_sdk.barrier.guard import REPEATS_MAX
from participant_sdk.barrier.guarded import RETENTION_DEFAULT, RETENTION_MARGIN
from participant_sdk.barrier.verdict import (
    BarrierRow,
    CompensateCall,
    CompensationState,
    CompletionCall,
    ExecuteCall,
    ExecutionState,
    Knowledge,
    OutputSource,
    StepIdentity,
    judge_compensate,
    judge_completion,
    judge_execute,
    token_digest,
)
from participant_sdk.effects import Effect
from participant_sdk.frames import BYTES_MAX
from participant_sdk.incoming import (
    COMPLETION_TOKEN_CHARS_MAX,
    KEY_CHARS_MAX,
    STEP_ID_CHARS_MAX,
    TIME_LEFT_DEFAULT_S,
    TIME_LEFT_MAX_S,
    CallReader,
    fingerprint_of,
)
from participant_sdk.invocation import BoundAction, Threads
from participant_sdk.payloads import PAYLOAD_BYTES_MAX
from saga.v1 import participant_pb2
from tests.documents import ROOT

TEXT: Final = (ROOT / "docs/participant-contract.md").read_text()
STEP: Final = StepIdentity(saga_id="0197c8a4-5f0e-7c31-9a52-3f1d6b0e8a77", step_id="redeem")
NOW_US: Final = 1_000_000
RETENTION_US: Final = 500_000
FINGERPRINT: Final = b"\1" * 32
REPLY: Final = token_digest("token") + b"reply"
UNITS: Final = {"MiB": 1 << 20, "KiB": 1 << 10, "bytes": 1, "characters": 1, "s": 1, "h": 3600, "day": 86_400, "days": 86_400}


def rows(name: str) -> list[tuple[str, ...]]:
    """The lines of the table behind a mark, without its head."""
    _, found, behind = TEXT.partition(f"<!-- contract: {name} -->\n")
    assert found
    lines = behind.partition("\n\n")[0].splitlines()[2:]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]


def block(name: str) -> str:
    """The SQL behind a mark."""
    (found,) = re.findall(rf"<!-- contract: {name} -->\n```sql\n(.*?)```", TEXT, re.DOTALL)
    return str(found)


def seconds(us: int) -> int:
    return us // 1_000_000


# ── Verdicts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

OUTPUTS: Final = {
    OutputSource.STORED: "Undo the output of the row",
    OutputSource.CLAIMED: "Undo the output of the call",
    OutputSource.MISSING: "Undo without an output",
}


def said(judged: object) -> str:
    """The verdict as the document calls it."""
    match judged:
        case verdict.Run(is_first=is_first):
            return "Run" if is_first else "Run again"
        case verdict.Undo(source=source):
            return OUTPUTS[source]
        case verdict.NothingToUndo():
            return "Nothing to undo"
        case verdict.NotAccepted():
            return "Not accepted"
        case _:
            return type(judged).__name__


def every_row() -> Iterator[BarrierRow | None]:
    """Every one that can be told apart by a verdict."""
    yield None
    times = (NOW_US - 1, NOW_US, NOW_US + 1)
    for execution, compensation, until, undo_until, used_for, fingerprint in product(
        ExecutionState, CompensationState, times, times, ("a.b", "a.c"), (FINGERPRINT, b"\2" * 32)
    ):
        yield BarrierRow(
            key="key", saga_id=STEP.saga_id, step_id=STEP.step_id, action=used_for, fingerprint=fingerprint, execution=execution,
            reply=REPLY, locked_until_us=until, compensation=compensation, compensation_locked_until_us=undo_until, created_at_us=0,
            updated_at_us=0,
        )  # fmt: skip


def by_document(table_name: str) -> Callable[[BarrierRow | None, SimpleNamespace], str]:
    """Judges as the first line of the table says that is true."""
    lines = [(compile(condition.strip("`"), table_name, "eval"), outcome) for condition, outcome in rows(table_name)]

    def judge(row: BarrierRow | None, call: SimpleNamespace) -> str:
        known = {
            "row": row, "call": call, "now": NOW_US, "retention": RETENTION_US, "age": NOW_US - getattr(call, "first_attempt_at_us", 0),
            "sha256": lambda text: hashlib.sha256(text.encode()).digest(),
        }  # fmt: skip
        return next(outcome for condition, outcome in lines if eval(condition, known))

    return judge


AGES: Final = (NOW_US - RETENTION_US - 1, NOW_US - RETENTION_US, NOW_US)


def test_verdict_on_an_execution_is_as_the_contract_says() -> None:  # R18, R19, R21, R22
    judge = by_document("execute")
    for row, at_us in product(every_row(), AGES):
        call = ExecuteCall(
            key="key",
            step=STEP,
            action="a.b",
            fingerprint=FINGERPRINT,
            effect=Effect.EXTERNAL,
            first_attempt_at_us=at_us,
            deadline_us=NOW_US,
        )
        seen = SimpleNamespace(action=call.action, fingerprint=call.fingerprint, first_attempt_at_us=at_us)
        assert judge(row, seen) == said(judge_execute(row, call, now_us=NOW_US, retention_us=RETENTION_US)), row


@pytest.mark.parametrize("knowledge", Knowledge)
def test_verdict_on_a_compensation_is_as_the_contract_says(knowledge: Knowledge) -> None:  # R18-R22
    judge = by_document("compensate")
    for row, at_us in product(every_row(), AGES):
        call = CompensateCall(
            key="key", step=STEP, action="a.b", fingerprint=FINGERPRINT, effect=Effect.EXTERNAL, first_attempt_at_us=at_us,
            deadline_us=NOW_US, knowledge=knowledge,
        )  # fmt: skip
        seen = SimpleNamespace(action=call.action, fingerprint=call.fingerprint, first_attempt_at_us=at_us, knows=knowledge.name)
        assert judge(row, seen) == said(judge_compensate(row, call, now_us=NOW_US, retention_us=RETENTION_US)), row


@pytest.mark.parametrize("token", ["token", "other"])
def test_verdict_on_a_completion_is_as_the_contract_says(token: str) -> None:  # R24
    judge = by_document("complete")
    for row in every_row():
        call = CompletionCall(key="key", step=STEP, token=token, wait_s=1)
        assert judge(row, SimpleNamespace(token=token)) == said(judge_completion(row, call)), row


# ── The table of the barrier ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_schema_of_the_contract_has_the_columns_of_the_barrier() -> None:
    ours = table.barrier_table(MetaData())
    columns = re.findall(r"^  (\w+) +([A-Z]+)(?:\((\d+)\))?(.*?),?$", block("schema"), re.MULTILINE)
    kinds = {"VARCHAR": "String", "BYTEA": "LargeBinary", "BIGINT": "BigInteger", "BOOLEAN": "Boolean"}
    told = {
        name: (kinds[kind], int(length) if length else None, "NOT NULL" not in more and "KEY" not in more)
        for name, kind, length, more in columns
    }
    assert told == {
        column.name: (type(column.type).__name__, _length(column.type) if "String" in repr(column.type) else None, column.nullable)
        for column in ours.columns
    }
    assert f"CREATE TABLE {table.BARRIER_TABLE_NAME} (" in block("schema")
    assert [str(index.name) for index in ours.indexes] == re.findall(r"CREATE INDEX (\w+)", block("schema"))


def _length(kind: object) -> int:
    return int(getattr(kind, "length"))  # noqa: B009 - only strings have it


def statements() -> Mapping[str, str]:
    """By name, as SQLite takes them."""
    found = re.findall(r"^-- (\w+): [^\n]*\n(.*?);", block("statements"), re.MULTILINE | re.DOTALL)
    return {name: text.replace(" FOR UPDATE", "") for name, text in found}


def test_statements_of_the_contract_keep_what_comes_first() -> None:  # R18
    do = statements()
    with sqlite3.connect(":memory:") as database:
        database.row_factory = sqlite3.Row
        database.executescript(block("schema"))
        put = {"key": "key", "saga_id": "s", "step_id": "t", "action": "a.b", "fingerprint": FINGERPRINT, "now": 5}
        assert database.execute(do["put"], put | {"execution": "STARTED"}).rowcount == 1
        database.execute(do["answer"], {"key": "key", "execution": "SUCCEEDED", "reply": b"reply", "now": 6})
        assert database.execute(do["put"], put | {"execution": "SEALED"}).rowcount == 0
        row = database.execute(do["lock"], {"key": "key"}).fetchone()
        assert (row["execution"], row["reply"], row["compensation"], row["handler_ran"]) == ("SUCCEEDED", b"reply", "NONE", 0)
        database.execute(do["undo"], {"key": "key", "execution": "SUCCEEDED", "handler_ran": True, "now": 7})
        row = database.execute(do["lock"], {"key": "key"}).fetchone()
        assert (row["compensation"], row["handler_ran"], row["reply"]) == ("DONE", 1, b"reply")
        assert database.execute(do["forget"], {"before": 5}).rowcount == 0
        assert database.execute(do["forget"], {"before": 6}).rowcount == 1


def test_states_of_the_contract_are_those_of_the_barrier() -> None:
    states = TEXT.partition("| `execution` | What the row says |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| ([A-Z]+) \|", states, re.MULTILINE) == list(ExecutionState)
    assert all(state in TEXT for state in CompensationState)


def test_fingerprint_is_made_as_the_contract_says() -> None:  # R22
    request = participant_pb2.ExecuteRequest()
    request.input.type_url, request.input.value = "type.example.com/loyalty.v1.RedeemPoints", b"bytes"
    assert fingerprint_of(request.input) == hashlib.sha256(b"loyalty.v1.RedeemPoints\0bytes").digest()


# ── Answers, reasons, limits ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_statuses_mean_what_the_contract_says() -> None:  # R6
    told = {status: meaning for status, meaning in rows("statuses")}  # noqa: C416 - a row is of any length
    assert told == {Code.Name(code): meaning.name for code, meaning in STATUS_MEANINGS.items() if code != Code.OK}
    assert STATUS_MEANINGS[Code.OK].name == "UNKNOWN"


class Plain(Participant, name="plain"):
    @action
    async def act(self, request: StringValue, step: StepContext) -> StringValue:
        return request


def refused(**changes: object) -> status_pb2.Status:
    """How a call is refused that is good but for these fields."""
    participant = Plain(barrier=NoBarrier())
    bound = BoundAction(participant, participant.actions["act"], participant.barrier, Threads(1))
    request = participant_pb2.ExecuteRequest(
        saga_id=STEP.saga_id, step_id="act", action="plain.act", key="key", attempt=1, first_attempt_at=Timestamp(seconds=1)
    )
    request.input.Pack(StringValue(value="x"))
    request.MergeFrom(participant_pb2.ExecuteRequest(**changes))  # type: ignore[arg-type]
    answer = CallReader({"plain.act": bound}, lambda: NOW_US).read_execute(request, 1.0)
    assert isinstance(answer, status_pb2.Status)
    return answer


def test_reasons_have_the_codes_of_the_contract() -> None:  # R21, R22
    call = ExecuteCall(
        key="key", step=STEP, action="a.b", fingerprint=FINGERPRINT, effect=Effect.DATABASE, first_attempt_at_us=0, deadline_us=0
    )
    of_type = "type.googleapis.com/google.protobuf.StringValue"
    made = [
        answers.key_expired(call, RETENTION_DEFAULT),
        answers.key_mismatch(call),
        answers.sealed_refusal(call).rejected.status,
        refused(action="plain.other"),
        refused(input=PackedAny(type_url="type.googleapis.com/other.v1.Message")),
        refused(input=PackedAny(type_url=of_type, value=b"\xff\xff")),
        refused(input=PackedAny(type_url=of_type, value=bytes(PAYLOAD_BYTES_MAX + 1))),
        refused(key="k" * (KEY_CHARS_MAX + 1)),
    ]
    told = [(reason, code) for reason, code, _ in rows("reasons")]
    assert told == [(rpc_errors.error_reason(status), Code.Name(status.code)) for status in made]
    assert f"domain `{rpc_errors.ERROR_DOMAIN}`" in TEXT


def test_limits_are_those_of_the_contract() -> None:
    told = [
        (what, sum(int(number) * UNITS.get(unit, 1) for number, unit in re.findall(r"(\d+) ?(\w*)", limit)))
        for what, limit in rows("limits")
    ]
    assert told == [
        ("input or output of a step", PAYLOAD_BYTES_MAX),
        ("gRPC message, in either direction", MESSAGE_BYTES_MAX),
        ("`key`, `execute_key`", KEY_CHARS_MAX),
        ("`completion_token`", COMPLETION_TOKEN_CHARS_MAX),
        ("`step_id`", STEP_ID_CHARS_MAX),
        ("`RetryLater.delay`", seconds(RETRY_DELAY_US_MAX)),
        ("`Accepted.time_limit`, at least", seconds(ACCEPTED_US_MIN)),
        ("`Accepted.time_limit`", seconds(ACCEPTED_US_MAX)),
        ("message of a status, as the SDK cuts it and coordinators keep it", rpc_errors.MESSAGE_BYTES_MAX),
        ("details of a status together, as coordinators keep them", FAILURE_DETAILS_BYTES_MAX),
        ("time of a call that names none", TIME_LEFT_DEFAULT_S),
        ("time of a call", TIME_LEFT_MAX_S),
        ("`ttl` of a registration, at least", seconds(REGISTRATION_TTL_US_MIN)),
        ("`ttl` of a registration", seconds(REGISTRATION_TTL_US_MAX)),
        ("`ttl` of a registration that names none", seconds(REGISTRATION_TTL_US_DEFAULT)),
        ("targets of one participant", TARGETS_MAX),
        ("retention of keys, as the SDK has it by default", RETENTION_DEFAULT // timedelta(seconds=1)),
        ("how much longer rows are kept", RETENTION_MARGIN // timedelta(seconds=1)),
        ("calls at once from one coordinator, by default", ParticipantLimits().concurrency),
        ("replies in one frame", BYTES_MAX),
    ]  # fmt: skip
    assert FAILURE_MESSAGE_CHARS_MAX == rpc_errors.MESSAGE_BYTES_MAX
    assert REPEATS_MAX == 5


def test_every_field_of_a_call_is_told() -> None:
    told = TEXT.partition("### What a call carries")[2].partition("### What an answer means")[0]
    for message in (participant_pb2.ExecuteRequest, participant_pb2.CompensateRequest):
        assert [field.name for field in message.DESCRIPTOR.fields if f"`{field.name}`" not in told] == []
    for described in (participant_pb2.ParticipantDescription, participant_pb2.ActionDescription):
        assert [field.name for field in described.DESCRIPTOR.fields if f"`{field.name}`" not in TEXT] == []


# ── The participant that was written from it ─────────────────────────────────────────────────────────────────────────────────────────

EXAMPLE: Final = ROOT / "examples/typescript"


def test_table_of_the_example_is_that_of_the_contract_without_locks_for_external_effects() -> None:
    def columns(sql: str) -> dict[str, str]:
        found = re.findall(r"^  (\w+) +([A-Z].*?),?$", sql.partition("saga_barrier (")[2].partition(");")[0], re.MULTILINE)
        return {name: " ".join(kind.split()) for name, kind in found}

    in_contract = columns(block("schema"))
    assert columns((EXAMPLE / "schema.sql").read_text()) == {
        name: kind for name, kind in in_contract.items() if name not in {"locked_until_us", "compensation_locked_until_us"}
    }


def test_example_knows_the_reasons_and_limits_of_the_contract() -> None:
    errors, requests = (EXAMPLE / "src/errors.ts").read_text(), (EXAMPLE / "src/requests.ts").read_text()
    assert re.findall(r'^  \| "([A-Z_]+)"', errors, re.MULTILINE) == [reason for reason, _, _ in rows("reasons")]
    told = {name: eval(value.replace("_", "")) for name, value in re.findall(r"const (\w+_MAX\w*|\w+_DEFAULT_MS) = ([\d_ *+]+);", requests)}
    assert told == {
        "MESSAGE_BYTES_MAX": MESSAGE_BYTES_MAX,
        "PAYLOAD_BYTES_MAX": PAYLOAD_BYTES_MAX,
        "KEY_CHARS_MAX": KEY_CHARS_MAX,
        "STEP_ID_CHARS_MAX": STEP_ID_CHARS_MAX,
        "TIME_LEFT_DEFAULT_MS": TIME_LEFT_DEFAULT_S * 1_000,
        "TIME_LEFT_MAX_MS": TIME_LEFT_MAX_S * 1_000,
    }
