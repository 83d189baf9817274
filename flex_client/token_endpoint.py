"""One call to a token endpoint: the client-credentials grant (RFC 6749 section 4.4), sync or async."""

import functools
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx

from flex_client.errors import TokenError
from flex_client.replies import retry_after_s

UNSTATED_LIFE_S = 60.0
LONGEST_LIFE_S = 86400.0


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The process's one TLS context: loading the certificate authorities costs tens of milliseconds."""
    return httpx.create_ssl_context()


def trusts_environ(url: str) -> bool:
    """Whether the environment's proxies may be used for an address: not for this machine itself."""
    try:
        return urlsplit(url).hostname not in {"localhost", "127.0.0.1", "::1"}
    except ValueError:
        return True


@dataclass(frozen=True, slots=True)
class Grant:
    """What the token endpoint gave: an access token and its life in seconds, counted from the request."""

    access_token: str = field(repr=False)
    life_s: float


class TokenEndpoint:
    """Where one client gets its tokens. Authenticates with ``client_secret_basic``.

    ``tls`` replaces the process's default TLS context. Both fetches raise TokenError and nothing else.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str | None,
        resource: str | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.url = url
        self._client_secret = client_secret
        # RFC 6749 section 2.3.1: both parts are form-encoded before they are joined.
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
        self._headers = {"Authorization": "Basic " + b64encode(pair.encode()).decode(), "Accept": "application/json"}
        self._form = {"grant_type": "client_credentials"}
        self._form |= {name: text for name, text in (("scope", scope), ("resource", resource)) if text}
        self._tls = tls

    @property
    def _options(self) -> dict[str, Any]:
        return {"verify": self._tls or tls_context(), "trust_env": trusts_environ(self.url)}

    def fetch(self, timeout_s: float) -> Grant:
        """Ask for a token; ``timeout_s`` bounds each phase of the call."""
        try:
            # A client per fetch: one call in many minutes needs no pool, and a pool would belong to one event loop.
            with httpx.Client(**self._options, timeout=timeout_s) as http:
                response = http.post(self.url, data=self._form, headers=self._headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        return self._read(response)

    async def fetch_async(self, timeout_s: float) -> Grant:
        """Ask for a token; ``timeout_s`` bounds each phase of the call."""
        try:
            async with httpx.AsyncClient(**self._options, timeout=timeout_s) as http:
                response = await http.post(self.url, data=self._form, headers=self._headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        return self._read(response)

    def _read(self, response: httpx.Response) -> Grant:
        """Check what came back (RFC 6749 sections 5.1 and 5.2)."""
        try:
            members = response.json()
        except (ValueError, RecursionError):
            members = None
        if not isinstance(members, dict):
            members = {}
        if response.status_code != 200:
            raise self._refusal(response, members)
        token, kind, life_s = members.get("access_token"), members.get("token_type"), members.get("expires_in")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token:
            raise TokenError("invalid_response", "The answer holds no access token.", status=200)
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise TokenError("invalid_response", "The answer holds no bearer token.", status=200)
        if isinstance(life_s, bool) or not isinstance(life_s, (int, float)) or not life_s > 0:
            life_s = UNSTATED_LIFE_S
        return Grant(token, min(float(life_s), LONGEST_LIFE_S))

    def _refusal(self, response: httpx.Response, members: dict[str, Any]) -> TokenError:
        error, said = members.get("error"), members.get("error_description")
        detail = said.replace(self._client_secret, "***")[:300] if isinstance(said, str) else ""
        return TokenError(
            error[:64] if isinstance(error, str) else "invalid_response",
            detail or f"{self.url} answered {response.status_code}.",
            status=response.status_code,
            retry_after_s=retry_after_s(response),
        )

    def _unreachable(self, error: Exception) -> TokenError:
        return TokenError("unreachable", f"{self.url} did not answer ({type(error).__name__}).")
