"""``/admin/v1/usage``: who used what, by client, attribute and day, and scopes that nobody used."""

import datetime as dt
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from auth_server.endpoints.admin import AdminRequest, AdminRoute
from auth_server.records import Client
from auth_server.stores.clients import Clients
from shared.errors import AppError
from shared.scopes import covers
from shared.usage import BUCKETS, COUNTS, Counts, UsageLedger, UsageLine, day_of, days_between

SCOPE = "usage:read"
UNUSED_DAYS = 90
DEFAULT_DAYS = 30
_PAGE = 200
_PARAMETERS = ("client", "attribute", "from", "to", "by_day", "limit", "cursor")


class UsageView(msgspec.Struct, frozen=True):
    """What one client did with one attribute (``*``: profiles), over the days asked for or, by day, on one.

    ``calls`` are all that were answered; ``ok``, ``invalid``, ``denied``, ``limited`` and ``failed`` divide them.
    ``buckets`` are calls by answer time, ``time_us`` the sum of the times.
    """

    client_id: str
    attribute: str
    day: str | None
    calls: int
    ok: int
    invalid: int
    denied: int
    limited: int
    failed: int
    rows: int
    explanations: int
    time_us: int
    buckets: dict[str, int]


class UsagePage(msgspec.Struct, frozen=True):
    """One page; ``next`` is null on the last."""

    items: list[UsageView]
    next: str | None


class UnusedScopes(msgspec.Struct, frozen=True):
    """Scopes that a client holds and did not need from the day ``since`` on: 90 days ago, or when it was made."""

    client_id: str
    scopes: list[str]
    since: str


class Usage:
    """The handlers; each takes an authorized request and gives what is to be encoded."""

    def __init__(self, ledger: UsageLedger, clients: Clients) -> None:
        self._ledger = ledger
        self._clients = clients

    def routes(self) -> tuple[AdminRoute, ...]:
        """All of them."""
        return (
            AdminRoute("GET", "/admin/v1/usage", SCOPE, self.totals, query=_PARAMETERS),
            AdminRoute("GET", "/admin/v1/usage/unused-scopes", SCOPE, self.unused, query=("cursor",)),
        )

    async def totals(self, request: AdminRequest) -> UsagePage:
        """Show calls, rows, explanations, refusals and times by client and attribute, in all or by_day (true).

        ``from`` and ``to`` are days as 2027-01-15 (UTC); the last 30 days if none are named. ``limit`` counts clients.
        Raises AppError invalid_request.
        """
        query = request.query
        if not set(_PARAMETERS).issuperset(query):
            raise AppError("invalid_request", f"Known parameters: {', '.join(sorted(_PARAMETERS))}.")
        last = query.get("to") or day_of(request.now)
        try:
            days = days_between(query.get("from") or _days_before(last, DEFAULT_DAYS - 1), last)
            limit = int(query.get("limit", "100"))
        except ValueError:
            raise AppError("invalid_request", "from and to are days such as 2027-01-15, at most 100 apart.") from None
        by_day = query.get("by_day") == "true"
        page = await self._ledger.page(
            days,
            client_id=query.get("client", ""),
            attribute=query.get("attribute", ""),
            by_day=by_day,
            cursor=query.get("cursor", ""),
            limit=max(1, min(limit, _PAGE)),
        )
        items = [view(line, counts, by_day=by_day) for line, counts in page.lines]
        return UsagePage(items, page.next_cursor or None)

    async def unused(self, request: AdminRequest) -> dict[str, Any]:
        """List the scopes that clients were granted and did not use in 90 days."""
        page = await self._clients.page(request.query.get("cursor", ""), _PAGE)
        unused = await unused_scopes(page.clients, self._ledger, request.now)
        return {"items": unused, "days": UNUSED_DAYS, "next": page.next_cursor or None}


def view(line: UsageLine, counts: Counts, *, by_day: bool) -> UsageView:
    """Give the counts as they are shown."""
    named = dict(zip(COUNTS, counts, strict=True))
    buckets = {name: named.pop(name) for name in BUCKETS}
    calls = sum(named[outcome] for outcome in ("ok", "invalid", "denied", "limited", "failed"))
    day = line.day if by_day else None
    return UsageView(line.client_id, line.attribute, day, calls=calls, buckets=buckets, **named)


def last_days(now: float, n_days: int) -> list[str]:
    """So many days, today the last."""
    today = day_of(now)
    return days_between(_days_before(today, n_days - 1), today)


async def all_clients(clients: Clients) -> AsyncIterator[Client]:
    """Every client, page by page."""
    cursor = ""
    while True:
        page = await clients.page(cursor, _PAGE)
        for client in page.clients:
            yield client
        if not (cursor := page.next_cursor):
            return


async def unused_scopes(clients: Sequence[Client], ledger: UsageLedger, now: float) -> list[UnusedScopes]:
    """For each client the scopes it holds and did not need in 90 days, or since it is there.

    ``predict:*`` was needed if any attribute was predicted, even where a narrower scope allowed it too.
    """
    first = last_days(now, UNUSED_DAYS)[0]
    used = await ledger.scopes_used([client.client_id for client in clients])
    found = []
    for client in clients:
        lately = [scope for scope, day in used[client.client_id].items() if day >= first]
        if unused := _not_needed(client.scopes, lately):
            found.append(UnusedScopes(client.client_id, unused, max(first, day_of(client.created_at))))
    return found


def _not_needed(held: Iterable[str], used: Sequence[str]) -> list[str]:
    return [scope for scope in held if not any(covers([scope], each) for each in used)]


def _days_before(day: str, n_days: int) -> str:
    return (dt.date.fromisoformat(day) - dt.timedelta(days=n_days)).isoformat()
