"""``POST /oauth2/token`` (RFC 6749 section 3.2): read, load, decide, sign, answer, in that order.

The answer's form, errors included, is RFC 6749's, so this endpoint writes all of it itself.
"""

import asyncio
from collections.abc import Callable

import msgspec
from starlette.types import Receive, Scope, Send

from auth_server.endpoints.repeated_requests import RepeatedRequests
from auth_server.keyring.signing_queue import SigningQueue
from auth_server.oauth.claims import UnsignedToken
from auth_server.oauth.clients import proves, why_refused
from auth_server.oauth.requests import (
    MAX_BODY_BYTES,
    Presented,
    TokenForm,
    TokenRequest,
    could_be_client_id,
    read_credentials,
    read_form,
)
from auth_server.oauth.server import GRANT_TYPES, TokenRules
from auth_server.records import Client
from auth_server.stores.client_cache import ClientCache
from auth_server.stores.client_secrets import Pepper
from shared import events
from shared.error_catalogue import CATALOGUE
from shared.errors import AppError
from shared.events import Event
from shared.http import JSON, NO_STORE, error_headers, read_body, send_body
from shared.rate_limit.networks import NetworkLimiter
from shared.telemetry import TOKENS_ISSUED, TOKENS_REFUSED

_TOO_MANY_FAILED = "Too many failed logins came from this network; wait as long as Retry-After says."
_PRAGMA = (b"pragma", b"no-cache")
_BASIC_CHALLENGE = (b"www-authenticate", b'Basic realm="flex"')
_NO_HASH = bytes(32)
# A failed client authentication is answered this long after it came, whatever was looked up and compared until then:
# reading a client that exists takes 20 µs more than finding none.
FAILED_AFTER_S = 0.003
# What other rooms call a refusal, in the words that RFC 6749 section 5.2 has for it.
_OAUTH_WORD = {
    "payload_too_large": "invalid_request",
    "request_timeout": "invalid_request",
    "overloaded": "temporarily_unavailable",
    "store_unavailable": "temporarily_unavailable",
    "keys_unavailable": "temporarily_unavailable",
    "not_ready": "temporarily_unavailable",
    "conflict": "temporarily_unavailable",  # the key ring is being changed
    "internal_error": "server_error",
    "too_many_requests": "temporarily_unavailable",
}


class _Answer(msgspec.Struct):
    """A successful answer (RFC 6749 section 5.1)."""

    access_token: str
    expires_in: int
    scope: str
    token_type: str = "Bearer"  # noqa: S105
    # RFC 9396 section 7: as granted
    authorization_details: list[dict[str, object]] | msgspec.UnsetType = msgspec.UNSET


class _Refusal(msgspec.Struct):
    """An error answer (RFC 6749 section 5.2)."""

    error: str
    error_description: str


_encode = msgspec.json.Encoder().encode


class _RawRequest(msgspec.Struct, frozen=True):
    """The parts of the HTTP request that matter here, not yet checked."""

    authorizations: list[bytes]
    content_type: bytes | None
    query: bytes
    body: bytes


