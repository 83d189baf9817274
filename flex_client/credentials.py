"""Client credentials as an ``httpx.Auth``: a token when one is needed, replaced before it ends.

The sync and the async half come in pairs that differ only in how they wait; all policy is in the shared parts.
"""

import random
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeGuard

import httpx

from flex_client.demo_file import DemoFile
from flex_client.errors import TokenError
from flex_client.flight import SingleFlight
from flex_client.token_endpoint import Grant, TokenEndpoint

REFRESH_AT_SHARE = 0.8
REFRESH_JITTER_SHARE = 0.05
EARLY_TIMEOUT_S = 1.0
EARLY_PAUSE_SHARE = 0.05
FORCED_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; the times are of the credentials' own clock. ``forced``: it replaced one that got a 401."""

    value: str = field(repr=False)
    fetched_at: float
    refresh_at: float
    expires_at: float
    forced: bool


class ClientCredentials(httpx.Auth):
    """Puts a bearer token on every request of the httpx client that it is given to, sync or async.

    The token is fetched on first use with ``client_secret_basic``, shared by all threads and tasks that share this
    object, and replaced at about 80 % of its life; while it is still good, a refresh that fails disturbs nobody.
    A 401 from the resource is retried once with a newer token, if the request's body can be sent twice.

    ``timeout_s`` bounds each phase of a call to the token endpoint. ``tls`` replaces the default TLS context, for
    example for a private certificate authority. Give the object only to clients of one resource: every request they
    make carries the token. ``now`` (seconds, never going back) and ``jitter`` (0 to 1) are there to be set by tests.
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
        self.client_id = client_id
        self._endpoint = TokenEndpoint(
            token_endpoint, client_id, client_secret, scope=scope, resource=resource, tls=tls
        )
        self._timeout_s = timeout_s
        self._now = now
        self._jitter = jitter
        self._token: Token | None = None
        self._early_not_before = float("-inf")
        self._forced_not_before = float("-inf")
        self._flight: SingleFlight[Token] = SingleFlight(patience_s=4 * timeout_s)

    def __repr__(self) -> str:
        return f"ClientCredentials({self._endpoint.url!r}, {self.client_id!r})"

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Self:
        """Read a JSON file such as the server's ``var/demo-client.json``; ``options`` as for the class.

        Raises OSError, or ValueError if it is not such a file.
        """
        file = DemoFile.read(path)
        named = {"resource": file.resource, "scope": file.scope, **options}
        return cls(file.token_endpoint, file.client_id, file.client_secret, **named)

    def access_token(self) -> str:
        """Return a good access token, fetching one if needed. Raises TokenError."""
        return self._current().value

    async def access_token_async(self) -> str:
        """Return a good access token, fetching one if needed. Raises TokenError."""
        return (await self._current_async()).value

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign a request, and after a 401 once more with a newer token. Raises TokenError."""
        used = self._current()
        request.headers["Authorization"] = f"Bearer {used.value}"
        response = yield request
        if _may_repeat(request, response) and (newer := self._newer(used)) is not None:
            request.headers["Authorization"] = f"Bearer {newer.value}"
            yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Sign a request, and after a 401 once more with a newer token. Raises TokenError."""
        used = await self._current_async()
        request.headers["Authorization"] = f"Bearer {used.value}"
        response = yield request
        if _may_repeat(request, response) and (newer := await self._newer_async(used)) is not None:
            request.headers["Authorization"] = f"Bearer {newer.value}"
            yield request

    def _current(self) -> Token:
        """Return a good token, replaced early if it is time."""
        held = self._token
        if not self._is_good(held):
            return self._replace(held, self._timeout_s)
        if self._is_early_due(held):
            try:
                return self._replace(held, self._early_timeout_s)
            except TokenError:
                self._pause_early(held)
        return held

    async def _current_async(self) -> Token:
        held = self._token
        if not self._is_good(held):
            return await self._replace_async(held, self._timeout_s)
        if self._is_early_due(held):
            try:
                return await self._replace_async(held, self._early_timeout_s)
            except TokenError:
                self._pause_early(held)
        return held

    def _newer(self, refused: Token) -> Token | None:
        """Return a token newer than one that got a 401; None if there is none to be had, so that the 401 stands."""
        if self._token is refused and not self._may_force(refused):
            return None
        try:
            return self._replace(refused, self._timeout_s, forced=True)
        except TokenError:
            self._forced_not_before = self._now() + FORCED_PAUSE_S
            return None

    async def _newer_async(self, refused: Token) -> Token | None:
        if self._token is refused and not self._may_force(refused):
            return None
        try:
            return await self._replace_async(refused, self._timeout_s, forced=True)
        except TokenError:
            self._forced_not_before = self._now() + FORCED_PAUSE_S
            return None

    def _replace(self, old: Token | None, timeout_s: float, *, forced: bool = False) -> Token:
        """Return the token that comes after ``old``: another caller's if there is one by now, else a fetched one."""

        def fetch() -> Token:
            if self._token is not None and self._token is not old:
                return self._token
            asked_at = self._now()
            return self._keep(self._endpoint.fetch(timeout_s), asked_at, forced=forced)

        token = old
        while token is None or token is old:  # a flight that was under way may land what this caller came to replace
            try:
                token = self._flight.run(fetch)
            except TimeoutError:
                raise _stuck() from None
        return token

    async def _replace_async(self, old: Token | None, timeout_s: float, *, forced: bool = False) -> Token:
        async def fetch() -> Token:
            if self._token is not None and self._token is not old:
                return self._token
            asked_at = self._now()
            return self._keep(await self._endpoint.fetch_async(timeout_s), asked_at, forced=forced)

        token = old
        while token is None or token is old:
            try:
                token = await self._flight.run_async(fetch)
            except TimeoutError:
                raise _stuck() from None
        return token

    def _keep(self, grant: Grant, asked_at: float, *, forced: bool) -> Token:
        share = REFRESH_AT_SHARE + REFRESH_JITTER_SHARE * (2 * self._jitter() - 1)
        # Counted from before the request, so that the token is never thought to live longer than it does.
        token = Token(grant.access_token, asked_at, asked_at + share * grant.life_s, asked_at + grant.life_s, forced)
        self._token = token
        return token

    def _is_good(self, token: Token | None) -> TypeGuard[Token]:
        return token is not None and self._now() < token.expires_at

    def _is_early_due(self, token: Token) -> bool:
        return self._now() >= max(token.refresh_at, self._early_not_before) and not self._flight.busy

    @property
    def _early_timeout_s(self) -> float:
        # Whoever refreshes early has a good token in hand, so a hanging endpoint may cost little time.
        return min(EARLY_TIMEOUT_S, self._timeout_s)

    def _pause_early(self, token: Token) -> None:
        life_s = token.expires_at - token.fetched_at
        self._early_not_before = self._now() + max(1.0, EARLY_PAUSE_SHARE * life_s)

    def _may_force(self, refused: Token) -> bool:
        # A resource that refuses every token must not turn each call into a token request.
        now = self._now()
        too_new = refused.forced and now < refused.fetched_at + FORCED_PAUSE_S
        return not too_new and now >= self._forced_not_before


def _stuck() -> TokenError:
    return TokenError("unreachable", "Another caller's token request does not end.")


def _may_repeat(request: httpx.Request, response: httpx.Response) -> bool:
    """Whether this is a 401 of the very server that was called, to a request whose body can be sent again."""
    if response.status_code != 401 or not isinstance(request.stream, httpx.ByteStream):
        return False
    asked, answered = request.url, response.url
    return (asked.scheme, asked.host, asked.port) == (answered.scheme, answered.host, answered.port)
