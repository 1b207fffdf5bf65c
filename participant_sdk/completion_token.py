"""What a completion token says: which round of which step of which saga it completes (R24).

The coordinator makes it, and signs it so that nobody else can. To users it is opaque. The SDK reads from it which key of the barrier is
meant; whether the signature is right only the coordinator knows.

    base64url, without padding, of: version (1 byte) | saga id (16) | round (4, big endian) | step id (1 to 64, ASCII) | signature (16)
"""

import base64
import binascii
from typing import Final, NamedTuple
from uuid import UUID

SIGNATURE_BYTES: Final = 16
TOKEN_CHARS_MAX: Final = 255

_VERSION: Final = b"\x01"
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_SAGA_ID: Final = slice(1, 17)
_ROUND: Final = slice(17, 21)
_STEP_ID: Final = slice(21, -SIGNATURE_BYTES)


class CompletionIdentity(NamedTuple):
    """What a token completes."""

    saga_id: str
    """UUID in its canonical lower-case form."""
    step_id: str
    round: int
    """Round of the idempotency key, from 1 (R1)."""


class TokenInvalidError(ValueError):
    """The text is no completion token of this coordinator."""


def write_token(identity: CompletionIdentity, signature: bytes) -> str:
    """The token as text."""
    return write_signed(signed_part(*identity), signature)


def write_signed(signed: bytes, signature: bytes) -> str:
    """The same of the part that was signed."""
    # Made with every call: the functions of base64 cost twice as much.
    return binascii.b2a_base64(signed + signature, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


def signed_part(saga_id: str, step_id: str, round_: int) -> bytes:
    """What the signature is over."""
    # A UUID object costs four times as much.
    return _VERSION + bytes.fromhex(saga_id.replace("-", "")) + round_.to_bytes(4) + step_id.encode("ascii")


def read_token(token: str) -> tuple[CompletionIdentity, bytes]:
    """What a token completes, and its signature, which is not checked here. Raises TokenInvalidError."""
    if len(token) > TOKEN_CHARS_MAX:
        raise TokenInvalidError(f"expected a completion token, at most {TOKEN_CHARS_MAX} characters, found {len(token)}")
    try:
        content = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        step_id = content[_STEP_ID].decode("ascii")
    except (ValueError, binascii.Error) as error:
        raise TokenInvalidError("expected a completion token as it came with Execute, found something else") from error
    round_ = int.from_bytes(content[_ROUND])
    if content[:1] != _VERSION or not step_id or not round_:
        raise TokenInvalidError("expected a completion token as it came with Execute, found something else")
    return CompletionIdentity(str(UUID(bytes=content[_SAGA_ID])), step_id, round_), content[-SIGNATURE_BYTES:]


def execute_key_of(identity: CompletionIdentity) -> str:
    """The idempotency key of the execution that a token completes."""
    return f"{identity.saga_id}/{identity.step_id}/execute/{identity.round}"