class TokenEndpoint:
    """The token endpoint as an ASGI application. ``clock`` gives UTC seconds; ``check_ready`` raises until all is up.

    ``rules`` decide, ``clients`` and ``pepper`` give what they decide on, ``signing`` signs what they allowed.
    ``networks`` counts failed client authentications by address: a network with too many is only served clients whose
    secret proves right from memory.
    """

    def __init__(
        self,
        *,
        rules: TokenRules,
        clients: ClientCache,
        pepper: Pepper,
        signing: SigningQueue,
        networks: NetworkLimiter,
        clock: Callable[[], float],
        check_ready: Callable[[], None],
    ) -> None:
        self._rules = rules
        self._clients = clients
        self._pepper = pepper
        self._signing = signing
        self._networks = networks
        self._clock = clock
        self._check_ready = check_ready
        self._repeated = RepeatedRequests()
        self._issued = {grant: TOKENS_ISSUED.labels(grant) for grant in GRANT_TYPES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one token request."""
        loop = asyncio.get_running_loop()
        arrived_at = loop.time()
        try:
            raw = await _read(scope, receive)
            body = await self._issue(scope, raw)
        except AppError as error:
            if error.code == "invalid_client":
                self._networks.admit(_address(scope))
                await asyncio.sleep(arrived_at + FAILED_AFTER_S - loop.time())
            await _refuse(scope, send, error)
        except Exception as error:  # noqa: BLE001 - the caller still gets RFC 6749's form
            events.emit(
                Event.INTERNAL_ERROR,
                request_id=scope.get("flex.request_id"),
                reason=type(error).__name__,
                where="token",
            )
            await _refuse(scope, send, AppError("server_error"))
        else:
            await send_body(send, 200, body, [JSON, NO_STORE, _PRAGMA])

    async def _issue(self, scope: Scope, raw: _RawRequest) -> bytes:
        digest = self._repeated.digest(raw.authorizations, raw.content_type, raw.body) if not raw.query else None
        presented = self._repeated.get(digest) or self._presented(scope, raw)
        scope["flex.client_id"] = presented.client_id if could_be_client_id(presented.client_id) else None
        self._check_ready()
        unsigned = await self._decide(presented, _address(scope))
        self._repeated.remember(digest, presented)
        token = await self._signing.sign(unsigned.claims)
        claims = unsigned.claims
        self._issued[presented.form.parameters["grant_type"]].inc()
        events.gather(
            Event.TOKEN_ISSUED,
            request_id=scope.get("flex.request_id"),
            client_id=claims["client_id"],
            jti=claims["jti"],
            aud=claims["aud"] if isinstance(claims["aud"], str) else list(claims["aud"]),
            scope=claims["scope"],
            expires_at=claims["exp"],
        )
        details = claims.get("authorization_details", msgspec.UNSET)
        return _encode(_Answer(token, unsigned.expires_in, claims["scope"], authorization_details=details))

    def _presented(self, scope: Scope, raw: _RawRequest) -> Presented:
        form = read_form(raw.content_type, raw.query, raw.body)
        self._rules.check_grant_type(form.parameters.get("grant_type"))
        credentials = read_credentials(raw.authorizations, form)
        if could_be_client_id(credentials.client_id):
            scope["flex.client_id"] = credentials.client_id
        secret_hash = self._pepper.secret_hash(credentials.secret.reveal()) if credentials.method else _NO_HASH
        public = {name: value for name, value in form.parameters.items() if name != "client_secret"}
        return Presented(TokenForm(public, form.resources), credentials.method, credentials.client_id, secret_hash)

    async def _decide(self, presented: Presented, address: str | None) -> UnsignedToken:
        now = self._clock()
        client = await self._load(presented.client_id, presented.secret_hash, now, address)
        try:
            return self._rules.decide(TokenRequest(presented, client, now))
        except AppError as error:
            if error.code == "invalid_client":
                error.reason = why_refused(client, presented.secret_hash, presented.method, now)
            raise

    async def _load(self, client_id: str, secret_hash: bytes, now: float, address: str | None) -> Client | None:
        """Give the client as the decision needs it: from memory if that proves it, else from the store.

        A wrong secret of a held client thus costs the same round trip as an unknown client, and a secret that was
        made a moment ago is never refused for a stale copy.
        """
        held = self._clients.held(client_id)
        if proves(held, secret_hash, now):
            return held
        if wait_s := self._networks.is_over(address):
            raise AppError("too_many_requests", _TOO_MANY_FAILED, retry_after_s=wait_s, reason="network_limit")
        if not could_be_client_id(client_id):
            return None
        return await self._clients.load(client_id)


def _address(scope: Scope) -> str | None:
    peer = scope.get("client")
    return peer[0] if peer else None


async def _read(scope: Scope, receive: Receive) -> _RawRequest:
    authorizations: list[bytes] = []
    content_type: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == b"authorization":
            authorizations.append(value)
    body = await read_body(scope, receive, MAX_BODY_BYTES)
    return _RawRequest(authorizations, content_type, scope["query_string"], body)


async def _refuse(scope: Scope, send: Send, error: AppError) -> None:
    word = _OAUTH_WORD.get(error.code, error.code)
    # 408 and 413 say more than 400, and 429 more than 503.
    status = error.status if word == "invalid_request" or error.status == 429 else CATALOGUE[word].status
    TOKENS_REFUSED.labels(word).inc()
    events.gather(
        Event.CLIENT_AUTHENTICATION_FAILED if word == "invalid_client" else Event.TOKEN_REFUSED,
        request_id=scope.get("flex.request_id"),
        client_id=scope.get("flex.client_id"),
        error=word,
        reason=error.reason,
    )
    headers = [JSON, NO_STORE, _PRAGMA, *error_headers(error)]
    if word == "invalid_client":
        headers.append(_BASIC_CHALLENGE)
    await send_body(send, status, _encode(_Refusal(word, error.detail)), headers)
