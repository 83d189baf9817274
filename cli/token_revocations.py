"""What ``flex token revoke`` and ``flex token inspect`` do with the revocation feed in the store."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import msgspec

from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.policy import LONGEST_TTL_S
from auth_server.keyring.published import published_keys
from auth_server.oauth.tokens import own_token
from auth_server.stores.revocations import note_written
from cli.session import Session, events_in_file, with_clients
from shared.access_token import LEEWAY_S, AccessToken
from shared.errors import AppError
from shared.key_sets import StaticKeySet, parse_key_set
from shared.revocations import entries
from shared.revocations.entries import Revocation
from shared.revocations.feed_key import load_or_create_feed_key
from shared.revocations.follower import FeedFollower
from shared.revocations.head import HEAD_KEY
from shared.revocations.revoked import Reason, RevokedSet
from shared.settings import Settings
from shared.store import connect, open_store, store_errors

_READ_TIMEOUT_S = 10.0
_BY_ID: dict[str, Callable[[str, float], Revocation]] = {
    "client": entries.client_revoked,
    "subject": entries.subject_revoked,
    "grant": entries.grant_revoked,
    "api_key": entries.api_key_revoked,
}


class Revoked(msgspec.Struct, frozen=True):
    """What was revoked (``value``: a jti or an id), and where it stands in the feed."""

    kind: str
    value: str
    epoch: str
    sequence: int
    stream_id: str


def revoke(kind: str, value: str) -> Revoked:
    """Write one revocation: of a ``token`` or ``jti``, or of everything of a client, subject, grant or api_key until
    now.
    """

    async def work(session: Session) -> Revoked:
        now = time.time()
        name = value if kind != "token" else _live_token(session.settings, value, now).token_id
        try:
            revocation = _BY_ID[kind](name, now) if kind in _BY_ID else entries.token_revoked(name, now + LONGEST_TTL_S)
        except ValueError:
            raise AppError("invalid_request", "An id has at most 512 bytes.") from None
        try:
            position = await session.feed.revoke(revocation)
        except AppError as error:
            raise AppError(error.code, error.detail) from None  # its sentence says what to do, its reason does not
        note_written(revocation, position, by="operator")
        return Revoked(kind, name, position.epoch.hex(), position.sequence, position.stream_id)

    return with_clients(work)


def reseal() -> int:
    """Open a new epoch of the feed with every authentic revocation that the store still holds; gives how many."""

    async def work(session: Session) -> int:
        return await session.feed.reseal()

    return with_clients(work)


def why_revoked(settings: Settings, token: AccessToken) -> Reason | None:
    """Read the whole feed and say why a verified token is revoked; None: it is not.

    Raises whatever keeps us from knowing; AppError not_found where this installation has no feed.
    """
    if not settings.feed_key_file.exists():
        raise AppError("not_found", "there is no feed key here")
    with events_in_file(settings.var_dir):
        return asyncio.run(_look_up(settings, token))


async def _look_up(settings: Settings, token: AccessToken) -> Reason | None:
    revoked = RevokedSet(LONGEST_TTL_S, LEEWAY_S)
    async with open_store(settings) as store:
        with store_errors():
            if not await store.exists(HEAD_KEY):
                raise AppError("not_found", "there is no feed in the store")
        key = load_or_create_feed_key(settings.feed_key_file)
        follower = FeedFollower(lambda: connect(settings), key, revoked, clock=time.time)
        following = asyncio.create_task(follower.follow())
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                await follower.wait_until_following()
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
    return revoked.is_revoked(entries.marks(token))


def _live_token(settings: Settings, raw_token: str, now: float) -> AccessToken:
    """Verify with the keys of the keys folder: no server is needed, and nobody's word is taken for a jti."""
    ring, _ = KeysFolder(settings.keys_dir, settings.keys_passphrase_file).read()
    keys = StaticKeySet(parse_key_set(published_keys(ring).body, settings.issuer))
    token = own_token(raw_token, keys, issuer=settings.issuer, now=now)
    if token is None:
        raise AppError("invalid_request", "This is no token of this issuer that anybody would take now.")
    return token
