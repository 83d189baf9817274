"""From the Authorization header to a caller: which token this is, and what it may do with which attribute.

RFC 6750 section 2.1 (header), section 3.1 (answers), RFC 9068 section 4 (verification, in ``shared.access_token``).
No network, no disk: a token seen before costs one hash and some dictionary look-ups, a new one 45 µs.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from starlette.types import Scope

from model_server.accounts import Account, Accounts
from model_server.revocations import Revocations
from shared import events
from shared.access_token import LEEWAY_S, MAX_TOKEN_BYTES, AccessToken, KeySet, TokenRefused, verify_access_token
from shared.errors import AppError
from shared.events import Event
from shared.rate_limit.budgets import Budget, may_call
from shared.rate_limit.networks import NetworkLimiter
from shared.revocations.entries import TokenMarks, marks
from shared.scopes import ADMIN
from shared.telemetry import BEARER_REFUSED, UNKNOWN_KIDS

MEMO_SIZE = 2_000
# How long a network with too many bad tokens waits for each further answer: it may still ask, but no longer at full
# speed, and whoever has a good token is not kept waiting by it.
FLOOD_PAUSE_S = 0.1
_MAX_PERMISSIONS = 1_000
_TOO_MANY_REFUSED = "Too many refused tokens came from this network; wait as long as Retry-After says."
_REFUSED = {
    reason: BEARER_REFUSED.labels(reason)
    for reason in ("no_token", "other_scheme", "two_headers", "insufficient_scope", "network_limit")
}


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified token and what follows from its scopes, worked out once for all its calls.

    ``marks`` are what of it can be revoked; ``may_predict`` and ``may_explain`` hold attribute ids, ``visible`` both
    together. The token is good from ``valid_from`` until just before ``valid_until`` (UTC seconds, leeway included).
    ``account``: what its calls are charged to.
    """

    token: AccessToken
    marks: TokenMarks
    client_id: str
    may_predict: frozenset[str]
    may_explain: frozenset[str]
    visible: frozenset[str]
    valid_from: float
    valid_until: float
    account: Account

    def require_predict(self, attribute_id: str) -> None:
        """Raise AppError ``not_found`` or ``insufficient_scope`` unless the attribute may be predicted."""
        if attribute_id not in self.may_predict:
            raise self._refusal("predict", attribute_id)

    def require_explain(self, attribute_id: str) -> None:
        """Raise AppError ``not_found`` or ``insufficient_scope`` unless the attribute may be explained."""
        if attribute_id not in self.may_explain:
            raise self._refusal("explain", attribute_id)

    def require_visible(self, attribute_id: str) -> None:
        """Raise AppError ``not_found`` for an attribute that is not there or that the token has nothing to do with."""
        if attribute_id not in self.visible:
            raise AppError("not_found")

    def require_any_predict(self) -> None:
        """Raise AppError ``insufficient_scope`` if the token may predict nothing at all."""
        if not self.may_predict:
            raise _scope_refused(self.client_id, "predict:*")

    def _refusal(self, action: str, attribute_id: str) -> AppError:
        # An attribute that the token may not see is answered as one that does not exist.
        if attribute_id not in self.visible:
            return AppError("not_found")
        return _scope_refused(self.client_id, f"{action}:{attribute_id}")


@dataclass(frozen=True, slots=True)
class _Permissions:
    """What a set of scopes and budgets allows. Shared by all tokens with the same: for each token it would be 2 KiB."""

    may_predict: frozenset[str]
    may_explain: frozenset[str]
    visible: frozenset[str]


class _Memo:
    """Callers by token digest: at most MEMO_SIZE of about 1.1 KiB, in two halves of which the older goes when the newer
    is full.

    Emptied when the keys change. Only verified tokens get in, so a flood of bad ones can't push good ones out, and no
    token is kept: the digest is keyed with a secret of this process. SHA-256 takes 1.2 µs here, BLAKE2b 2 µs.
    """

    __slots__ = ("_key", "_newer", "_older")

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._newer: dict[bytes, Caller] = {}
        self._older: dict[bytes, Caller] = {}

    def digest(self, token: bytes) -> bytes:
        return hashlib.sha256(self._key + token).digest()

    def get(self, digest: bytes) -> Caller | None:
        caller = self._newer.get(digest)
        if caller is None and (caller := self._older.get(digest)) is not None:
            self.put(digest, caller)
        return caller

    def put(self, digest: bytes, caller: Caller) -> None:
        if len(self._newer) >= MEMO_SIZE // 2:
            self._newer, self._older = {}, self._newer
        self._newer[digest] = caller

    def clear(self) -> None:
        self._newer, self._older = {}, {}

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)


