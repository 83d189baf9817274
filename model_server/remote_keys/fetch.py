"""One fetch of the issuer's key set: discovery (RFC 8414, OpenID Connect Discovery), then the JWK set.

Every request is bounded: 2 s in all (a slow drip too), 64 KiB, no redirects, no proxy of the environment, and the key
set is never fetched over plain http for an issuer that is https.
"""

import asyncio
import re
import ssl
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from shared.key_sets import MAX_BODY_BYTES
from shared.strict_json import decode_object

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 2.0
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


class FetchFailed(Exception):  # noqa: N818 - it says what happened
    """The issuer did not give what is needed; ``reason`` is one fixed word for log and metrics."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A JWK set's answer. ``body`` is not yet checked; None means that what is held is still good (304).

    ``max_age_s`` is the server's, None where it gave none.
    """

    body: bytes | None
    etag: str | None
    max_age_s: int | None


def open_client(issuer: str) -> "httpx.AsyncClient":
    """Make the HTTP client; slow (imports httpx, reads the CA bundle for an https issuer), so call it in a thread."""
    # httpx imports its command line if it can: 4 MiB of click, rich and pygments. None says that it can't.
    sys.modules.setdefault("httpx._main", cast("ModuleType", None))
    import httpx  # noqa: PLC0415 - 30 ms that a start must not wait for

    # Without CAs the context refuses every https server: right for an http issuer, which may name no https set.
    context = httpx.create_ssl_context() if issuer.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(
        verify=context,
        timeout=TIMEOUT_S,
        follow_redirects=False,
        trust_env=False,
        limits=httpx.Limits(max_connections=2),
    )


async def discover(client: "httpx.AsyncClient", issuer: str) -> str:
    """Find the issuer's ``jwks_uri``. Raises FetchFailed with the reason of the last place that was tried."""
    failure = FetchFailed("no_metadata")
    for url in metadata_urls(issuer):
        try:
            answer = await _get(client, url, {"accept": "application/json"})
            return _jwks_uri(answer.body or b"", issuer)
        except FetchFailed as problem:
            failure = problem
    raise failure


def metadata_urls(issuer: str) -> list[str]:
    """Where an issuer's metadata may be: RFC 8414 section 3.1 first, then as OpenID Connect Discovery has it."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    base = f"{parts.scheme}://{parts.netloc}"
    urls = [
        f"{base}/.well-known/oauth-authorization-server{path}",
        f"{base}{path}/.well-known/oauth-authorization-server",
        f"{base}{path}/.well-known/openid-configuration",
    ]
    return list(dict.fromkeys(urls))


def _jwks_uri(body: bytes, issuer: str) -> str:
    try:
        metadata = decode_object(body)
    except (ValueError, RecursionError):
        raise FetchFailed("bad_metadata") from None
    if metadata.get("issuer") != issuer:  # RFC 8414 section 3.3
        raise FetchFailed("metadata_of_another_issuer")
    uri = metadata.get("jwks_uri")
    if not isinstance(uri, str) or not _may_fetch(uri, issuer):
        raise FetchFailed("bad_jwks_uri")
    return uri


def _may_fetch(uri: str, issuer: str) -> bool:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    return (
        parts.scheme == urlsplit(issuer).scheme
        and bool(parts.hostname)
        and not (parts.username or parts.password or parts.fragment)
    )


async def fetch_key_set(client: "httpx.AsyncClient", jwks_uri: str, etag: str | None) -> Fetched:
    """Get the JWK set, or the news that ``etag`` still stands. Raises FetchFailed."""
    headers = {"accept": "application/jwk-set+json, application/json"}
    if etag is not None:
        headers["if-none-match"] = etag
    return await _get(client, jwks_uri, headers)


async def _get(client: "httpx.AsyncClient", url: str, headers: dict[str, str]) -> Fetched:
    import httpx  # noqa: PLC0415 - loaded by open_client

    headers["accept-encoding"] = "identity"
    try:
        async with asyncio.timeout(TIMEOUT_S), client.stream("GET", url, headers=headers) as answer:
            max_age = _MAX_AGE.search(answer.headers.get("cache-control", ""))
            max_age_s = int(max_age[1]) if max_age else None
            if answer.status_code == 304 and "if-none-match" in headers:
                return Fetched(None, headers["if-none-match"], max_age_s)
            if answer.status_code != 200:
                raise FetchFailed(f"status_{answer.status_code}")
            if "content-encoding" in answer.headers:  # asked for none; inflating would break the bound below
                raise FetchFailed("compressed")
            body = b""
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise FetchFailed("too_large")
            return Fetched(body, answer.headers.get("etag"), max_age_s)
    except TimeoutError:
        raise FetchFailed("time_out") from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as problem:
        raise FetchFailed("time_out" if isinstance(problem, httpx.TimeoutException) else "unreachable") from None
