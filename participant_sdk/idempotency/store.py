"""What idempotency needs of a store: the port behind which SQL and memory stand.

A RUN BEGINS ONLY AFTER ITS CLAIM IS COMMITTED, AND ITS ANSWER IS GIVEN ONLY AFTER IT IS COMMITTED. WHAT IS WRITTEN AFTER THE CLAIM IS
WRITTEN WITH ITS OWNER, AND NOT AT ALL ONCE ANOTHER RUN HAS THE KEY.
"""

from typing import Protocol

from participant_sdk.idempotency.verdict import Claim, StoredAnswer, Verdict


class IdempotencyStore(Protocol):
    """Remembers keys. Every method may be repeated with the same arguments, and raises IdempotencyStoreUnavailableError and
    IdempotencyStoreBusyError.
    """

    async def begin(self, claim: Claim) -> Verdict:
        """Judges the claim by what is stored, and on Run has stored it. At most one of several claims is told Run at a time."""

    async def renew(self, claim: Claim) -> bool:
        """Begins the lease anew. False if another run has the key, or nobody: this one has lost it."""

    async def complete(self, claim: Claim, answer: StoredAnswer) -> bool:
        """Stores the answer. False if another run has the key, or the key is forgotten: nothing was stored."""

    async def abandon(self, claim: Claim) -> bool:
        """Forgets the key, so that the next claim runs at once. False if another run has the key, or an answer is stored."""

    async def leave_in_doubt(self, claim: Claim) -> bool:
        """Ends the lease without an answer, as if the process had been killed. False like `abandon`."""

    async def delete_expired(self, limit: int) -> int:
        """Forgets at most `limit` keys whose time is over; returns how many."""
