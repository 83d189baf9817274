"""Follow one issuer's key set from one background task.

A request only ever reads what is held: ``get`` costs a dictionary look-up and a glance at the clock. The task refreshes
at 80 % of the set's soft age, backs off when the issuer is away and goes on with the last good set until its hard age.

A long file, because all of it changes the same ring; what can be decided without I/O is in :mod:`.vanished`.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from model_server.remote_keys import last_good, vanished
from model_server.remote_keys.fetch import FetchFailed, discover, fetch_key_set, open_client
from model_server.remote_keys.vanished import KeptKey, KeyFeed
from shared import events
from shared.errors import AppError
from shared.events import Event
from shared.key_sets import KeySetRefused, VerificationKey, parse_key_set
from shared.telemetry import KEY_SET_AGE, KEY_SET_FETCHES, KEYS_KEPT

if TYPE_CHECKING:
    import httpx

UNKNOWN_KID_PAUSE_S = 30.0
LONGEST_SOFT_AGE_S = 900
METADATA_MAX_AGE_S = 3600.0
SAVE_AGAIN_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class KeyRing:
    """One state of the issuer's keys. ``generation`` grows with every change of the keys, not with every refresh.

    ``kept`` are keys that the issuer's set no longer has (:mod:`.vanished`).
    """

    generation: int
    by_kid: dict[str, VerificationKey]
    confirmed_at: float
    kept: dict[str, KeptKey] = field(default_factory=dict)


def refresh_in_s(max_age_s: int | None, ceiling_s: int, chance: float) -> float:
    """Seconds until the next planned fetch: 80 % of the soft age, give or take a tenth by ``chance`` (0 to 1).

    The soft age is the server's max-age (``ceiling_s`` where it gave none), from 1 s to the smaller of ``ceiling_s``
    and 15 minutes.
    """
    ceiling = min(ceiling_s, LONGEST_SOFT_AGE_S)
    soft_age_s = ceiling if max_age_s is None else min(max(max_age_s, 1), ceiling)
    return 0.8 * soft_age_s * (0.9 + 0.2 * chance)


def retry_in_s(n_failures: int, *, holds_keys: bool, chance: float) -> float:
    """Seconds until the next fetch after ``n_failures`` in a row: doubling, 1 s to 5 min; 0.1 s to 5 s with no keys."""
    first, longest = (1.0, 300.0) if holds_keys else (0.1, 5.0)
    return float(min(first * 2 ** min(n_failures - 1, 20), longest) * (0.9 + 0.2 * chance))


class RemoteKeys:
    """The keys of ``issuer``, kept fresh by :meth:`run`; a ``KeySet``.

    ``soft_max_age_s`` bounds how long a set is used without asking again while the issuer answers,
    ``max_stale_s`` how long while it does not. ``clock`` gives UTC seconds, ``open_client`` makes the HTTP client (it
    is called in a thread), ``on_change`` is called after the keys have changed. With a revocation ``feed``, a key that
    vanishes from the issuer's set is kept for as long as its tokens may live; without one it goes at once.
    """

    def __init__(
        self,
        issuer: str,
        *,
        file: Path,
        soft_max_age_s: int,
        max_stale_s: float,
        clock: Callable[[], float],
        feed: KeyFeed | None = None,
        open_client: "Callable[[str], httpx.AsyncClient]" = open_client,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._issuer = issuer
        self._file = file
        self._soft_max_age_s = soft_max_age_s
        self._max_stale_s = max_stale_s
        self._clock = clock
        self._feed = feed
        self._open_client = open_client
        self._chance = chance
        self._ring: KeyRing | None = None
        self._wanted = asyncio.Event()
        self._tried = asyncio.Event()
        self._wanted_at: float | None = None
        self._jwks_uri: tuple[str, float] | None = None
        self._etag: str | None = None
        self._body = b""
        self._n_failures = 0
        self._saved_at = 0.0

    @property
    def ring(self) -> KeyRing | None:
        """What is held now, fresh or not."""
        return self._ring

    @property
    def usable(self) -> bool:
        """Whether a set is held that is not older than the hard age."""
        return self._ring is not None and self._clock() < self._ring.confirmed_at + self._max_stale_s

    @property
    def held(self) -> dict[str, VerificationKey]:
        """The keys that :meth:`get` would give now, kept ones too; none beyond the hard age."""
        ring, now = self._ring, self._clock()
        if ring is None or not self.usable:
            return {}
        kept = {kid: key for kid in ring.kept if (key := self._kept(ring, kid, now)) is not None}
        return ring.by_kid | kept

    def get(self, kid: str) -> VerificationKey | None:
        """Give the key of that id; None asks the task for a refetch, at most once in 30 s, and does not wait for it.

        Raises AppError ``keys_unavailable`` while no set is held, or only one beyond its hard age.
        """
        ring, now = self._ring, self._clock()
        if ring is None or now >= ring.confirmed_at + self._max_stale_s:
            raise AppError("keys_unavailable", retry_after_s=5)
        key = ring.by_kid.get(kid)
        if key is None:
            self._want_refetch()
            key = self._kept(ring, kid, now)
        return key

    def _kept(self, ring: KeyRing, kid: str, now: float) -> VerificationKey | None:
        one, feed = ring.kept.get(kid), self._feed
        if one is None or feed is None or now >= one.until or not feed.is_fresh() or feed.is_revoked(kid):
            return None
        return one.key

    def load_last_good(self) -> None:
        """Take over the set on disk, if there is one of this issuer that may be trusted."""
        try:
            stored = last_good.load(self._file, self._issuer)
            if stored is None:
                return
            now = self._clock()
            by_kid = parse_key_set(stored.jwks.encode(), self._issuer)
            kept = vanished.from_text(stored.kept_jwks, stored.kept_until, self._issuer, now)
        except (last_good.KeySetFileProblem, KeySetRefused) as problem:
            events.emit(Event.KEY_SET_REFUSED, issuer=self._issuer, source="disk", reason=problem.reason)
            return
        self._ring = KeyRing(1, by_kid, min(stored.fetched_at, now), vanished.still_kept(kept, by_kid, self._feed, now))
        self._body = stored.jwks.encode()
        self._announce("disk", saved=True)

    async def wait_for_keys(self, at_most_s: float) -> None:
        """Wait until a set is held, or the first fetch has failed, or the time is up.

        One worker of several must not take calls that its siblings could answer.
        """
        if not self.usable:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(at_most_s):
                    await self._tried.wait()

    async def run(self) -> None:
        """Follow the issuer until cancelled."""
        async with await self._opened() as client:
            while True:
                delay_s = await self.refresh(client)
                self._tried.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._wanted.wait()
                self._wanted.clear()

    async def _opened(self) -> "httpx.AsyncClient":
        while True:
            try:
                return await asyncio.to_thread(self._open_client, self._issuer)
            except Exception as problem:  # noqa: BLE001 - for example a CA bundle that can't be read
                await asyncio.sleep(self._failed("failed", Event.INTERNAL_ERROR, type(problem).__name__))

    async def refresh(self, client: "httpx.AsyncClient") -> float:
        """Fetch once, take over what is good, and give the seconds until the next fetch. Never raises but cancelled."""
        try:
            max_age_s = await self._fetch(client)
        except FetchFailed as problem:
            return self._failed("failed", Event.KEY_SET_UNREACHABLE, problem.reason)
        except KeySetRefused as problem:
            return self._failed("refused", Event.KEY_SET_REFUSED, problem.reason)
        except Exception as problem:  # noqa: BLE001 - a task that dies would freeze the keys for ever
            return self._failed("failed", Event.INTERNAL_ERROR, type(problem).__name__)
        self._n_failures = 0
        KEY_SET_AGE.set(0)
        KEYS_KEPT.set(len(self._ring.kept) if self._ring is not None else 0)
        return refresh_in_s(max_age_s, self._soft_max_age_s, self._chance())

    def _want_refetch(self) -> None:
        now = self._clock()
        if self._wanted_at is None or not 0 <= now - self._wanted_at < UNKNOWN_KID_PAUSE_S:
            # Stamped before the fetch: one that hangs or fails counts like one that works.
            self._wanted_at = now
            self._wanted.set()

    async def _fetch(self, client: "httpx.AsyncClient") -> int | None:
        jwks_uri = await self._discovered(client)
        fetched = await fetch_key_set(client, jwks_uri, self._etag if self._ring is not None else None)
        now = self._clock()
        if fetched.body is None and self._ring is not None:
            changed = self._adopt(self._ring.by_kid, now)
        else:
            body = fetched.body or b""
            changed = self._adopt(parse_key_set(body, self._issuer), now)
            self._body, self._etag = body, fetched.etag
        KEY_SET_FETCHES.labels("changed" if changed else "unchanged").inc()
        saved = await self._save(now) if changed or now >= self._saved_at + SAVE_AGAIN_AFTER_S else True
        if changed:
            self._announce("issuer", saved=saved)
        return fetched.max_age_s

    async def _discovered(self, client: "httpx.AsyncClient") -> str:
        now = self._clock()
        if self._jwks_uri is None or not 0 <= now - self._jwks_uri[1] < METADATA_MAX_AGE_S:
            uri = await discover(client, self._issuer)
            if self._jwks_uri is None or self._jwks_uri[0] != uri:
                self._etag = None  # an entity tag belongs to one address
            self._jwks_uri = (uri, now)
        return self._jwks_uri[0]

    def _adopt(self, by_kid: dict[str, VerificationKey], now: float) -> bool:
        """Swap the ring in one assignment; keys that stay keep their identity, by which verified tokens know them."""
        held = self._ring
        if held is not None and held.by_kid == by_kid:
            self._ring = replace(held, confirmed_at=now, kept=vanished.still_kept(held.kept, by_kid, self._feed, now))
            return False
        known = held.by_kid | {kid: one.key for kid, one in held.kept.items()} if held is not None else {}
        same = {kid: known[kid] if known.get(kid) == key else key for kid, key in by_kid.items()}
        kept = self._keep_vanished(held, by_kid, now) if held is not None else {}
        self._ring = KeyRing(held.generation + 1 if held is not None else 1, same, now, kept)
        self.on_change()
        return True

    def _keep_vanished(self, held: KeyRing, by_kid: dict[str, VerificationKey], now: float) -> dict[str, KeptKey]:
        trusted = held.by_kid if self.usable else {}  # beyond its hard age nobody says that a key is still good
        kept = vanished.keep_vanished(held.kept, trusted, by_kid, self._feed, now)
        if new := [kid for kid in kept if kid not in held.kept]:
            events.emit(Event.KEY_VANISHED, issuer=self._issuer, kids=new, kept_s=vanished.KEEP_S)
        return kept

    def _failed(self, result: str, event: Event, reason: str) -> float:
        self._n_failures += 1
        self._jwks_uri = None  # the address may have moved: ask the metadata again
        self._etag = None
        KEY_SET_FETCHES.labels(result).inc()
        events.emit(event, issuer=self._issuer, source="issuer", reason=reason, n_failures=self._n_failures)
        if self._ring is not None:
            KEY_SET_AGE.set(self._clock() - self._ring.confirmed_at)
            if not self.usable:
                events.emit(Event.KEY_SET_STALE, issuer=self._issuer, max_stale_s=self._max_stale_s)
        return retry_in_s(self._n_failures, holds_keys=self.usable, chance=self._chance())

    async def _save(self, now: float) -> bool:
        kept = self._ring.kept if self._ring is not None else {}
        until = {kid: one.until for kid, one in kept.items()}
        stored = last_good.StoredKeySet(self._issuer, now, self._body.decode(), vanished.to_text(kept), until)
        try:
            await asyncio.to_thread(last_good.save, self._file, stored)
        except OSError:
            return False
        self._saved_at = now
        return True

    def _announce(self, source: str, *, saved: bool) -> None:
        if self._ring is not None:
            generation, kids = self._ring.generation, list(self._ring.by_kid)
            events.emit(
                Event.KEY_SET_REFRESHED,
                issuer=self._issuer,
                source=source,
                generation=generation,
                kids=kids,
                saved=saved,
            )
