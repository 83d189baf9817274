"""``/admin/v1/keys`` and ``/admin/v1/verifiers``: what ``flex keys`` does, for programs. Scope ``keys:manage``.

Nothing waits here: a rotation that is not safe yet is refused (409), naming what is missing, with ``Retry-After``.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeVar

import msgspec

from auth_server.endpoints.admin import AdminRequest, AdminRoute
from auth_server.key_announcements import push_revocations
from auth_server.keyring.changes import Change, RingChanges
from auth_server.keyring.confirmation import Reports
from auth_server.keyring.ring import KeyState
from auth_server.keyring.status import (
    ChangeReport,
    KeyStatus,
    RingStatus,
    VerifierStatus,
    change_report,
    ring_status,
    verifier_statuses,
)
from shared.errors import AppError
from shared.revocations.writer import RevocationFeed

SCOPE = "keys:manage"
_Kid = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class KeyList(RingStatus, frozen=True, kw_only=True):
    """All keys (``items`` and ``keys`` are the same list) with the verifiers, as ``flex keys status --json``."""

    items: tuple[KeyStatus, ...]
    next: None


class VerifierList(msgspec.Struct, frozen=True):
    """All verifiers that have reported (``items`` and ``verifiers`` are the same list)."""

    items: tuple[VerifierStatus, ...]
    next: None
    verifiers: tuple[VerifierStatus, ...]


class _Prepare(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bits: Literal[2048, 3072, 4096] | None = None


class _Rotate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    force: bool = False
    emergency: bool = False
    generation: int | None = None


class _Activate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kid: str = ""
    force: bool = False


class _Retire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kid: str = ""


class _Revoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kid: _Kid


_Body = TypeVar("_Body", _Prepare, _Rotate, _Activate, _Retire, _Revoke)


@dataclass(frozen=True, slots=True)
class AdminKeys:
    """The handlers. ``read_reports`` gives what the verifiers say, None where the store can't be read."""

    changes: RingChanges
    feed: RevocationFeed
    read_reports: Callable[[], Awaitable[Reports]]

    def routes(self) -> tuple[AdminRoute, ...]:
        """All of them."""
        base = "/admin/v1/keys"
        return (
            AdminRoute("GET", base, SCOPE, self.list_keys),
            AdminRoute("GET", "/admin/v1/verifiers", SCOPE, self.list_verifiers),
            AdminRoute("POST", f"{base}/prepare", SCOPE, self.prepare, body=_Prepare),
            AdminRoute("POST", f"{base}/rotate", SCOPE, self.rotate, body=_Rotate),
            AdminRoute("POST", f"{base}/activate", SCOPE, self.activate, body=_Activate),
            AdminRoute("POST", f"{base}/retire", SCOPE, self.retire, body=_Retire),
            AdminRoute("POST", f"{base}/revoke", SCOPE, self.revoke, body=_Revoke),
        )

    async def list_keys(self, request: AdminRequest) -> KeyList:
        """Show the ring: every key's state and next safe step, every verifier and what it holds."""
        reports = await self.read_reports()
        ring, _ = await asyncio.to_thread(self.changes.folder.read)
        seen = ring_status(ring, reports, request.now, self.changes.policy)
        return KeyList(**msgspec.structs.asdict(seen), items=seen.keys, next=None)

    async def list_verifiers(self, request: AdminRequest) -> VerifierList:
        """Show every verifier, what it holds and since when.

        Raises AppError store_unavailable where nobody knows them.
        """
        reports = await self.read_reports()
        if reports is None:
            raise AppError("store_unavailable", retry_after_s=1, reason="verifiers_unknown")
        verifiers = verifier_statuses(reports, request.now)
        return VerifierList(items=verifiers, next=None, verifiers=verifiers)

    async def prepare(self, request: AdminRequest) -> ChangeReport:
        """Publish one more standby key.

        ``bits``: default as the active key.
        """
        body, changes = _body(request, _Prepare), self._changes(request)
        return change_report(await asyncio.to_thread(lambda: _sized(changes, body.bits).prepare()))

    async def rotate(self, request: AdminRequest) -> ChangeReport:
        """Rotate if every verifier holds the next key; with emergency: drop the active key now.

        ``generation``: only if the ring still has it.
        """
        body, changes = _body(request, _Rotate), self._changes(request)
        ring, _ = await asyncio.to_thread(changes.folder.read)
        if body.generation is not None and ring.generation != body.generation:
            return change_report(Change(ring, ring, overtaken=True))
        seen = ring.active.kid
        if body.emergency:
            return await self._dropped(lambda: _sized(changes).rotate_in_emergency(seen_active=seen))
        reports = await self.read_reports()
        return change_report(
            await asyncio.to_thread(lambda: _sized(changes).rotate(seen_active=seen, reports=reports, force=body.force))
        )

    async def activate(self, request: AdminRequest) -> ChangeReport:
        """Let a standby key sign, by default the one published longest."""
        body, changes, reports = _body(request, _Activate), self._changes(request), await self.read_reports()
        return change_report(
            await asyncio.to_thread(lambda: _sized(changes).activate(body.kid, reports=reports, force=body.force))
        )

    async def retire(self, request: AdminRequest) -> ChangeReport:
        """Remove retired keys that no live token needs, or withdraw the standby key that is named."""
        body, changes = _body(request, _Retire), self._changes(request)
        return change_report(
            await asyncio.to_thread(lambda: _sized(changes).retire(body.kid) if body.kid else changes.sweep())
        )

    async def revoke(self, request: AdminRequest) -> ChangeReport:
        """Drop a compromised key at once, in the ring and at every verifier."""
        body, changes = _body(request, _Revoke), self._changes(request)
        return await self._dropped(lambda: _sized(changes).revoke(body.kid))

    def _changes(self, request: AdminRequest) -> RingChanges:
        return replace(self.changes, actor=request.caller.client_id)

    async def _dropped(self, drop: Callable[[], Change]) -> ChangeReport:
        """The ring first, then the feed; what can't be pushed now is pushed by the announcements when it can."""
        change = await asyncio.to_thread(drop)
        kids = [key.kid for key in change.moved_to(KeyState.REMOVED) if key.compromised]
        if not kids:
            return change_report(change)
        try:
            await push_revocations(self.feed, kids)
        except AppError:
            return change_report(change, pushed=False)
        return change_report(change, pushed=True)


def _sized(changes: RingChanges, n_bits: int | None = None) -> RingChanges:
    """Let new keys have ``n_bits``, or as many as the active one."""
    return replace(changes, n_bits=n_bits or changes.folder.read()[0].active.n_bits)


def _body(request: AdminRequest, kind: type[_Body]) -> _Body:
    try:
        return msgspec.convert({} if request.body is None else request.body, kind)
    except msgspec.ValidationError:
        raise AppError(
            "invalid_request", f"The body must be a JSON object with no other members than {_members(kind)}."
        ) from None


def _members(kind: type[msgspec.Struct]) -> str:
    return ", ".join(f"'{name}'" for name in kind.__struct_fields__)
