"""The calls both clients make, without the waiting: what to send, and how to read what comes back."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from flex_client.answers import (
    Attribute,
    AttributeSummary,
    Features,
    Prediction,
    Profile,
    Record,
    RecordError,
    read_result,
)
from flex_client.explanations import Explanation
from flex_client.replies import json_lines, json_object, unexpected

T = TypeVar("T")
Result = Prediction | RecordError
PIECE_RECORDS = 1000
PIECE_BYTES = 64 * 1024
_JSON = "application/json"
_NDJSON = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how its answer is read; ``read`` raises FlexError."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    body: bytes | None = None
    content_type: str = _JSON

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the request."""
        accept = {"Accept": self.content_type}
        return accept if self.body is None else {**accept, "Content-Type": self.content_type}


def attributes() -> Call[list[AttributeSummary]]:
    """List the attributes that the token may use."""
    return Call("GET", "/v1/attributes", _reader(lambda o: [AttributeSummary.read(e) for e in o["attributes"]]))


def attribute(attribute_id: str) -> Call[Attribute]:
    """Describe one attribute."""
    return Call("GET", _path(attribute_id), _reader(Attribute.read))


def predict(attribute_id: str, features: Features, record_id: str | None) -> Call[Prediction]:
    """Score one record."""
    body = _encode(_record(Record(features, record_id)))
    return Call("POST", f"{_path(attribute_id)}/predict", _reader(Prediction.read), body)


def explain(attribute_id: str, features: Features, record_id: str | None) -> Call[Explanation]:
    """Explain one record's score."""
    body = _encode(_record(Record(features, record_id)))
    return Call("POST", f"{_path(attribute_id)}/explain", _reader(Explanation.read), body)


def profile(features: Features, record_id: str | None) -> Call[Profile]:
    """Score one record on every attribute that the token allows."""
    return Call("POST", "/v1/profile", _reader(Profile.read), _encode(_record(Record(features, record_id))))


def predict_batch(attribute_id: str, records: Iterable[Features | Record]) -> Call[list[Result]]:
    """Score up to 1,000 records in one request."""
    sent = [_record(record) for record in records]

    def read(response: httpx.Response) -> list[Result]:
        results = _reader(lambda members: [read_result(entry) for entry in members["results"]])(response)
        return _complete(results, len(sent), response)

    return Call("POST", f"{_path(attribute_id)}/predict/batch", read, _encode({"records": sent}))


def stream(attribute_id: str, records: Iterable[Features | Record]) -> Iterator[Call[list[Result]]]:
    """Score any number of records: NDJSON requests of at most 64 KiB, made as ``records`` is consumed.

    One endless request would have to be read while it is being sent, which httpx can't: once both sides' buffers are
    full, client and server would wait for each other. Small pieces can also be repeated after a 401.
    """
    for lines in _pieces(_encode(_record(record)) for record in records):
        yield _piece(attribute_id, lines)


def _piece(attribute_id: str, lines: list[bytes]) -> Call[list[Result]]:
    def read(response: httpx.Response) -> list[Result]:
        entries = json_lines(response)
        results = [_shaped(read_result, entry, response) for entry in entries]
        return _complete(results, len(lines), response)

    body = b"\n".join(lines) + b"\n"
    return Call("POST", f"{_path(attribute_id)}/predict/batch", read, body, _NDJSON)


def _pieces(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and (len(piece) == PIECE_RECORDS or size + len(line) >= PIECE_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(line)
        size += len(line) + 1
    if piece:
        yield piece


def _reader(read: Callable[[Mapping[str, Any]], T]) -> Callable[[httpx.Response], T]:
    return lambda response: _shaped(read, json_object(response), response)


def _shaped(read: Callable[[Mapping[str, Any]], T], members: Mapping[str, Any], response: httpx.Response) -> T:
    try:
        return read(members)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise unexpected(response) from None


def _complete(results: list[Result], n_sent: int, response: httpx.Response) -> list[Result]:
    if len(results) != n_sent:
        raise unexpected(response)
    return results


def _record(record: Features | Record) -> dict[str, Any]:
    if not isinstance(record, Record):
        return {"features": dict(record)}
    members: dict[str, Any] = {} if record.id is None else {"id": record.id}
    return {**members, "features": dict(record.features)}


def _encode(members: Mapping[str, Any]) -> bytes:
    # NaN is not JSON (RFC 8259 section 6): ValueError here is clearer than a 400 from there.
    return json.dumps(members, allow_nan=False, separators=(",", ":")).encode()


def _path(attribute_id: str) -> str:
    return f"/v1/attributes/{quote(attribute_id, safe='')}"
