"""What a running server signs with: the active private key in memory, and the published key set as ready bytes.

A signer signs ``exp`` up to the high-water mark that is durable in the manifest and never beyond, and looks at the
manifest (one ``stat``, 1.4 µs) before each signature; so a retired key signs nothing more once the ring was replaced,
and the mark of a removed key was always above everything it signed.

A long file, because everything that holds a private key in memory is one class.
"""

import asyncio
import os
import resource
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from auth_server.keyring import changes, material
from auth_server.keyring.canaries import canary_claims
from auth_server.keyring.files import Fingerprint, fingerprint
from auth_server.keyring.folder import KeysFolder
from auth_server.keyring.published import PublishedKeys, published_keys
from auth_server.keyring.ring import KeyPolicy, KeyRing, KeyState, reservation
from shared import base64url
from shared.errors import AppError
from shared.events import Event, emit
from shared.key_sets import VerificationKey, parse_key_set

POLL_S = 0.5
_CLOCK_SLACK_S = 60
_RS256 = RSAAlgorithm(RSAAlgorithm.SHA256)
_encode = msgspec.json.Encoder().encode


class Statement(StrEnum):
    """What the issuer signs besides tokens, as the ``typ`` of the header; no verifier takes one for the other."""

    STATUS_LIST = "statuslist+jwt"
    REVOCATIONS = "revocations+jwt"


@dataclass(frozen=True, slots=True)
class _Held:
    """One generation as this process uses it; replaced as a whole, in one assignment."""

    ring: KeyRing
    seen: Fingerprint
    header: bytes
    private: rsa.RSAPrivateKey
    bound_at: float
    verifying: Mapping[str, VerificationKey]
    published: PublishedKeys


