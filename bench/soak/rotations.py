"""The operator of the run: planned rotations one after another, some emergencies, and old keys put away.

A ring publishes at most sixteen keys, and a retired one stays for as long as tokens of it live: a quarter of an hour
for those that this run keeps. So that a hundred rotations fit into minutes, each retired key is dropped by ``flex keys
revoke`` as soon as no good caller can hold a token of it; the kept token must then be refused everywhere.
"""

import asyncio
import base64
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from bench.instance import Credentials
from bench.soak.issuer import Issuer, Refused
from bench.soak.site import AUTH, TOKEN_LIFE_S, CommandFailed, Done, Site
from bench.soak.timeline import BOUND_S, Timeline
from bench.soak.trials import Trials

TAKEOVER_S = 3.0  # until every process of the auth server signs with the new key, and a little more
MAX_WAITING = 12  # retired keys that may wait for their end: fewer than a key set takes
RETRY_S = 1.0
WAIT_TIMEOUT_S = 100


@dataclass(frozen=True, slots=True)
class RetiredKey:
    """A key that signs no more, since when, and a token that it signed (empty: none was kept)."""

    kid: str
    retired_at: float
    token: str


@dataclass(slots=True)
class Rotations:
    """Rotates until ``n_planned`` planned and ``n_emergency`` emergency rotations are done.

    ``trials`` None: nobody watches the tokens of dropped keys. ``witness`` is the client whose tokens are kept.
    """

    site: Site
    timeline: Timeline
    trials: Trials | None
    issuer: Issuer
    witness: Credentials
    scope: str
    n_planned: int
    n_emergency: int
    planned: int = 0
    emergencies: int = 0
    dropped: int = 0
    _retired: deque[RetiredKey] = field(default_factory=deque)

    @property
    def done(self) -> bool:
        """Whether all were made."""
        return self.planned >= self.n_planned and self.emergencies >= self.n_emergency

    async def run(self, stop: asyncio.Event) -> None:
        """Rotate until done or told to stop."""
        while not stop.is_set() and not self.done:
            try:
                await self._put_away()
                if len(self._retired) >= MAX_WAITING:
                    await asyncio.sleep(0.5)
                elif self.emergencies < self.n_emergency and self.planned >= self._planned_before_next_emergency():
                    await self._emergency()
                else:
                    await self._rotate()
            except (CommandFailed, Refused) as refusal:
                self.timeline.mark("refused", self.site.named(str(refusal))[:300])
                await asyncio.sleep(RETRY_S)

    def _planned_before_next_emergency(self) -> int:
        """The first comes at once, when all tokens are of one key; the others are spread evenly over the run."""
        return self.emergencies * self.n_planned // self.n_emergency

    async def _rotate(self) -> None:
        began = self.timeline.now()
        token = asyncio.create_task(self._token_of_active_key())
        try:
            done = await self.site.flex("keys", "rotate", "--wait-timeout", str(WAIT_TIMEOUT_S))
            kept = await token
        finally:
            token.cancel()
        self.planned += 1
        told = self.site.named(done.said).splitlines()
        self.timeline.mark("rotation", told[-1][:300] if told else "planned", since=began)
        now = self.timeline.now()
        for kid in _kids(done, "retired"):
            self._retired.append(RetiredKey(kid, now, kept if kid_of(kept) == kid else ""))

    async def _emergency(self) -> None:
        await self._until_confirmed()
        began = self.timeline.now()
        self.timeline.emergencies.append((began, began + WAIT_TIMEOUT_S))
        try:
            await self._drop("emergency", await self._witness_token(), "rotate", "--emergency")
        finally:
            self.timeline.emergencies[-1] = (began, self.timeline.now())
        self.emergencies += 1
        self.timeline.mark("emergency", "the active key was revoked", since=began)

    async def _put_away(self) -> None:
        """Drop the keys of which no good caller holds a token any more."""
        while self._retired and self.timeline.now() > self._retired[0].retired_at + TOKEN_LIFE_S + TAKEOVER_S:
            key = self._retired[0]
            try:
                await self._drop("kid", key.token, "revoke", key.kid)
                self.dropped += 1
            except CommandFailed as refusal:
                if "removed already" not in str(refusal):  # a rotation may have swept it
                    raise
            self._retired.popleft()

    async def _drop(self, kind: str, token: str, *command: str) -> None:
        """Drop a key with ``flex keys …`` and follow a token of it until every worker refuses it."""

        async def revoke() -> float:
            done = await self.site.flex("keys", *command)
            # Without the store a command can only tell the auth server, which has to reach the store itself.
            return self.timeline.now() if done.answer.get("pushed", True) else await self._pushed()

        watch: Callable[[Callable[[], Awaitable[float]]], Awaitable[object]]
        if self.trials is not None and token:
            trials = self.trials
            watch = lambda act: trials.follow(kind, token, act)  # noqa: E731 - one of two short ways
        else:
            watch = lambda act: act()  # noqa: E731
        await watch(revoke)

    async def _pushed(self) -> float:
        """When the auth server must have pushed what a command could not: the bound after it reaches the store."""
        while self.timeline.cut_off(AUTH):  # noqa: ASYNC110 - a record that others write
            await asyncio.sleep(0.05)
        return self.timeline.now() + BOUND_S

    async def _token_of_active_key(self) -> str:
        """Wait until certainly the active key signs, and keep a token of it; empty if none is to be had."""
        await asyncio.sleep(TAKEOVER_S - 0.5)
        try:
            return await self._witness_token()
        except Refused:
            return ""

    async def _witness_token(self) -> str:
        return await self.issuer.token(self.witness, self.scope)

    async def _until_confirmed(self) -> None:
        """Wait until a standby key can take over without anybody noticing."""
        until = self.timeline.now() + WAIT_TIMEOUT_S
        while self.timeline.now() < until:
            done = await self.site.flex("keys", "status")
            keys = msgspec.convert(done.answer["keys"], list[dict[str, object]])
            if any(key["state"] == "confirmed" for key in keys):
                return
            await asyncio.sleep(RETRY_S)
        raise CommandFailed("no standby key was confirmed in time for an emergency rotation")


def _kids(done: Done, member: str) -> list[str]:
    return msgspec.convert(done.answer.get(member, []), list[str])


def kid_of(token: str) -> str:
    """The kid that a token's header names; empty for no token."""
    head = token.partition(".")[0]
    raw = base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))
    return str(msgspec.json.decode(raw)["kid"]) if raw else ""
