"""The last step before a token goes out: its place in a status list, if its client wants one, and its signature."""

from collections.abc import Callable

from auth_server.keyring.signer import Signer
from auth_server.keyring.signing_queue import SigningQueue
from auth_server.oauth.claims import AccessTokenClaims, UnsignedToken
from auth_server.oauth.status import status_claim
from auth_server.stores.status_lists import StatusLists
from shared.access_token import AccessToken
from shared.errors import AppError
from shared.revocations.entries import TokenMarks, marks

_ATTEMPTS = 3  # the key may change between the entry and the signature; twice in a row is no accident


class TokenSigning:
    """Signs what the rules allowed. ``clock`` gives UTC seconds.

    Ordinary tokens go straight to ``queue``. A token with a status list costs one store round trip and one entry, made
    before the token exists: nobody ever holds one whose status is not kept.
    """

    def __init__(self, queue: SigningQueue, signer: Signer, lists: StatusLists, *, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._signer = signer
        self._lists = lists
        self._clock = clock

    async def sign(self, unsigned: UnsignedToken) -> str:
        """Sign a token. Raises AppError store_unavailable if its place can't be kept, and what the queue raises."""
        if not unsigned.status_list:
            return await self._queue.sign(unsigned.claims)
        claims = unsigned.claims
        for _ in range(_ATTEMPTS):
            kid = self._signer.ring.active.kid
            place = await self._lists.add(self._marks(claims, kid), claims["exp"], self._clock())
            claims["status"] = status_claim(claims["iss"], place.list_id, place.index)
            token = await self._queue.sign(claims)
            if self._signer.ring.active.kid == kid:  # a key that stopped signing never signs again, so it signed this
                return token
        raise AppError("conflict", reason="key_ring_keeps_changing")

    def _marks(self, claims: AccessTokenClaims, kid: str) -> TokenMarks:
        """Work the marks out as every verifier will, from what the token says."""
        key = self._signer.get(kid)
        assert key is not None, "the active key is published"
        return marks(
            AccessToken(
                key=key,
                subject=claims["sub"],
                client_id=claims["client_id"],
                token_id=claims["jti"],
                audiences=(),
                scopes=frozenset(),
                issued_at=claims["iat"],
                not_before=0,
                expires_at=claims["exp"],
            )
        )
