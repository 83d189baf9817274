"""Counting calls and writing them to the store: nothing lost, nothing twice, nothing without bounds."""

import pytest

from model_server.metering import EXPLANATIONS, ROWS, Meter
from shared import store as stores
from shared.embedded_store import EmbeddedStore
from shared.errors import AppError
from shared.events import Event
from shared.settings import Settings
from shared.usage import COUNTS, UsageLedger, UsageLine, day_of


@pytest.fixture(scope="module")
def store_dir(tmp_path_factory):
    """The var folder of one embedded store."""
    folder = tmp_path_factory.mktemp("usage")
    with EmbeddedStore(folder):
        yield folder


@pytest.fixture
async def store(store_dir):
    """A client of it; every key must end by itself."""
    client = stores.connect(Settings(var_dir=store_dir))
    await client.flushall()
    yield client
    for key in await client.keys("*"):
        assert await client.ttl(key) > 0, f"{key!r} never ends"
    await stores.close(client)


@pytest.fixture
def ledger(store):
    return UsageLedger(store)


@pytest.fixture
async def nowhere(tmp_path):
    """A ledger whose store is away."""
    client = stores.connect(Settings(var_dir=tmp_path))
    yield UsageLedger(client)
    await stores.close(client)


async def totals(ledger, clock, **filters) -> dict[tuple[str, str], dict[str, int]]:
    page = await ledger.page([day_of(clock())], **filters)
    return {
        (line.client_id, line.attribute): {name: n for name, n in zip(COUNTS, counts, strict=True) if n}
        for line, counts in page.lines
    }


async def test_what_was_counted_is_what_the_store_says(ledger, clock):
    """By client and attribute; outcomes by status, times summed and in buckets."""
    meter = Meter(clock)
    grit, calm = meter.tally("a", "grit"), meter.tally("b", "calm")
    for status in (200, 200, 422, 400, 403, 404, 429, 503, 500, 0):
        grit.note(status, 0.002)
    grit.add(ROWS, 7)
    calm.note(200, 3.0)
    calm.add(EXPLANATIONS, 1)
    await meter.upload(ledger)
    grit.note(200, 0.0004)
    meter.tally("a", "grit").note(200, 0.002)  # another tally of the same two
    await meter.upload(ledger)
    assert await totals(ledger, clock) == {
        ("a", "grit"): {
            "ok": 4, "invalid": 2, "denied": 2, "limited": 1, "failed": 3, "rows": 7, "time_us": 22_400,
            "le_1ms": 1, "le_5ms": 11,
        },
        ("b", "calm"): {"ok": 1, "explanations": 1, "time_us": 3_000_000, "slower": 1},
    }  # fmt: skip
    assert len(meter) == 0


async def test_a_batch_of_unknown_fate_counts_once(ledger, clock):
    """Sent again under its number, it is added only if it had not arrived."""
    meter = Meter(clock)
    lines = {UsageLine(day_of(clock()), "a", "grit"): [1] * len(COUNTS)}
    for _ in range(3):
        await ledger.add(meter._writer, 1, lines)
    await ledger.add(meter._writer, 2, lines)
    assert (await totals(ledger, clock))["a", "grit"]["ok"] == 2


async def test_what_could_not_be_written_waits(ledger, nowhere, clock):
    """And is written with what came meanwhile."""
    meter = Meter(clock)
    tally = meter.tally("a", "grit")
    tally.note(200, 0.002)
    with pytest.raises(AppError):
        await meter.upload(nowhere)
    tally.note(200, 0.002)
    with pytest.raises(AppError):
        await meter.upload(nowhere)
    assert len(meter) == 2
    await meter.upload(ledger)
    assert (await totals(ledger, clock))["a", "grit"]["ok"] == 2


async def test_what_waits_is_bounded(nowhere, clock, event_log):
    """Beyond the bound calls are dropped, and one event says how many."""
    meter = Meter(clock, max_waiting=5)
    for number in range(8):
        meter.tally(f"client-{number}", "grit").note(200, 0.001)
    with pytest.raises(AppError):
        await meter.upload(nowhere)
    assert (len(meter), meter.n_dropped) == (5, 3)
    assert [line["n_calls"] for line in event_log.named(Event.USAGE_DROPPED)] == [3]
    await meter.finish(nowhere)
    assert event_log.named(Event.USAGE_DROPPED)[1]["n_calls"] == 5


async def test_many_clients_are_written_and_read_in_pages(ledger, clock):
    """More than one script run takes; each page goes on after the last client."""
    meter = Meter(clock)
    for number in range(250):
        meter.tally(f"client-{number:03}", "grit").note(200, 0.001)
    await meter.upload(ledger)
    seen, cursor = [], ""
    while True:
        page = await ledger.page([day_of(clock())], cursor=cursor, limit=100)
        seen += [line.client_id for line, _ in page.lines]
        if not (cursor := page.next_cursor):
            break
    assert seen == [f"client-{number:03}" for number in range(250)]


async def test_scopes_that_were_used_are_known_with_their_last_day(ledger, clock):
    """From rows and explanations, and from what the admin API notes; a late batch does not turn the day back."""
    meter = Meter(clock)
    first_day = day_of(clock())
    tally = meter.tally("a", "grit")
    tally.note(403, 0.001)
    await meter.upload(ledger)
    assert await ledger.scopes_used(["a"]) == {"a": {}}
    tally.add(ROWS, 1)
    await meter.upload(ledger)
    clock.advance(3 * 86_400)
    tally.add(EXPLANATIONS, 1)
    await meter.upload(ledger)
    await ledger.note_scopes("a", ["usage:read"], day_of(clock()))
    assert await ledger.scopes_used(["a", "b"]) == {
        "a": {"predict:grit": first_day, "explain:grit": day_of(clock()), "usage:read": day_of(clock())},
        "b": {},
    }
