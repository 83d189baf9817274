"""Named events: code says what happened, and the log and the metrics each decide what to do with it.

One JSON object a line, at most 512 bytes. Fields are short facts (ids, reasons, counts), never tokens, secrets or
input. Rare events are written at once; the two that every request causes are gathered for at most 0.25 s or 256 lines.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, TextIO

import msgspec

Field = str | int | float | bool | None | list[str]
Subscriber = Callable[["Event", dict[str, Field]], None]
MAX_LINE_BYTES = 512
_MAX_TEXT = 120
_FLUSH_AFTER_S = 0.25
_FLUSH_AT_LINES = 256


class Event(StrEnum):
    """The whole vocabulary; a new one is a reviewed change."""

    HTTP_REQUEST = "http_request"
    TOKEN_ISSUED = "token_issued"  # noqa: S105
    TOKEN_REFUSED = "token_refused"  # noqa: S105
    CLIENT_AUTHENTICATION_FAILED = "client_authentication_failed"
    CLIENT_CREATED = "client_created"
    CLIENT_SECRET_ROTATED = "client_secret_rotated"  # noqa: S105
    CLIENT_DISABLED = "client_disabled"
    CLIENT_DELETED = "client_deleted"
    REVOCATION_REFUSED = "revocation_refused"
    REVOCATION_WRITTEN = "revocation_written"
    REVOCATION_EPOCH_OPENED = "revocation_epoch_opened"
    REVOCATION_HEAD_REFUSED = "revocation_head_refused"
    REVOCATION_WRITES_RESTORED = "revocation_writes_restored"
    REVOCATION_FEED_WRITE_FAILED = "revocation_feed_write_failed"
    INTROSPECTION_REFUSED = "introspection_refused"
    ADMIN_CHANGE = "admin_change"
    BEARER_REFUSED = "bearer_refused"
    SCOPE_REFUSED = "scope_refused"
    KEY_PREPARED = "key_prepared"
    KEY_ACTIVATED = "key_activated"
    KEY_RETIRED = "key_retired"
    KEY_REMOVED = "key_removed"
    KEY_REVOKED = "key_revoked"
    KEY_ROTATION_REFUSED = "key_rotation_refused"
    KEY_ACTIVATION_FORCED = "key_activation_forced"
    KEY_ROTATION_BLOCKED = "key_rotation_blocked"
    KEY_REVOCATION_PUSHED = "key_revocation_pushed"
    KEY_ANNOUNCEMENT_FAILED = "key_announcement_failed"
    CANARIES_PUBLISHED = "canaries_published"
    KEY_RING_LOADED = "key_ring_loaded"
    KEY_RING_PROBLEM = "key_ring_problem"
    KEY_SET_REFRESHED = "key_set_refreshed"
    KEY_SET_REFUSED = "key_set_refused"
    KEY_SET_UNREACHABLE = "key_set_unreachable"
    KEY_SET_STALE = "key_set_stale"
    KEY_VANISHED = "key_vanished"
    KEY_PROVED = "key_proved"
    REVOCATION_STATE_CHANGED = "revocation_state_changed"
    REVOCATION_FRESHNESS_CHANGED = "revocation_freshness_changed"
    REVOCATION_GAP_FOUND = "revocation_gap_found"
    REVOCATION_BEAT_REFUSED = "revocation_beat_refused"
    REVOCATION_FOLLOWER_FAILED = "revocation_follower_failed"
    REVOCATION_SNAPSHOT_LOADED = "revocation_snapshot_loaded"
    REVOCATION_SNAPSHOT_REFUSED = "revocation_snapshot_refused"
    REVOCATION_SNAPSHOT_FAILED = "revocation_snapshot_failed"
    FEED_KEY_PROBLEM = "feed_key_problem"
    VERIFIER_REPORT_FAILED = "verifier_report_failed"
    BUNDLE_LOADED = "bundle_loaded"
    BUNDLE_REFUSED = "bundle_refused"
    STATUS_LIST_PROBLEM = "status_list_problem"
    STORE_STARTED = "store_started"
    STORE_LOST = "store_lost"
    STORE_RECOVERED = "store_recovered"
    USAGE_DROPPED = "usage_dropped"
    SERVER_STARTED = "server_started"
    SERVER_STOPPING = "server_stopping"
    PROCESS_CRASHED = "process_crashed"
    INSECURE_OPTION = "insecure_option"
    INTERNAL_ERROR = "internal_error"


class RequestLine(msgspec.Struct, gc=False):
    """The access line of one request. A struct, since it is written more often than all other events together.

    ``ts`` in UTC seconds, ``seconds`` how long the answer took, ``client_id`` None where nobody was authenticated.
    """

    ts: float
    server: str
    event: Event
    request_id: str
    method: str
    route: str
    status: int
    seconds: float
    client_id: str | None


_stream: TextIO | None = None
_server = ""
_waiting: list[tuple[Event, float, dict[str, Field]] | RequestLine] = []
_subscribers: list[Subscriber] = []
_encode = msgspec.json.Encoder().encode


def configure(*, server: str = "", stream: TextIO | None = None) -> None:
    """Say which server speaks (field ``server``) and where lines go (default: standard output)."""
    global _server, _stream
    flush()
    _server, _stream = server, stream


def subscribe(subscriber: Subscriber) -> None:
    """Call ``subscriber(event, fields)`` for every event that is emitted from now on."""
    _subscribers.append(subscriber)


def emit(event: Event, **fields: Field) -> None:
    """Write one event now (after those that wait), and tell the subscribers."""
    for subscriber in _subscribers:
        subscriber(event, fields)
    _waiting.append((event, time.time(), fields))
    flush()


def gather(event: Event, **fields: Field) -> None:
    """Note an event that every request causes; written within 0.25 s where an event loop runs, else at once."""
    for subscriber in _subscribers:
        subscriber(event, fields)
    _wait((event, time.time(), fields))


def gather_request(
    *, request_id: str, method: str, route: str, status: int, seconds: float, client_id: str | None
) -> None:
    """Note the access line of one request; as :func:`gather`, but for no subscriber: the metrics count requests."""
    _wait(RequestLine(time.time(), _server, Event.HTTP_REQUEST, request_id, method, route, status, seconds, client_id))


def _wait(entry: tuple[Event, float, dict[str, Field]] | RequestLine) -> None:
    _waiting.append(entry)
    n_waiting = len(_waiting)
    if n_waiting >= _FLUSH_AT_LINES:
        flush()
    elif n_waiting == 1:
        _flush_soon()


def _flush_soon() -> None:
    try:
        asyncio.get_running_loop().call_later(_FLUSH_AFTER_S, flush)
    except RuntimeError:
        flush()


def flush() -> None:
    """Write what waits. A reader that has gone away costs lines, never the server."""
    if not _waiting:
        return
    lines = b"".join(_lines(_waiting))
    _waiting.clear()
    stream = _stream or sys.stdout
    try:
        stream.write(lines.decode())
        stream.flush()
    except (OSError, ValueError):
        return


def _lines(entries: Iterable[tuple[Event, float, dict[str, Field]] | RequestLine]) -> Iterable[bytes]:
    for entry in entries:
        if isinstance(entry, RequestLine):
            line = _encode(entry)
            if len(line) >= MAX_LINE_BYTES:
                entry.client_id = _cut(entry.client_id)
                line = _encode(entry)
        else:
            line = _line(*entry)
        yield line + b"\n"


def _line(event: Event, at: float, fields: dict[str, Field]) -> bytes:
    head: dict[str, Field] = {"ts": round(at, 3), "server": _server, "event": event}
    line = _encode(head | fields)
    if len(line) >= MAX_LINE_BYTES:
        line = _encode(head | {name: _cut(value) for name, value in fields.items()})
    if len(line) >= MAX_LINE_BYTES:
        line = _encode(head | {"cut": True, "request_id": fields.get("request_id")})
    return line


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    return [item[:40] for item in value[:4]] if isinstance(value, list) else value
