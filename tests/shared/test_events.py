"""Events are one short JSON line each."""

import asyncio

from shared import events
from shared.events import Event


def test_an_emitted_event_is_one_json_line_at_once(event_log):
    """Name, time and fields; no buffering for what matters."""
    events.emit(Event.KEY_ROTATION_REFUSED, kid="abc", reason="too_young")
    (line,) = event_log.lines
    assert line["event"] == "key_rotation_refused"
    assert line["kid"] == "abc"
    assert line["ts"] > 1_600_000_000


def test_a_long_field_is_cut_so_that_no_line_passes_its_bound(event_log):
    """A line stays within 512 bytes whatever a caller sent."""
    events.emit(Event.BEARER_REFUSED, reason="x" * 5_000, where=["y" * 500] * 50)
    assert len(event_log.text.encode()) <= events.MAX_LINE_BYTES + 1


def test_a_line_of_many_fields_is_cut_down_to_its_request_id(event_log):
    """Even many short fields can't pass the bound, and the request can still be found."""
    events.emit(Event.BEARER_REFUSED, request_id="r-1", **{f"f{i}": "z" * 100 for i in range(20)})
    (line,) = event_log.lines
    assert line["cut"] is True
    assert line["request_id"] == "r-1"


async def test_gathered_events_are_written_together_and_in_order(event_log):
    """Frequent events wait a moment; a rare one behind them pushes them out first."""
    events.gather(Event.HTTP_REQUEST, status=200)
    assert event_log.stream.getvalue() == ""
    events.emit(Event.SERVER_STOPPING)
    assert [line["event"] for line in event_log.lines] == ["http_request", "server_stopping"]


async def test_gathered_events_are_written_soon_without_a_further_event(event_log):
    """A quiet server does not keep its last line."""
    events.gather(Event.HTTP_REQUEST, status=200)
    async with asyncio.timeout(5):
        while not event_log.stream.getvalue():
            await asyncio.sleep(0.01)


def test_subscribers_hear_every_event():
    """Metrics and audit listen; the code that emits does not know them."""
    heard = []

    def listen(event, fields):
        heard.append((event, fields))

    events.subscribe(listen)
    try:
        events.emit(Event.CLIENT_CREATED, client_id="c")
    finally:
        events._subscribers.remove(listen)
    assert heard == [(Event.CLIENT_CREATED, {"client_id": "c"})]


def test_a_closed_stream_costs_lines_and_not_the_server(event_log):
    """A log reader that went away must not stop a request."""
    event_log.stream.close()
    events.emit(Event.SERVER_STARTED)
    event_log.stream = __import__("io").StringIO()
    events.configure(stream=event_log.stream)
