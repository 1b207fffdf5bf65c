"""The verdict about a claim: every state of a record against every claim; keys, headers, policies and refusals."""

from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2

from participant_sdk.idempotency import IdempotencyPolicy, IdempotencySetupError, Meaning, grpc_meaning, http_meaning
from participant_sdk.idempotency.errors import IdempotencyKeyError, IdempotencyStoreUnavailableError
from participant_sdk.idempotency.keys import digest, parse_key, record_key
from participant_sdk.idempotency.memory_store import MemoryIdempotencyStore
from participant_sdk.idempotency.outcomes import (
    AnswerNotStored,
    KeyReused,
    OutcomeUnknown,
    RunBroke,
    StillRunning,
    StoreAway,
)
from participant_sdk.idempotency.refusals import refusal_of
from participant_sdk.idempotency.statements import decode_headers, encode_headers
from participant_sdk.idempotency.verdict import (
    Claim,
    IdempotencyRecord,
    InDoubt,
    InProgress,
    Mismatch,
    Replay,
    Run,
    StoredAnswer,
    Verdict,
    WhenUnknown,
    claimed,
    completed,
    judge,
    left_in_doubt,
    renewed,
)
from participant_sdk.rpc_errors import find_detail

NOW_US = 1_000_000
LEASE_US = 100
LIFETIME_US = 10_000
CLAIM = Claim(
    record_key="r",
    client_key="k",
    operation="POST /payments",
    fingerprint=b"f",
    owner="one",
    lease_us=LEASE_US,
    lifetime_us=LIFETIME_US,
)
OTHER = replace(CLAIM, owner="other")
REFUSING = replace(OTHER, when_unknown=WhenUnknown.REFUSE)
ANSWER = StoredAnswer(status=201, body=b"paid")
RUNNING = claimed(None, CLAIM, now_us=NOW_US)
ANSWERED = completed(RUNNING, CLAIM, ANSWER, now_us=NOW_US)
IN_DOUBT = left_in_doubt(RUNNING, CLAIM, now_us=NOW_US)


@pytest.mark.parametrize(
    ("record", "claim", "after_us", "verdict"),
    [
        (None, CLAIM, 0, Run()),
        (RUNNING, OTHER, 0, InProgress(wait_us=LEASE_US)),
        (RUNNING, OTHER, LEASE_US - 1, InProgress(wait_us=1)),
        (RUNNING, OTHER, LEASE_US, Run()),
        (RUNNING, REFUSING, LEASE_US - 1, InProgress(wait_us=1)),
        (RUNNING, REFUSING, LEASE_US, InDoubt()),
        (RUNNING, CLAIM, 0, Run()),
        (RUNNING, CLAIM, LEASE_US, Run()),
        (RUNNING, replace(OTHER, fingerprint=b"g"), 0, Mismatch()),
        (RUNNING, replace(OTHER, fingerprint=b"g"), LEASE_US, Mismatch()),
        (ANSWERED, OTHER, LIFETIME_US - 1, Replay(answer=ANSWER)),
        (ANSWERED, CLAIM, 0, Replay(answer=ANSWER)),
        (ANSWERED, REFUSING, LEASE_US, Replay(answer=ANSWER)),
        (ANSWERED, replace(OTHER, fingerprint=b"g"), 0, Mismatch()),
        (ANSWERED, OTHER, LIFETIME_US, Run()),
        (ANSWERED, replace(OTHER, fingerprint=b"g"), LIFETIME_US, Run()),
        (IN_DOUBT, OTHER, 0, Run()),
        (IN_DOUBT, REFUSING, 0, InDoubt()),
        (IN_DOUBT, REFUSING, LIFETIME_US, Run()),
    ],
)
def test_claim_is_judged_by_its_record(record: IdempotencyRecord | None, claim: Claim, after_us: int, verdict: Verdict) -> None:  # R18, R22
    assert judge(record, claim, now_us=NOW_US + after_us) == verdict


def test_run_that_goes_on_beyond_the_lifetime_of_its_key_keeps_it() -> None:
    record = renewed(RUNNING, CLAIM, now_us=NOW_US + LIFETIME_US)
    assert judge(record, OTHER, now_us=NOW_US + LIFETIME_US + 1) == InProgress(wait_us=LEASE_US - 1)


def test_taking_over_keeps_when_a_key_was_first_seen() -> None:
    assert claimed(RUNNING, OTHER, now_us=NOW_US + LEASE_US).created_at_us == NOW_US
    assert claimed(ANSWERED, OTHER, now_us=NOW_US + LIFETIME_US) == claimed(None, OTHER, now_us=NOW_US + LIFETIME_US)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ([], None),
        (["a-1"], "a-1"),
        (['"a-1"'], "a-1"),
        ([" a-1\t"], "a-1"),
        (['"a b,c"'], "a b,c"),
        ([r'"a\"b\\c"'], r"a\"b\\c".replace(r"\"", '"').replace(r"\\", "\\")),
        (["a", '"a"'], "a"),
        (["k" * 255], "k" * 255),
        (["~!#$%&'()*+-./:;<=>?@[]^_`{|}"], "~!#$%&'()*+-./:;<=>?@[]^_`{|}"),
    ],
)
def test_key_is_read_quoted_and_bare(values: list[str], key: str | None) -> None:
    assert parse_key(values) == key