class Bearer:
    """Authenticates requests against one issuer and one audience.

    ``attributes`` are the ids of the loaded attributes; scopes for any other mean nothing here. ``networks`` counts
    refused tokens by address: a network with too many of them gets no more new tokens verified, while those verified
    before stay good. ``clock`` gives UTC seconds. Without ``revocations`` nothing is ever revoked: for an issuer that
    has no feed.
    """

    def __init__(
        self,
        keys: KeySet,
        *,
        issuer: str,
        audience: str,
        attributes: Iterable[str],
        accounts: Accounts,
        networks: NetworkLimiter,
        clock: Callable[[], float],
        revocations: Revocations | None = None,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._attributes = frozenset(attributes)
        self._accounts = accounts
        self._networks = networks
        self._clock = clock
        self._check = revocations.check if revocations is not None else None
        self._memo = _Memo()
        # At most 1,000, then emptied; what scopes and budgets allow depends on the loaded attributes only.
        self._known: dict[tuple[frozenset[str], tuple[Budget, ...]], _Permissions] = {}

    def authenticate(self, scope: Scope) -> Caller:
        """Give the caller of an HTTP request; also notes the client id for the access line.

        Raises AppError ``unauthenticated`` (no bearer token came), ``invalid_token`` (one answer for whatever is wrong
        with it), ``keys_unavailable``, ``revocations_stale``, or ``too_many_requests`` before anything is verified for
        a network that sent too many bad tokens.
        """
        token = self._token(scope)
        memo = self._memo
        digest = memo.digest(token)
        caller = memo.get(digest)
        now = self._clock()
        if caller is None or not self._still_good(caller, now):
            caller = self._verify(token, scope, now)
            memo.put(digest, caller)
        if self._check is not None and (reason := self._check(caller.marks, now)) is not None:
            raise _refused(reason, scope)
        scope["flex.client_id"] = caller.client_id
        return caller

    def forget(self) -> None:
        """Empty the memo: the keys have changed, or one is revoked."""
        self._memo.clear()

    def _still_good(self, caller: Caller, now: float) -> bool:
        key = caller.token.key
        return caller.valid_from <= now < caller.valid_until and self._keys.get(key.kid) is key

    def _token(self, scope: Scope) -> bytes:
        raw_header: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                if raw_header is not None:  # two answers to "who is it?" are none
                    raise _refused("two_headers", scope)
                raw_header = value
        if raw_header is None:
            _REFUSED["no_token"].inc()
            raise AppError("unauthenticated", reason="no_token")
        if raw_header[:7] == b"Bearer ":
            token = raw_header[7:]
        else:
            scheme, _, token = raw_header.partition(b" ")
            if scheme.lower() != b"bearer":
                _REFUSED["other_scheme"].inc()
                raise AppError("unauthenticated", reason="other_scheme")
        if len(token) > MAX_TOKEN_BYTES:
            self._networks.admit(self._unshed_address(scope))
            raise _refused("too_long", scope)
        return token

    def _unshed_address(self, scope: Scope) -> str | None:
        """Give the peer's address. Raises AppError too_many_requests if its network sent too many bad tokens."""
        address: str | None = (scope.get("client") or (None,))[0]
        if wait_s := self._networks.is_over(address):
            _REFUSED["network_limit"].inc()
            raise AppError(
                "too_many_requests",
                _TOO_MANY_REFUSED,
                retry_after_s=wait_s,
                reason="network_limit",
                pause_s=FLOOD_PAUSE_S,
            )
        return address

    def _verify(self, token: bytes, scope: Scope, now: float) -> Caller:
        address = self._unshed_address(scope)
        try:
            verified = verify_access_token(token, self._keys, issuer=self._issuer, audience=self._audience, now=now)
        except TokenRefused as refusal:
            self._networks.admit(address)
            if refusal.reason == "unknown_kid":
                UNKNOWN_KIDS.inc()
            raise _refused(refusal.reason, scope) from None
        allowed = self._permissions(verified.scopes, verified.budgets)
        return Caller(
            token=verified,
            marks=marks(verified),
            client_id=verified.client_id,
            may_predict=allowed.may_predict,
            may_explain=allowed.may_explain,
            visible=allowed.visible,
            valid_from=max(verified.not_before, verified.issued_at) - LEEWAY_S,
            valid_until=verified.expires_at + LEEWAY_S,
            account=self._accounts.of(verified),
        )

    def _permissions(self, scopes: frozenset[str], budgets: tuple[Budget, ...]) -> _Permissions:
        known = self._known.get((scopes, budgets))
        if known is None:
            if len(self._known) >= _MAX_PERMISSIONS:
                self._known.clear()
            callable_ids = frozenset(each for each in self._attributes if may_call(budgets, each))
            may_predict = self._allowed(scopes, "predict:") & callable_ids
            may_explain = self._allowed(scopes, "explain:") & callable_ids
            known = _Permissions(may_predict, may_explain, may_predict | may_explain)
            self._known[scopes, budgets] = known
        return known

    def _allowed(self, scopes: frozenset[str], prefix: str) -> frozenset[str]:
        # The same answers as shared.scopes.covers for each attribute, in one pass.
        if ADMIN in scopes or prefix + "*" in scopes:
            return self._attributes
        cut = len(prefix)
        return self._attributes.intersection([scope[cut:] for scope in scopes if scope.startswith(prefix)])


def _refused(reason: str, scope: Scope) -> AppError:
    """Note the precise reason where only operators see it, and give the one answer that callers get."""
    if reason not in _REFUSED:
        _REFUSED[reason] = BEARER_REFUSED.labels(reason)
    _REFUSED[reason].inc()
    # Gathered, not written at once: whoever floods us with bad tokens must not make each one a write.
    events.gather(
        Event.BEARER_REFUSED,
        request_id=scope.get("flex.request_id"),
        reason=reason,
        peer=(scope.get("client") or ("",))[0],
    )
    return AppError("invalid_token", reason=reason)


def _scope_refused(client_id: str, needed: str) -> AppError:
    _REFUSED["insufficient_scope"].inc()
    events.gather(Event.SCOPE_REFUSED, client_id=client_id, needed=needed)
    return AppError("insufficient_scope", scopes=(needed,))
