"""What the demo shows to be refused, and how the refusal is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Refusal:
    """One call that must get ``status``; ``path`` is below ``/v1/attributes``."""

    status: int
    why: str
    path: str
    raw_token: str | None = field(repr=False)
    body: dict[str, Any]


def refusals(token: str, narrow_token: str, features: Mapping[str, Any]) -> tuple[Refusal, ...]:
    """Give calls that a client of grit alone is refused; ``narrow_token`` has no scope to explain."""
    body = {"features": dict(features)}
    word = {"features": {**features, next(iter(features)): "often"}}
    return (
        Refusal(401, "no token", "grit/predict", None, body),
        Refusal(401, "one character of the signature changed", "grit/predict", _tampered(token), body),
        Refusal(404, "an attribute that the token may not see", "calm/predict", token, body),
        Refusal(404, "an attribute that does not exist: the same answer", "luck/predict", token, body),
        Refusal(403, "explain with a token for predict only", "grit/explain", narrow_token, body),
        Refusal(422, "a word where a number belongs", "grit/predict", token, word),
    )


def told_in(answer: httpx.Response) -> str:
    """Say what else the caller learns: the challenge, or where the wrong field is."""
    if answer.status_code == 422:
        return f": {answer.json()['errors'][0]['pointer']}"
    if answer.status_code in {401, 403}:
        return f" ({answer.headers['WWW-Authenticate'].partition(',')[0]})"
    return ""


def _tampered(token: str) -> str:
    head, claims, signature = token.split(".")
    other = "A" if signature[20] != "A" else "B"
    return f"{head}.{claims}.{signature[:20]}{other}{signature[21:]}"
