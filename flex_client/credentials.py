"""Client credentials (RFC 6749 section 4.4) as an ``httpx.Auth``: a token when needed, refreshed before it ends."""

import functools
import json
import random
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote_plus

import httpx

from flex_client.errors import TokenError
from flex_client.flight import SingleFlight
from flex_client.replies import retry_after_s

REFRESH_AT_SHARE = 0.8
REFRESH_JITTER_SHARE = 0.05
EARLY_TIMEOUT_S = 1.0
EARLY_PAUSE_SHARE = 0.05
UNSTATED_LIFE_S = 60.0
FORCED_GAP_S = 1.0


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The process's one TLS context: loading the certificate authorities costs tens of milliseconds."""
    return httpx.create_ssl_context()


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and, on the credentials' own clock, when to replace it and when it ends."""

    value: str = field(repr=False)
    fetched_at: float
    refresh_at: float
    expires_at: float


class ClientCredentials(httpx.Auth):
    """Puts a bearer token on every request of the httpx client that it is given to, sync or async.

    The token is fetched on first use with ``client_secret_basic``, shared by all threads and tasks that share this
    object, and refreshed at about 80 % of its life; while it is still good, a refresh that fails disturbs nobody.
    A 401 from the resource is retried once with a newer token, if the request's body can be sent twice.

    ``timeout_s`` bounds each phase of a call to the token endpoint. ``tls`` replaces the default TLS context, for
    example for a private certificate authority. Give the object only to clients of one resource: it signs every
    request they make. ``now`` and ``jitter`` (0 to 1) are there to be set by tests.
    """

    def __init__(
        self,
        token_endpoint: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str | None = None,
        resource: str | None = None,
        timeout_s: float = 5.0,
        tls: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.token_endpoint = token_endpoint
        self.client_id = client_id
        # RFC 6749 section 2.3.1: both parts are form-encoded before they are joined.
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
        self._basic = "Basic " + b64encode(pair.encode()).decode()
        self._client_secret = client_secret
        self._form = {"grant_type": "client_credentials"}
        self._form |= {name: text for name, text in (("scope", scope), ("resource", resource)) if text}
        self._timeout_s = timeout_s
        self._tls = tls
        self._now = now
        self._jitter = jitter
        self._token: Token | None = None
        self._early_not_before = 0.0
        self._forced_at = float("-inf")
        self._flight: SingleFlight[Token] = SingleFlight(patience_s=4 * timeout_s)

    def __repr__(self) -> str:
        return f"ClientCredentials({self.token_endpoint!r}, {self.client_id!r})"

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Self:
        """Read a JSON file such as the server's ``var/demo-client.json``; ``options`` as for the class.

        Raises OSError, or ValueError if it is not such a file.
        """
        members = json.loads(Path(path).read_text(encoding="utf-8"))
        try:
            return cls(
                members["token_endpoint"],
                members["client_id"],
                members["client_secret"],
                **{"resource": members.get("resource"), "scope": members.get("scope"), **options},
            )
        except (KeyError, TypeError, AttributeError):
            raise ValueError(f"{path} does not hold token_endpoint, client_id and client_secret") from None

    def access_token(self) -> str:
        """Return a good access token, fetching one if needed. Raises TokenError."""
        return self._current().value

    async def access_token_async(self) -> str:
        """Return a good access token, fetching one if needed. Raises TokenError."""
        return (await self._current_async()).value

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign a request; on a 401 once more with a newer token. Raises TokenError."""
        used = self._current()
        request.headers["Authorization"] = f"Bearer {used.value}"
        response = yield request
        if _may_repeat(request, response):
            newer = self._replace(used)
            if newer is not None:
                request.headers["Authorization"] = f"Bearer {newer.value}"
                yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sign a request; on a 401 once more with a newer token. Raises TokenError."""
        used = await self._current_async()
        request.headers["Authorization"] = f"Bearer {used.value}"
        response = yield request
        if _may_repeat(request, response):
            newer = await self._replace_async(used)
            if newer is not None:
                request.headers["Authorization"] = f"Bearer {newer.value}"
                yield request

    # What follows comes in pairs, one sync and one async, of which only the fetch differs.

    def _current(self) -> Token:
        token, early = self._held()
        if token is None:
            return self._fly(self._timeout_s)
        if early:
            try:
                return self._fly(self._early_timeout_s)
            except TokenError:
                self._pause_early(token)
        return token

    async def _current_async(self) -> Token:
        token, early = self._held()
        if token is None:
            return await self._fly_async(self._timeout_s)
        if early:
            try:
                return await self._fly_async(self._early_timeout_s)
            except TokenError:
                self._pause_early(token)
        return token

    def _replace(self, refused: Token) -> Token | None:
        """Return a token newer than one that got a 401, or None if there is none to be had."""
        token = self._token
        if token is not None and token is not refused:
            return token
        if not self._flight.busy and not self._may_force():
            return None
        try:
            return self._fly(self._timeout_s)
        except TokenError:
            return None  # the resource's 401 is the answer that the caller gets

    async def _replace_async(self, refused: Token) -> Token | None:
        token = self._token
        if token is not None and token is not refused:
            return token
        if not self._flight.busy and not self._may_force():
            return None
        try:
            return await self._fly_async(self._timeout_s)
        except TokenError:
            return None

    def _fly(self, timeout_s: float) -> Token:
        try:
            return self._flight.run(lambda: self._fetch(timeout_s))
        except TimeoutError:
            raise TokenError("unreachable", "Another caller's token request does not end.") from None

    async def _fly_async(self, timeout_s: float) -> Token:
        try:
            return await self._flight.run_async(lambda: self._fetch_async(timeout_s))
        except TimeoutError:
            raise TokenError("unreachable", "Another caller's token request does not end.") from None

    def _fetch(self, timeout_s: float) -> Token:
        started = self._now()
        # A client per fetch: one call in many minutes needs no pool, and a pool would belong to one event loop.
        with httpx.Client(verify=self._tls or tls_context(), timeout=timeout_s) as http:
            try:
                response = http.post(self.token_endpoint, data=self._form, headers=self._headers)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise self._unreachable(error) from None
        return self._accept(response, started)

    async def _fetch_async(self, timeout_s: float) -> Token:
        started = self._now()
        async with httpx.AsyncClient(verify=self._tls or tls_context(), timeout=timeout_s) as http:
            try:
                response = await http.post(self.token_endpoint, data=self._form, headers=self._headers)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise self._unreachable(error) from None
        return self._accept(response, started)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._basic, "Accept": "application/json"}

    @property
    def _early_timeout_s(self) -> float:
        # Whoever refreshes early has a good token in hand, so a hanging endpoint may cost little time.
        return min(EARLY_TIMEOUT_S, self._timeout_s)

    def _held(self) -> tuple[Token | None, bool]:
        """Return the token if it is still good, and whether this caller should refresh it early."""
        token, now = self._token, self._now()
        if token is None or now >= token.expires_at:
            return None, False
        early = now >= token.refresh_at and now >= self._early_not_before and not self._flight.busy
        return token, early

    def _pause_early(self, token: Token) -> None:
        life_s = token.expires_at - token.fetched_at
        self._early_not_before = self._now() + max(1.0, EARLY_PAUSE_SHARE * life_s)

    def _may_force(self) -> bool:
        # A resource that refuses every token must not turn each call into a token request.
        now = self._now()
        if now - self._forced_at < FORCED_GAP_S:
            return False
        self._forced_at = now
        return True

    def _accept(self, response: httpx.Response, started: float) -> Token:
        """Check and keep what the token endpoint answered (RFC 6749 sections 5.1 and 5.2)."""
        try:
            members = response.json()
        except ValueError:
            members = None
        if not isinstance(members, dict):
            members = {}
        if response.status_code != 200:
            raise self._refusal(response, members)
        value, kind, life_s = members.get("access_token"), members.get("token_type"), members.get("expires_in")
        if not isinstance(value, str) or not value or not isinstance(kind, str) or kind.lower() != "bearer":
            raise TokenError("invalid_response", "The answer holds no bearer token.", status=200)
        if not isinstance(life_s, (int, float)) or isinstance(life_s, bool) or not life_s > 0:
            life_s = UNSTATED_LIFE_S
        share = REFRESH_AT_SHARE + REFRESH_JITTER_SHARE * (2 * self._jitter() - 1)
        # Counted from before the request, so that the token is never thought to live longer than it does.
        token = Token(value, started, started + share * life_s, started + life_s)
        self._token = token
        return token

    def _refusal(self, response: httpx.Response, members: dict[str, Any]) -> TokenError:
        error, said = members.get("error"), members.get("error_description")
        detail = said if isinstance(said, str) else ""
        return TokenError(
            error[:64] if isinstance(error, str) else "invalid_response",
            detail.replace(self._client_secret, "***")[:300] or f"The token endpoint answered {response.status_code}.",
            status=response.status_code,
            retry_after_s=retry_after_s(response.headers.get("Retry-After")),
        )

    def _unreachable(self, error: Exception) -> TokenError:
        return TokenError("unreachable", f"{self.token_endpoint} did not answer ({type(error).__name__}).")


def _may_repeat(request: httpx.Request, response: httpx.Response) -> bool:
    """Whether this is a 401 of the very resource that was called, to a request whose body can be sent again."""
    same_place = response.url.copy_with(path="/", query=None, fragment=None) == request.url.copy_with(
        path="/", query=None, fragment=None
    )
    return response.status_code == 401 and same_place and isinstance(request.stream, httpx.ByteStream)
