"""What the servers are asked: rows drawn from each model's own ranges, and whole HTTP requests as bytes."""

import base64
import random
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import msgspec

N_ROWS = 1021
"""Distinct rows; prime, so that rows and tokens meet in ever new pairs. A repeated row flatters the trees threefold."""
N_REQUESTS = 4084
Row = dict[str, float | int]


@dataclass(frozen=True, slots=True)
class Column:
    """One feature of a model: its name and the range that the bundle declares."""

    name: str
    low: float
    high: float
    whole: bool


@dataclass(frozen=True, slots=True)
class Attribute:
    """One shipped model: id, folder of its newest version, and its columns in model order."""

    id: str
    folder: Path
    columns: tuple[Column, ...]


def attributes(models_dir: Path) -> list[Attribute]:
    """All shipped models, by id."""
    found = []
    for path in sorted(models_dir.glob("*/*/attribute.toml"), key=lambda path: (path.parts[-3], len(path.parts[-2]))):
        declared = tomllib.loads(path.read_text())
        columns = tuple(
            Column(name, spec["min"], spec["max"], spec.get("integer", False) or declared["pack"] == "survey")
            for name, spec in declared["features"].items()
        )
        found.append(Attribute(declared["id"], path.parent, columns))
    return list({one.id: one for one in found}.values())


def rows(columns: Sequence[Column], count: int, seed: int) -> list[Row]:
    """Draw complete records, each value alone and evenly from its range."""
    chance = random.Random(seed)

    def value(column: Column) -> float | int:
        if column.whole:
            return chance.randint(int(column.low), int(column.high))
        return round(chance.uniform(column.low, column.high), 3)

    return [{column.name: value(column) for column in columns} for _ in range(count)]


def all_columns(models: Iterable[Attribute]) -> tuple[Column, ...]:
    """Columns of several models, each name once."""
    return tuple({column.name: column for model in models for column in model.columns}.values())


def http_request(method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Spell one HTTP/1.1 request for a kept-alive connection."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def json_request(path: str, token: str, document: object) -> bytes:
    """Spell one authenticated JSON request."""
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    return http_request("POST", path, headers, msgspec.json.encode(document))


def record(number: int, row: Row) -> dict[str, object]:
    """One record as a caller sends it."""
    return {"id": f"p-{number}", "features": row}


def token_request(client_id: str, client_secret: str, scope: str, resource: str, *, basic: bool = True) -> bytes:
    """Spell one client-credentials request (RFC 6749 section 4.4) with a resource indicator (RFC 8707)."""
    form = {"grant_type": "client_credentials", "scope": scope, "resource": resource}
    headers = {"content-type": "application/x-www-form-urlencoded"}
    if basic:
        credentials = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        headers["authorization"] = f"Basic {credentials}"
    else:
        form |= {"client_id": client_id, "client_secret": client_secret}
    return http_request("POST", "/oauth2/token", headers, urlencode(form).encode())


def predict_requests(attribute: str, tokens: Sequence[str], features: Sequence[Row], count: int) -> list[bytes]:
    """Pair tokens and rows, each in its own turn."""
    path = f"/v1/attributes/{attribute}/predict"
    return [
        json_request(path, tokens[turn % len(tokens)], record(turn, features[turn % len(features)]))
        for turn in range(count)
    ]
