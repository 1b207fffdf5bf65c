"""Completion tokens: made with every call, believed only if this coordinator, or another one on the same database, made them (R24)."""

import hmac
import secrets
from hashlib import blake2b
from typing import Final

from coordinator.core.values import AttemptKey, SagaId
from participant_sdk.completion_token import SIGNATURE_BYTES, CompletionIdentity, TokenInvalidError, read_token, signed_part, write_signed

SECRET_NAME: Final = "completion-token"  # noqa: S105 - the name under which the secret is kept, not the secret
SECRET_BYTES: Final = 32


def new_secret() -> bytes:
    """A key to sign tokens with."""
    return secrets.token_bytes(SECRET_BYTES)


class CompletionTokens:
    """Makes and reads tokens. A token is a pure function of what it completes, so that every attempt of a round carries the same."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = blake2b(digest_size=SIGNATURE_BYTES, key=secret)

    def make(self, saga_id: SagaId, attempt: AttemptKey) -> str:
        """The token for the round of an attempt to execute."""
        signed = signed_part(saga_id, attempt.step_id, attempt.round)
        return write_signed(signed, self._signature(signed))

    def read(self, token: str) -> CompletionIdentity:
        """What a token completes. Raises TokenInvalidError if it was not made with this secret."""
        identity, signature = read_token(token)
        if not hmac.compare_digest(signature, self._signature(signed_part(*identity))):
            raise TokenInvalidError("expected a completion token of this coordinator, found one that was changed, or made elsewhere")
        return identity

    def _signature(self, signed: bytes) -> bytes:
        # Keyed BLAKE2 is a signature of its own, and needs a tenth of the time of HMAC with SHA-256: one is made with every call.
        signature = self._keyed.copy()
        signature.update(signed)
        return signature.digest()