@pytest.mark.parametrize(
    "values", [[""], ['""'], ["a b"], ["a,b"], ['a"'], ['"a'], ["a\\b"], ['"\\a"'], ["é"], ["k" * 256], ["a", "b"], ["\x7f"]]
)
def test_what_is_no_key_is_refused(values: list[str]) -> None:
    with pytest.raises(IdempotencyKeyError, match="expected"):
        parse_key(values)


def test_names_of_records_keep_their_parts_apart() -> None:
    names = {
        record_key(tenant=tenant, operation=operation, key=key)
        for tenant, operation, key in [
            ("a", "b", "c"),
            ("ab", "", "c"),
            ("", "ab", "c"),
            ("a", "bc", ""),
            ("A", "b", "c"),
            ("\udcff", "b", "c"),
        ]
    }
    assert len(names) == 6
    assert {len(each) for each in names} == {64}
    assert digest([b"a", b"b"]) != digest([b"ab"]) != digest([b"ab", b""])


def test_headers_survive_the_way_into_the_store_and_back() -> None:
    headers = ((b"content-type", b"text/plain"), (b"x", bytes(range(256))), (b"x", b""))
    assert decode_headers(encode_headers(headers)) == headers


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (200, Meaning.FINAL),
        (303, Meaning.FINAL),
        (404, Meaning.FINAL),
        (422, Meaning.FINAL),
        (401, Meaning.NO_EFFECT),
        (409, Meaning.NO_EFFECT),
        (429, Meaning.NO_EFFECT),
        (500, Meaning.UNKNOWN),
        (504, Meaning.UNKNOWN),
    ],
)
def test_http_status_says_what_it_means(status: int, meaning: Meaning) -> None:
    assert http_meaning(status) is meaning


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_grpc_status_means_what_r6_says(code: grpc.StatusCode) -> None:  # R6
    rejections = {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "OUT_OF_RANGE"}
    faults = {"UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED"}
    if code.name in {"OK", *rejections}:
        assert grpc_meaning(code.value[0]) is Meaning.FINAL
    else:
        assert grpc_meaning(code.value[0]) is (Meaning.NO_EFFECT if code.name in faults else Meaning.UNKNOWN)


@pytest.mark.parametrize(
    ("outcome", "http_status", "code", "retry_after"),
    [
        (StillRunning(retry_after_s=0.2), 409, grpc.StatusCode.ABORTED, 1),
        (KeyReused(), 422, grpc.StatusCode.INVALID_ARGUMENT, None),
        (OutcomeUnknown(), 409, grpc.StatusCode.UNKNOWN, None),
        (StoreAway(), 503, grpc.StatusCode.UNAVAILABLE, 1),
        (AnswerNotStored(), 500, grpc.StatusCode.UNKNOWN, None),
        (RunBroke(error=RuntimeError()), 500, grpc.StatusCode.UNKNOWN, None),
    ],
)
def test_refusal_says_the_same_in_both_protocols(
    outcome: StillRunning | KeyReused | OutcomeUnknown | StoreAway | AnswerNotStored | RunBroke,
    http_status: int,
    code: grpc.StatusCode,
    retry_after: int | None,
) -> None:
    refusal = refusal_of(outcome, WhenUnknown.RUN_AGAIN)
    assert (refusal.http_status, refusal.grpc_code, refusal.retry_after) == (http_status, code, retry_after)
    info = find_detail(refusal.status, error_details_pb2.ErrorInfo)
    assert info is not None
    assert refusal.problem["type"] == f"urn:saga:problem:{info.reason.lower().replace('_', '-')}"
    assert (find_detail(refusal.status, error_details_pb2.RetryInfo) is None) is (retry_after is None)


@pytest.mark.parametrize("name", ["lifetime", "lease", "wait", "run_time_limit", "settle_time_limit"])
def test_policy_with_no_time_is_refused(name: str) -> None:
    with pytest.raises(IdempotencySetupError, match=name):
        IdempotencyPolicy(**{name: timedelta()})  # type: ignore[arg-type]


def test_policy_with_a_lease_too_short_to_renew_or_no_room_is_refused() -> None:
    with pytest.raises(IdempotencySetupError, match="at least"):
        IdempotencyPolicy(lease=timedelta(milliseconds=1))
    with pytest.raises(IdempotencySetupError, match="answer_bytes_max"):
        IdempotencyPolicy(answer_bytes_max=0)


async def test_memory_that_is_full_refuses_new_keys_and_forgets_none() -> None:
    now_us = NOW_US
    store = MemoryIdempotencyStore(records_max=2, clock=lambda: now_us)
    await store.begin(CLAIM)
    await store.complete(CLAIM, ANSWER)
    await store.begin(replace(OTHER, record_key="s"))
    third = replace(OTHER, record_key="t")
    with pytest.raises(IdempotencyStoreUnavailableError, match="2 keys of 2"):
        await store.begin(third)
    assert await store.begin(OTHER) == Replay(answer=ANSWER)
    now_us += LIFETIME_US
    assert await store.begin(third) == Run()


async def test_memory_counts_the_bytes_of_answers() -> None:
    store = MemoryIdempotencyStore(bytes_max=10, clock=lambda: NOW_US)
    for name in ("a", "b"):
        claim = replace(CLAIM, record_key=name)
        await store.begin(claim)
        await store.complete(claim, StoredAnswer(status=200, body=b"12345"))
    with pytest.raises(IdempotencyStoreUnavailableError, match="10 bytes of 10"):
        await store.begin(replace(CLAIM, record_key="c"))
