"""Keys as clients write them, and what is made of them."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final

from participant_sdk.idempotency.errors import IdempotencyKeyError

KEY_CHARACTERS_MAX: Final = 255
"""Longest key of a client."""

_BARE: Final = re.compile(r"[\x21\x23-\x2b\x2d-\x5b\x5d-\x7e]+")
"""Printable ASCII without space, comma, quote and backslash: a comma is what proxies join two headers with."""
_QUOTED: Final = re.compile(r'"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
"""A String of Structured Fields. Source: RFC 8941, section 3.3.3."""
_ESCAPED: Final = re.compile(r'\\(["\\])')


def parse_key(values: Sequence[str]) -> str | None:
    """The key that a request carries; `values` are those of all headers that may carry one. None if there is none.

    Accepts a String of Structured Fields ("8e03978e", with its quotes), as the draft of the IETF wants it, and the bare text that most
    clients send; both name the same key. Raises IdempotencyKeyError.
    """
    keys = {_parsed(value.strip(" \t")) for value in values}
    if len(keys) > 1:
        raise IdempotencyKeyError(f"expected one idempotency key, found {len(keys)} that differ: send it in one header")
    return keys.pop() if keys else None


def _parsed(value: str) -> str:
    quoted = _QUOTED.fullmatch(value)
    if quoted is None and _BARE.fullmatch(value) is None:
        raise IdempotencyKeyError(
            f"expected an idempotency key of 1 to {KEY_CHARACTERS_MAX} printable ASCII characters, in double quotes or without spaces, "
            f"commas, quotes and backslashes; found {_shortened(value)}"
        )
    key = value if quoted is None else _ESCAPED.sub(r"\1", quoted[1])
    if not 1 <= len(key) <= KEY_CHARACTERS_MAX:
        raise IdempotencyKeyError(f"expected an idempotency key of 1 to {KEY_CHARACTERS_MAX} characters, found {len(key)}")
    return key


def record_key(*, tenant: str, operation: str, key: str) -> str:
    """The name of the record: 64 characters, however long its parts are.

    A digest, because a column of text may compare without regard to case (MySQL does), and because indexes have a width.
    """
    return digest((tenant.encode("utf-8", "surrogatepass"), operation.encode("utf-8", "surrogatepass"), key.encode())).hex()


def digest(parts: Iterable[bytes]) -> bytes:
    """SHA-256 of all parts, each with its length, so that no two lists of parts have the same one."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)
    return total.digest()


def _shortened(value: str) -> str:
    return repr(value) if len(value) <= 40 else f"{value[:40]!r}… ({len(value)} characters)"
