"""Claims and answers for tests of stores."""

import uuid
from dataclasses import dataclass

from participant_sdk.idempotency.keys import record_key
from participant_sdk.idempotency.verdict import Claim, StoredAnswer, WhenUnknown

SECOND_US = 1_000_000
START_US = 1_780_000_000 * SECOND_US
LEASE_S = 30
LIFETIME_S = 3_600
ANSWER = StoredAnswer(status=201, headers=((b"content-type", b"application/json"), (b"x-\xff", b"\x00\xfe")), body=b"\x00paid\xff")
OTHER_ANSWER = StoredAnswer(status=200, body=b"")
UNKEPT_ANSWER = StoredAnswer(status=200, body=None)


@dataclass
class ManualClock:
    """A clock that stands still until it is told."""

    now_us: int = START_US

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        self.now_us += int(seconds * SECOND_US)


def claim(
    name: str = "a", *, value: bytes = b"request", when_unknown: WhenUnknown = WhenUnknown.RUN_AGAIN, lease_s: float = LEASE_S
) -> Claim:
    """A claim of a run of its own."""
    return Claim(
        record_key=record_key(tenant="", operation="POST /payments", key=name),
        client_key=name,
        operation="POST /payments",
        fingerprint=value.ljust(32, b"."),
        owner=uuid.uuid4().hex,
        lease_us=int(lease_s * SECOND_US),
        lifetime_us=LIFETIME_S * SECOND_US,
        when_unknown=when_unknown,
    )
