"""A server with a feed of its own beside it, and a verifier of another maker that knows only drafts and published keys.

Used by tests only. Nothing here decodes with our own code: zlib, integers and PyJWT.
"""

import asyncio
import base64
import contextlib
import json
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import jwt
from redis.asyncio import Redis

from auth_server.endpoints.other_verifiers import other_verifiers
from auth_server.endpoints.statements import Knowledge
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import LONGEST_TTL_S, ring_policy
from auth_server.keyring.signer import Signer
from auth_server.stores.status_lists import StatusLists
from shared.access_token import LEEWAY_S, TokenRefused, verify_access_token
from shared.errors import AppError
from shared.http import HttpEdge, header
from shared.revocations.feed_key import load_or_create_feed_key
from shared.revocations.follower import FeedFollower
from shared.revocations.revoked import RevokedSet
from shared.revocations.writer import RevocationFeed
from shared.store import connect
from tests.auth_server.serving import Server


@dataclass
class Site:
    """A running server, a feed's writer and follower on its store, and what other verifiers are served from that."""

    server: Server
    http: httpx.AsyncClient
    store: Redis
    feed: RevocationFeed
    follower: FeedFollower
    revoked: RevokedSet
    signer: Signer
    following: asyncio.Task

    async def issue(self, made, **form) -> str:
        """A token, raw."""
        answer = await self.server.token(made, **form)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    async def revoke(self, revocation) -> None:
        """Write a revocation, and wait until the follower has it and a list may be computed again."""
        n_known = len(self.revoked)
        await self.feed.revoke(revocation)
        async with asyncio.timeout(5):
            while len(self.revoked) == n_known:
                await asyncio.sleep(0.001)
        await self.later(2)

    async def later(self, seconds) -> None:
        """Move the clock, with the heartbeats that a running feed would have sent."""
        self.follower._clock.advance(seconds)
        await self.feed.heartbeat()
        async with asyncio.timeout(5):
            while self.follower.staleness_s >= 1:
                await asyncio.sleep(0.001)

    async def verified(self, statement, typ) -> dict:
        """The claims of a statement, once its signature holds with the published key set."""
        jwks = (await self.server.http.get("/.well-known/jwks.json")).json()
        head = jwt.get_unverified_header(statement)
        assert (head["alg"], head["typ"]) == ("RS256", typ)
        key = next(jwt.PyJWK(each).key for each in jwks["keys"] if each["kid"] == head["kid"])
        options = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
        return jwt.decode(statement, key, algorithms=["RS256"], options=options)

    async def status(self, raw_token) -> int:
        """The status of a token, as a verifier of another maker finds it: 0 valid, 1 invalid."""
        entry = payload(raw_token)["status"]["status_list"]
        answer = await self.http.get(path(entry["uri"]))
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/statuslist+jwt"
        claims = await self.verified(answer.text, "statuslist+jwt")
        assert claims["sub"] == entry["uri"]
        return bit(claims, entry["idx"])


def payload(raw_token) -> dict:
    """What a token says, unverified."""
    text = raw_token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def path(uri) -> str:
    """The path of an address of the issuer."""
    return uri.removeprefix("http://127.0.0.1:9000")


def bit(claims, index) -> int:
    """One entry of a list. Raises LookupError beyond its end (a verifier must then refuse the token)."""
    listed = claims["status_list"]
    assert listed["bits"] == 1
    text = listed["lst"]
    compressed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    inflater = zlib.decompressobj()
    entries = inflater.decompress(compressed, 1_000_000)
    assert inflater.eof
    if not 0 <= index < len(entries) * 8:
        raise LookupError(index)
    return int.from_bytes(entries, "little") >> index & 1


@contextlib.asynccontextmanager
async def beside(server, clock, *, staleness=None, limit_s=900) -> AsyncIterator[Site]:
    """Build everything that the wiring needs, on the store and keys of a running server."""
    settings = server.settings
    feed_key = load_or_create_feed_key(settings.feed_key_file)
    store = connect(settings)
    revoked = RevokedSet(LONGEST_TTL_S, LEEWAY_S)
    follower = FeedFollower(lambda: connect(settings), feed_key, revoked, clock=clock)
    feed = RevocationFeed(store, feed_key, clock=clock, max_token_life_s=LONGEST_TTL_S, leeway_s=LEEWAY_S)
    await feed.heartbeat()
    following = asyncio.create_task(follower.follow())
    await asyncio.wait_for(follower.wait_until_following(), 5)
    signer = Signer.open(KeysFolder(settings.keys_dir), ring_policy(settings), issuer=settings.issuer, clock=clock)

    def authenticate(scope):
        raw_token = (header(scope, b"authorization") or b"").removeprefix(b"Bearer ")
        if not raw_token:
            raise AppError("unauthenticated")
        try:
            return verify_access_token(
                raw_token, signer, issuer=settings.issuer, audience=settings.issuer, now=clock()
            ).scopes
        except TokenRefused:
            raise AppError("invalid_token") from None

    async def nothing(scope, receive, send):
        raise AppError("not_found")

    app = other_verifiers(
        issuer=settings.issuer,
        lists=StatusLists(store, feed_key, max_token_life_s=LONGEST_TTL_S, leeway_s=LEEWAY_S),
        feed_key=feed_key,
        knowledge=Knowledge(revoked=revoked, staleness=staleness or (lambda: follower.staleness_s), limit_s=limit_s),
        signer=signer,
        clock=clock,
        authenticate=authenticate,
        otherwise=nothing,
    )
    wire = httpx.ASGITransport(HttpEdge(app, hot={}), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=wire, base_url="http://auth") as http:
        yield Site(server, http, store, feed, follower, revoked, signer, following)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await store.aclose()
