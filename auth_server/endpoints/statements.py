"""What the issuer states about revocations to verifiers that have no feed: true when it was signed, or refused."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from auth_server.endpoints.documents import Document, document
from auth_server.keyring.signer import Signer, Statement
from shared.errors import AppError
from shared.revocations.policy import Freshness, ScopeKind, freshness
from shared.revocations.revoked import RevokedSet

CHECK_AFTER_S = 1.0  # so much work a second is all that anybody can cause by asking
SIGN_AGAIN_AFTER_S = 150.0  # half of a statement's life


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What this process knows about revocations, and how old that is.

    ``staleness`` gives seconds (infinite: it knows nothing), ``limit_s`` the operator's bound for the feed.
    """

    revoked: RevokedSet
    staleness: Callable[[], float]
    limit_s: float

    def check(self) -> float:
        """Give the age of the knowledge in seconds; raises AppError store_unavailable if it is too old to be stated."""
        staleness_s = self.staleness()
        if freshness(staleness_s, ScopeKind.MANAGEMENT, self.limit_s) is Freshness.REFUSE:
            raise AppError(
                "store_unavailable",
                "What is known about revocations is too old to be stated.",
                reason="revocations_stale",
            )
        return staleness_s


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement as it goes out, what it says, and the key and time (UTC seconds) of its signature."""

    document: Document
    content: bytes
    kid: str
    signed_at: float


class Statements:
    """Signs statements. ``clock`` gives UTC seconds."""

    def __init__(self, signer: Signer, *, clock: Callable[[], float]) -> None:
        self._signer = signer
        self.clock = clock

    async def renewed(
        self,
        held: SignedStatement | None,
        kind: Statement,
        content: bytes,
        claims: Callable[[float], Mapping[str, object]],
    ) -> SignedStatement:
        """Give ``held`` if it says the same, is young and of the key that signs now; else sign ``claims(now)``.

        ``content`` is what it says, or a digest of it. So the bytes, and with them the strong ETag, stay the same while
        what they say does.
        """
        now, kid = self.clock(), self._signer.ring.active.kid
        young = held is not None and 0 <= now - held.signed_at < SIGN_AGAIN_AFTER_S
        if held is not None and young and (held.content, held.kid) == (content, kid):
            return held
        signed = await asyncio.to_thread(lambda: document(self._signer.sign_statement(kind, claims(now)).encode()))
        return SignedStatement(signed, content, kid, now)