class Signer:
    """Signs access tokens with the active key of a keys folder and follows that folder's changes.

    Make one with :meth:`open`. It is also the ``KeySet`` of the auth server itself: its keys are bound to ``issuer``.
    ``clock`` gives UTC seconds. Private keys are loaded once each and held: those of active and standby keys only.
    """

    def __init__(
        self, folder: KeysFolder, policy: KeyPolicy, *, issuer: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._policy = policy
        self.issuer = issuer
        self._clock = clock
        self._manifest = str(folder.manifest_path)
        self._mutex = threading.Lock()
        self._private: dict[str, rsa.RSAPrivateKey] = {}
        self._preloaded = self._told = 0
        self._problem = ""
        self._held = self._load()

    @classmethod
    def open(
        cls, folder: KeysFolder, policy: KeyPolicy, *, issuer: str, clock: Callable[[], float] = time.time
    ) -> Self:
        """Load the ring strictly: blocks for about 50 ms a key. Core dumps are switched off: they would hold the keys.

        Raises AppError keys_unavailable, with the cause in ``reason``, if a file is missing, changed, a link, of a
        foreign owner or open to others.
        """
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        ring, _ = folder.read()
        folder.check_pems(ring)
        signer = cls(folder, policy, issuer=issuer, clock=clock)
        signer.refresh(clock() + policy.ttl_s)
        signer.preload()
        return signer

    @property
    def signing_ready(self) -> bool:
        """Whether a token of full length may be signed and the folder could be followed when last looked at."""
        return not self._problem and self._held.bound_at >= self._clock() + self._policy.ttl_s

    @property
    def ring(self) -> KeyRing:
        """The ring as this process knows it."""
        return self._held.ring

    def jwks(self) -> PublishedKeys:
        """The key set to publish; computed once a generation."""
        return self._held.published

    def get(self, kid: str) -> VerificationKey | None:
        """The public key of a published kid, or None."""
        return self._held.verifying.get(kid)

    def sign(self, claims: Mapping[str, object]) -> str:
        """Sign an access token (RFC 9068): 0.4 ms for RSA-2048. ``claims`` must have ``exp`` in UTC seconds.

        Where the ring has to be read again or the reservation raised first, this blocks on the disk; on an event loop
        use ``SigningQueue``. Raises AppError keys_unavailable if no durable ring allows it, ValueError for an ``exp``
        beyond the longest life of a token.
        """
        token = self.sign_if_ready(claims)
        if token is None:
            self.refresh(_expiry(claims))
            token = self.sign_if_ready(claims)
        if token is None:
            raise material.unusable("the key ring changed again while it was read")
        return token

    def sign_if_ready(self, claims: Mapping[str, object]) -> str | None:
        """As :meth:`sign`, but gives None where the disk is needed first (then call :meth:`refresh`)."""
        held = self._held_for(_expiry(claims))
        return None if held is None else _signed(held.header, claims, held.private)

    def sign_statement(self, kind: Statement, claims: Mapping[str, object]) -> str:
        """Sign something that is no token, with the active key and ``typ`` = ``kind``; else as :meth:`sign`."""
        exp = _expiry(claims)
        held = self._held_for(exp)
        if held is None:
            self.refresh(exp)
            held = self._held_for(exp)
        if held is None:
            raise material.unusable("the key ring changed again while it was read")
        return _signed(_header(held.ring.active.kid, kind), claims, held.private)

    def _held_for(self, exp: float) -> _Held | None:
        """What to sign with until ``exp``; None where the disk is needed first."""
        if exp > self._clock() + self._policy.longest_ttl_s + _CLOCK_SLACK_S:
            raise ValueError("exp is beyond the longest life of a token")
        held = self._held
        return None if exp > held.bound_at or not self._is_current() else held

    def canaries(self) -> tuple[int, dict[str, str]]:
        """Sign a canary with every key that signs or may sign next: the ring's generation, and the tokens by kid.

        Verifiers prove with them that they hold a key. Their audience is no resource, so they open nothing, and no
        high-water mark counts them. 0.4 ms a key, and the disk where one is not loaded yet: call it in a thread.
        """
        if self._preloaded != self._held.ring.generation:
            self.preload()
        with self._mutex:
            ring, private = self._held.ring, dict(self._private)
        now = int(self._clock())
        return ring.generation, {
            key.kid: _signed(_header(key.kid), canary_claims(self.issuer, now), private[key.kid])
            for key in ring.keys
            if key.state in _SIGNING_SOON and key.kid in private
        }

    def refresh(self, exp: float = 0.0) -> None:
        """Take over the ring on disk and make sure that ``exp`` may be signed; blocks on the disk and its lock.

        Raises AppError keys_unavailable, also if the lock is not free in time; the ring in memory then stays as it is.
        """
        with self._mutex:
            for _ in range(3):  # a rotation may slip in between; twice in a row is no accident
                if not self._is_current():
                    self._held = self._load()
                if exp <= self._held.bound_at:
                    return
                self._reserve(reservation(self._clock(), self._policy, exp))
                self._held = self._load()
        raise material.unusable("no reservation could be made: the key ring keeps changing")

    def _reserve(self, until: float) -> None:
        try:
            changes.reserve(self._folder, self._held.ring.active.kid, until)
        except AppError as refusal:
            raise material.unusable(changes.explanation(refusal)) from refusal

    def preload(self) -> None:
        """Load standby private keys ahead of their activation and forget those that sign no more. Blocks."""
        with self._mutex:
            wanted = {key.kid: key for key in self._held.ring.keys if key.state in _SIGNING_SOON}
            loaded = {kid: self._private.get(kid) or self._folder.private_key(key) for kid, key in wanted.items()}
            self._private = loaded
            self._preloaded = self._held.ring.generation

    async def watch(self, poll_s: float = POLL_S) -> None:
        """Follow the folder until cancelled: new generations, and the reservation ahead of need.

        A problem is told once, and tried again at the next poll; what is held in memory stays.
        """
        while True:
            try:
                await self._follow()
                self._problem = ""
            except AppError as error:
                problem = changes.explanation(error)
                if problem != self._problem:
                    emit(Event.KEY_RING_PROBLEM, reason=problem, generation=self._held.ring.generation)
                self._problem = problem
            await asyncio.sleep(poll_s)

    async def _follow(self) -> None:
        if not self._is_current() or self._reserve_soon():
            await asyncio.to_thread(self.refresh, self._reserve_below())
        ring = self._held.ring
        if self._told != ring.generation:
            self._told = ring.generation
            emit(
                Event.KEY_RING_LOADED, generation=ring.generation, kid=ring.active.kid, n_published=len(ring.published)
            )
        if self._preloaded != ring.generation:
            await asyncio.to_thread(self.preload)

    def _reserve_below(self) -> float:
        return self._clock() + self._policy.ttl_s + self._policy.reserve_s / 2

    def _reserve_soon(self) -> bool:
        return self._held.bound_at < self._reserve_below()

    def _is_current(self) -> bool:
        try:
            return fingerprint(os.stat(self._manifest)) == self._held.seen  # noqa: PTH116 - a Path costs a third more
        except OSError:
            return False

    def _load(self) -> _Held:
        ring, seen = self._folder.read()
        active = ring.active
        private = self._private.get(active.kid) or self._folder.private_key(active)
        self._private[active.kid] = private
        published = published_keys(ring)
        return _Held(
            ring=ring,
            seen=seen,
            header=_header(active.kid),
            private=private,
            bound_at=active.last_expiry_at,
            verifying=parse_key_set(published.body, self.issuer),
            published=published,
        )


_SIGNING_SOON = frozenset({KeyState.ACTIVE, KeyState.STANDBY})


def _header(kid: str, typ: str = "at+jwt") -> bytes:
    return base64url.encode(_encode({"alg": "RS256", "typ": typ, "kid": kid})) + b"."


def _signed(header: bytes, claims: Mapping[str, object], private: rsa.RSAPrivateKey) -> str:
    signed = header + base64url.encode(_encode(claims))
    return (signed + b"." + base64url.encode(_RS256.sign(signed, private))).decode("ascii")


def _expiry(claims: Mapping[str, object]) -> float:
    exp = claims["exp"]
    if not isinstance(exp, int | float):
        raise TypeError("exp must be a number")
    return exp
