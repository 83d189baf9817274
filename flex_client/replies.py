"""From an HTTP answer to a JSON object or a FlexError."""

import json
import math
from typing import Any

import httpx

from flex_client.errors import FieldProblem, FlexError


def retry_after_s(response: httpx.Response) -> float | None:
    """Seconds that ``Retry-After`` asks for; None if it is absent or a date (RFC 9110 section 10.2.3)."""
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def json_object(response: httpx.Response) -> dict[str, Any]:
    """Return the object of a successful answer; FlexError for any other answer."""
    if not response.is_success:
        raise refusal(response)
    return parse_object(response.content, response)


def json_lines(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the objects of a successful NDJSON answer; FlexError for any other answer."""
    if not response.is_success:
        raise refusal(response)
    return [parse_object(line, response) for line in response.content.splitlines() if line.strip()]


def parse_object(raw: bytes, response: httpx.Response) -> dict[str, Any]:
    """Parse one JSON object of an answer; FlexError if it is none."""
    try:
        members = json.loads(raw)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        raise unexpected(response)
    return members


def refusal(response: httpx.Response) -> FlexError:
    """Make the exception of an answer that is not a success, from RFC 9457 members where it has them."""
    try:
        members = json.loads(response.content)
    except (ValueError, RecursionError):
        members = {}
    if not isinstance(members, dict):
        members = {}
    return FlexError(
        _text(members.get("title")) or response.reason_phrase or "Refused",
        _text(members.get("detail")) or _text(members.get("error")),
        status=response.status_code,
        request_id=_text(members.get("instance")) or response.headers.get("X-Request-ID"),
        errors=field_problems(members.get("errors")),
        retry_after_s=retry_after_s(response),
    )


def unexpected(response: httpx.Response) -> FlexError:
    """Make the exception of an answer that is not what this client knows."""
    return FlexError(
        "Unexpected answer",
        f"{response.request.method} {response.request.url.path} did not answer as Flex does.",
        status=response.status_code,
        request_id=response.headers.get("X-Request-ID"),
    )


def no_answer(error: Exception, base_url: str) -> FlexError:
    """Make the exception of a call that got no answer at all."""
    return FlexError("No answer", f"{base_url} did not answer ({type(error).__name__}).")


def field_problems(entries: object) -> tuple[FieldProblem, ...]:
    """Read the ``errors`` member of a refusal; what is not as expected is left out."""
    if not isinstance(entries, list):
        return ()
    return tuple(
        FieldProblem(
            pointer=_text(entry.get("pointer")),
            code=_text(entry.get("code")),
            message=_text(entry.get("message")),
            feature=_text(entry.get("feature")) or None,
        )
        for entry in entries
        if isinstance(entry, dict)
    )


def _text(member: object) -> str:
    return member if isinstance(member, str) else ""
