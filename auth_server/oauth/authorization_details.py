"""Rich authorization requests (RFC 9396): budgets of rows, which a client has, asks for, and finds in its token."""

from collections.abc import Sequence

import msgspec

from shared.errors import AppError
from shared.rate_limit.budgets import Budget, BudgetError, detail, narrowed, parse_details
from shared.strict_json import decode_object

PARAMETER = "authorization_details"
MAX_LENGTH = 600
"""Of the JSON that one client may be registered with: it travels in every token, which has 4 KiB."""
_MAX_REQUEST_LENGTH = 4_000


def read(raw_details: str) -> tuple[Budget, ...]:
    """Read the request parameter: a JSON array (RFC 9396 section 2); empty: nothing was asked for.

    Raises AppError invalid_authorization_details (section 5).
    """
    if not raw_details:
        return ()
    if len(raw_details) > _MAX_REQUEST_LENGTH:
        raise _refused("too long")
    try:
        # Inside an object of ours, so that a name that stands twice is refused as it is everywhere.
        document = decode_object(b'{"details":' + raw_details.encode() + b"}")
        if len(document) != 1 or not isinstance(document["details"], list):
            raise _refused("not a JSON array")
        return parse_details(document["details"])
    except BudgetError as problem:
        raise _refused(str(problem)) from None
    except (ValueError, RecursionError):
        raise _refused("not a JSON array") from None


def granted(own: Sequence[Budget], raw_details: str) -> tuple[Budget, ...]:
    """Choose the budgets of a token: what was asked for, if it is within the client's own, else all of its own.

    Raises AppError invalid_authorization_details.
    """
    asked = read(raw_details)
    try:
        return narrowed(own, asked)
    except BudgetError as problem:
        raise _refused(str(problem)) from None


def registered(budgets: Sequence[str]) -> tuple[Budget, ...]:
    """Read the budgets of a new client, one JSON object each. Raises AppError invalid_authorization_details."""
    if not budgets:
        return ()
    found = read(f"[{','.join(budgets)}]")
    if len(found) != len(budgets) or any(budget.ceiling for budget in found):
        raise _refused("each budget is one JSON object with type, attributes, rows and period")
    carried(found, MAX_LENGTH)
    return found


def carried(budgets: Sequence[Budget], room: int) -> list[dict[str, object]]:
    """Give the claim. Raises AppError invalid_authorization_details if it has more than ``room`` bytes of JSON."""
    details = [detail(budget) for budget in budgets]
    if len(msgspec.json.encode(details)) > room:
        raise _refused("more than a token can carry beside its scope")
    return details


def _refused(why: str) -> AppError:
    return AppError("invalid_authorization_details", f"authorization_details: {why}.")
