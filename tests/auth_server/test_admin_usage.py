"""The usage handlers of the admin API, on a real store."""

from dataclasses import dataclass, field

import msgspec
import pytest

from auth_server.endpoints.admin_usage import Usage
from shared.errors import AppError
from shared.usage import COUNTS, UsageLedger, UsageLine
from tests.auth_server.serving import serving

NOW = 1_800_000_000.0
DAYS = ("2027-01-13", "2027-01-14", "2027-01-15")


@dataclass
class Request:
    """What a handler reads."""

    query: dict = field(default_factory=dict)
    now: float = NOW


@pytest.fixture
async def usage(settings, clock):
    """The handlers, with three days of two clients' usage."""
    async with serving(settings, clock) as server:
        ledger = UsageLedger(server.clients._store)
        counts = [1] * len(COUNTS)
        lines = {UsageLine(day, client, "grit"): counts for day in DAYS for client in ("a", "b")}
        await ledger.add("writer", 1, lines | {UsageLine(DAYS[2], "a", "calm"): counts})
        yield Usage(ledger, server.clients)


def seen(page):
    return [(each.client_id, each.attribute, each.day, each.calls) for each in page.items]


async def test_totals_by_client_and_attribute(usage):
    """Over the last 30 days, of which three have something."""
    page = await usage.totals(Request())
    assert seen(page) == [("a", "calm", None, 5), ("a", "grit", None, 15), ("b", "grit", None, 15)]
    assert page.next is None
    shown = msgspec.json.decode(msgspec.json.encode(page))["items"][0]
    assert (shown["rows"], shown["limited"], shown["buckets"]["le_1ms"]) == (1, 1, 1)


async def test_filters_days_and_pages(usage):
    """Client, attribute, range, one line a day, one client a page."""
    assert seen(await usage.totals(Request({"client": "b"}))) == [("b", "grit", None, 15)]
    assert seen(await usage.totals(Request({"attribute": "calm"}))) == [("a", "calm", None, 5)]
    first_two = await usage.totals(Request({"from": DAYS[0], "to": DAYS[1], "client": "a", "by_day": "true"}))
    assert seen(first_two) == [("a", "grit", DAYS[0], 5), ("a", "grit", DAYS[1], 5)]
    page = await usage.totals(Request({"limit": "1"}))
    assert ([each.client_id for each in page.items], page.next) == (["a", "a"], "a")
    rest = await usage.totals(Request({"limit": "1", "cursor": page.next}))
    assert ([each.client_id for each in rest.items], rest.next) == (["b"], None)


@pytest.mark.parametrize(
    "query",
    [{"from": "yesterday"}, {"from": "2026-01-01"}, {"from": "2027-02-01"}, {"limit": "many"}, {"customer": "a"}],
)
async def test_wrong_questions_are_refused(usage, query):
    """With what is allowed, and without what came."""
    with pytest.raises(AppError) as error:
        await usage.totals(Request(query))
    assert error.value.code == "invalid_request"
    assert "yesterday" not in error.value.detail


async def test_scopes_nobody_used(settings, clock):
    """Those of the client record that no call needed in 90 days; the day from which on is named."""
    async with serving(settings, clock) as server:
        made = await server.register(scope="predict:grit explain:grit usage:read keys:manage")
        client_id = made.client.client_id
        ledger = UsageLedger(server.clients._store)
        await ledger.note_scopes(client_id, ["predict:grit", "usage:read"], DAYS[2])
        await ledger.note_scopes(client_id, ["explain:grit"], "2026-09-01")
        found = await Usage(ledger, server.clients).unused(Request(now=NOW + 50 * 86_400))
    (item,) = [each for each in found["items"] if each.client_id == client_id]
    assert (item.scopes, item.since) == (["explain:grit", "keys:manage"], DAYS[2])
    assert found["next"] is None
