"""JSON from strangers: bounded in depth, strict in grammar, finite in its numbers."""

import json
import math
from collections.abc import Iterator

import msgspec

from shared.errors import AppError, FieldError

MAX_DEPTH = 8
_MAX_LISTED = 20
_MAX_NAME = 64  # a name that a client made up is cut before it is repeated


def parse_json(raw_body: bytes | msgspec.Raw, prefix: str = "") -> object:
    """Return the parsed body, in which every float is finite.

    AppError `malformed_json` where it is not JSON, not UTF-8, or nested deeper than 8 levels (NaN and Infinity are
    not JSON); `invalid_record` where a number is beyond float64, with pointers that start with `prefix`.
    """
    try:
        parsed: object = msgspec.json.decode(raw_body)
    except RecursionError:
        raise AppError("malformed_json", f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    except UnicodeDecodeError:
        raise AppError("malformed_json", "The body holds bytes that are not UTF-8.") from None
    except msgspec.ValidationError:
        raise _beyond_float64(bytes(raw_body), prefix) from None
    except msgspec.DecodeError as error:
        hint = ""
        if b"NaN" in bytes(raw_body) or b"Infinity" in bytes(raw_body):
            hint = " NaN and Infinity are not JSON: send null for a missing value."
        raise AppError("malformed_json", f"The body can't be read: {error}.{hint}") from None
    if _is_deeper(parsed, MAX_DEPTH):
        raise AppError("malformed_json", f"The body is nested deeper than {MAX_DEPTH} levels.")
    return parsed


def cut_name(name: str) -> str:
    """Return a client's own name as it may be repeated: short, and encodable whatever was in it."""
    return name[:_MAX_NAME].encode("utf-8", "replace").decode("utf-8")


def _is_deeper(parsed: object, limit: int) -> bool:
    level = [parsed]
    for _ in range(limit):
        level = [child for item in level if isinstance(item, dict | list) for child in _children(item)]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)


def _children(item: dict[str, object] | list[object]) -> Iterator[object]:
    return iter(item.values() if isinstance(item, dict) else item)


def _beyond_float64(raw_body: bytes, prefix: str) -> AppError:
    """Find the numbers that msgspec refused; the standard parser reads them as infinite."""
    try:
        parsed: object = json.loads(raw_body, parse_int=float)
    except (ValueError, RecursionError):
        return AppError("malformed_json")
    message = "The number is too large for a 64-bit float."
    pointers = list(_infinite(parsed, prefix, MAX_DEPTH))[:_MAX_LISTED]
    errors = [FieldError(pointer, "not_finite", message, feature) for pointer, feature in pointers]
    return AppError("invalid_record", errors=errors)


def _infinite(item: object, pointer: str, depth: int) -> Iterator[tuple[str, str | None]]:
    if isinstance(item, float) and math.isinf(item):
        parent, _, name = pointer.rpartition("/")
        yield pointer, name if parent.endswith("/features") else None
    elif depth and isinstance(item, dict | list):
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        for key, child in pairs:
            token = cut_name(str(key)).replace("~", "~0").replace("/", "~1")  # RFC 6901 section 3
            yield from _infinite(child, f"{pointer}/{token}", depth - 1)
