"""What all endpoints share at which clients authenticate: one reading, one authentication, one form of refusal.

RFC 6749 sections 2.3, 3.2 and 5.2; RFC 7009 section 2.1 and RFC 7662 section 2.1 ask for the same. The answer's form,
errors included, is theirs, so all of it is written here.
"""

import asyncio
from collections.abc import Callable

import msgspec
from starlette.types import Receive, Scope, Send

from auth_server.oauth.clients import authenticated
from auth_server.oauth.requests import (
    MAX_BODY_BYTES,
    Presented,
    TokenForm,
    could_be_client_id,
    read_credentials,
    read_form,
)
from auth_server.records import Client, proves
from auth_server.stores.client_cache import ClientCache
from auth_server.stores.client_secrets import Pepper
from shared import events
from shared.error_catalogue import CATALOGUE
from shared.errors import AppError
from shared.events import Event
from shared.http import JSON, NO_STORE, error_headers, read_body, send_body
from shared.rate_limit.networks import NetworkLimiter

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
    "revocations_stale": "temporarily_unavailable",
    "not_ready": "temporarily_unavailable",
    "conflict": "temporarily_unavailable",  # the key ring is being changed, or the feed has another key
    "internal_error": "server_error",
    "too_many_requests": "temporarily_unavailable",
}
_TOO_MANY_FAILED = "Too many failed logins came from this network; wait as long as Retry-After says."


class _Refusal(msgspec.Struct):
    """An error answer (RFC 6749 section 5.2)."""

    error: str
    error_description: str


_encode = msgspec.json.Encoder().encode


class RawRequest(msgspec.Struct, frozen=True):
    """The parts of the HTTP request that matter here, not yet checked."""

    authorizations: list[bytes]
    content_type: bytes | None
    query: bytes
    body: bytes


class ClientRequests:
    """Reads requests and authenticates their clients. ``clock`` gives UTC seconds; ``check_ready`` raises until all is
    up.

    ``networks`` counts failed client authentications by address: a network with too many is only served clients whose
    secret proves right from memory.
    """

    def __init__(
        self,
        *,
        clients: ClientCache,
        pepper: Pepper,
        networks: NetworkLimiter,
        clock: Callable[[], float],
        check_ready: Callable[[], None],
    ) -> None:
        self._clients = clients
        self._pepper = pepper
        self._networks = networks
        self.clock = clock
        self.check_ready = check_ready

    @property
    def degraded(self) -> bool:
        """Whether the store is away and clients are served as they were before."""
        return self._clients.degraded

    def presented(self, scope: Scope, raw: RawRequest, form: TokenForm) -> Presented:
        """Find what a request says about its client. Raises AppError invalid_request or invalid_client."""
        credentials = read_credentials(raw.authorizations, form)
        note_client(scope, credentials.client_id)
        secret_hash = self._pepper.secret_hash(credentials.secret.reveal()) if credentials.method else _NO_HASH
        public = {name: value for name, value in form.parameters.items() if name != "client_secret"}
        return Presented(TokenForm(public, form.resources), credentials.method, credentials.client_id, secret_hash)

    def note_served(self, presented: Presented, now: float) -> None:
        """Remember that a token was decided on what this worker holds of its client."""
        self._clients.note_served(presented.client_id, presented.secret_hash, now)

    def note_failed(self, scope: Scope) -> None:
        """Count a failed client authentication for the network that it came from."""
        self._networks.admit(address_of(scope))

    async def load(self, client_id: str, secret_hash: bytes, now: float, address: str | None) -> Client | None:
        """Give the client as a decision needs it: from memory if that proves it, else from the store.

        A wrong secret of a held client thus costs the same round trip as an unknown client, and a secret that was
        made a moment ago is never refused for a stale copy. Raises AppError too_many_requests for an ``address`` whose
        network has failed too often, store_unavailable.
        """
        held = self._clients.held(client_id)
        if proves(held, secret_hash, now):
            return held
        if wait_s := self._networks.is_over(address):
            raise AppError("too_many_requests", _TOO_MANY_FAILED, retry_after_s=wait_s, reason="network_limit")
        if not could_be_client_id(client_id):
            return None
        return await self._clients.load(client_id)

    async def authenticate(self, scope: Scope, raw: RawRequest) -> tuple[Client, TokenForm]:
        """Give the client of a request that asks for no grant, and its parameters without the secret.

        Raises AppError invalid_request, invalid_client, not_ready or store_unavailable.
        """
        presented = self.presented(scope, raw, read_form(raw.content_type, raw.query, raw.body))
        self.check_ready()
        now = self.clock()
        client = await self.load(presented.client_id, presented.secret_hash, now, address_of(scope))
        return authenticated(client, presented, now), presented.form


class OAuthEndpoint:
    """The ASGI application around :meth:`answer`. ``name`` is for events, ``refused`` the event of a refusal."""

    name: str
    refused: Event
    _requests: ClientRequests

    async def answer(self, scope: Scope, raw: RawRequest) -> bytes:
        """Give the JSON body of a 200, or nothing for an empty one; AppError becomes RFC 6749 section 5.2's form."""
        raise NotImplementedError

    def count_refusal(self, word: str) -> None:
        """Count a refusal under the word that was answered."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        loop = asyncio.get_running_loop()
        arrived_at = loop.time()
        try:
            body = await self.answer(scope, await _read(scope, receive))
        except AppError as error:
            if error.code == "invalid_client":
                self._requests.note_failed(scope)
                await asyncio.sleep(arrived_at + FAILED_AFTER_S - loop.time())
            await self._refuse(scope, send, error)
        except Exception as error:  # noqa: BLE001 - the caller still gets RFC 6749's form
            events.emit(
                Event.INTERNAL_ERROR,
                request_id=scope.get("flex.request_id"),
                reason=type(error).__name__,
                where=self.name,
            )
            await self._refuse(scope, send, AppError("server_error"))
        else:
            await send_body(send, 200, body, [JSON, NO_STORE, _PRAGMA] if body else [NO_STORE, _PRAGMA])

    async def _refuse(self, scope: Scope, send: Send, error: AppError) -> None:
        word = _OAUTH_WORD.get(error.code, error.code)
        # 408 and 413 say more than 400, and 429 more than 503.
        status = error.status if word == "invalid_request" or error.status == 429 else CATALOGUE[word].status
        self.count_refusal(word)
        events.gather(
            Event.CLIENT_AUTHENTICATION_FAILED if word == "invalid_client" else self.refused,
            request_id=scope.get("flex.request_id"),
            client_id=scope.get("flex.client_id"),
            error=word,
            reason=error.reason,
        )
        headers = [JSON, NO_STORE, _PRAGMA, *error_headers(error)]
        if word == "invalid_client":
            headers.append(_BASIC_CHALLENGE)
        await send_body(send, status, _encode(_Refusal(word, error.detail)), headers)


def address_of(scope: Scope) -> str | None:
    """Give the peer's address; None where there is none (a unix socket)."""
    peer = scope.get("client")
    return peer[0] if peer else None


def note_client(scope: Scope, client_id: str) -> None:
    """Let the access line name the client, if it could be one of ours."""
    scope["flex.client_id"] = client_id if could_be_client_id(client_id) else None


async def _read(scope: Scope, receive: Receive) -> RawRequest:
    authorizations: list[bytes] = []
    content_type: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == b"authorization":
            authorizations.append(value)
    body = await read_body(scope, receive, MAX_BODY_BYTES)
    return RawRequest(authorizations, content_type, scope["query_string"], body)
