"""Who calls the admin API: a bearer token of this same issuer (RFC 6750), verified offline, not revoked, in scope.

Our knowledge about revocations must be at most a minute old here: 503 where it is not, never 401.
"""

from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Scope

from auth_server.stores.revocations import Revocations
from shared import events
from shared.access_token import MAX_TOKEN_BYTES, AccessToken, KeySet, TokenRefused, verify_access_token
from shared.errors import AppError
from shared.events import Event
from shared.scopes import covers
from shared.telemetry import BEARER_REFUSED


@dataclass(frozen=True, slots=True)
class AdminCaller:
    """A client that may manage something here."""

    client_id: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether the token covers a scope."""
        return covers(self.scopes, scope)

    def require(self, scope: str) -> None:
        """Raise AppError insufficient_scope unless the token covers a scope."""
        if not self.may(scope):
            BEARER_REFUSED.labels("insufficient_scope").inc()
            events.gather(Event.SCOPE_REFUSED, client_id=self.client_id, needed=scope)
            raise AppError("insufficient_scope", scopes=(scope,))


class AdminGuard:
    """Authenticates calls of the admin API. ``keys`` are the issuer's own; ``clock`` gives UTC seconds."""

    def __init__(self, keys: KeySet, revocations: Revocations, *, issuer: str, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._revocations = revocations
        self._issuer = issuer
        self._clock = clock

    def authenticate(self, scope: Scope) -> AdminCaller:
        """Give the caller; its token must be for the issuer itself, as ``aud`` says.

        Raises AppError unauthenticated, invalid_token (one answer for whatever is wrong), or revocations_stale.
        """
        try:
            token = verify_access_token(
                _raw_token(scope), self._keys, issuer=self._issuer, audience=self._issuer, now=self._clock()
            )
        except TokenRefused as refusal:
            raise _refused(refusal.reason, scope) from None
        self._check_not_revoked(token, scope)
        scope["flex.client_id"] = token.client_id
        return AdminCaller(token.client_id, token.scopes)

    def _check_not_revoked(self, token: AccessToken, scope: Scope) -> None:
        if reason := self._revocations.why_revoked(token):
            raise _refused(reason, scope)


def _raw_token(scope: Scope) -> bytes:
    """Find the one bearer token of a request (RFC 6750 section 2.1)."""
    headers = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(headers) > 1:  # two answers to "who is it?" are none
        raise _refused("two_headers", scope)
    scheme, _, token = headers[0].partition(b" ") if headers else (b"", b"", b"")
    if scheme.lower() != b"bearer":
        reason = "other_scheme" if headers else "no_token"
        BEARER_REFUSED.labels(reason).inc()
        raise AppError("unauthenticated", reason=reason)
    if len(token) > MAX_TOKEN_BYTES:
        raise _refused("too_long", scope)
    return bytes(token)


def _refused(reason: str, scope: Scope) -> AppError:
    BEARER_REFUSED.labels(reason).inc()
    events.gather(
        Event.BEARER_REFUSED,
        request_id=scope.get("flex.request_id"),
        reason=reason,
        peer=(scope.get("client") or ("",))[0],
    )
    return AppError("invalid_token", reason=reason)
