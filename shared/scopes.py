"""Scopes are ``action:object``: what they may look like, and which one covers which (RFC 6749 section 3.3)."""

import re
from collections.abc import Iterable

from shared.errors import AppError

MAX_SCOPES = 64
MAX_SCOPE_LENGTH = 100
MANAGEMENT = (
    "models:manage",
    "clients:manage",
    "keys:manage",
    "users:manage",
    "tokens:revoke",
    "audit:read",
    "usage:read",
)
"""Scopes that concern the product itself; ``admin`` covers all of them and every attribute."""

ADMIN = "admin"
# RFC 6749 appendix A.4 allows more characters; ours need only these.
_SCOPE = re.compile(r"(?:predict|explain):(?:\*|[a-z][a-z0-9_]{0,63})\Z")


def is_known(scope: str) -> bool:
    """Whether a scope has a meaning here: an attribute scope of the right form, a management scope or ``admin``."""
    return scope == ADMIN or scope in MANAGEMENT or _SCOPE.match(scope) is not None


def parse(raw_scope: str) -> tuple[str, ...]:
    """Split a ``scope`` parameter into known scopes, in their order, each once.

    Raises AppError ``invalid_scope`` for an unknown or malformed scope and for more than 64 of them.
    """
    if len(raw_scope) > MAX_SCOPES * MAX_SCOPE_LENGTH:
        raise AppError("invalid_scope", "The scope parameter is too long.")
    scopes = tuple(dict.fromkeys(raw_scope.split(" "))) if raw_scope else ()
    if len(scopes) > MAX_SCOPES:
        raise AppError("invalid_scope", f"At most {MAX_SCOPES} scopes can be asked for.")
    if not all(is_known(scope) for scope in scopes):
        raise AppError("invalid_scope", "A requested scope is malformed or unknown; see scopes_supported.")
    return scopes


def covers(granted: Iterable[str], wanted: str) -> bool:
    """Whether granted scopes allow ``wanted``: the scope itself, its ``action:*``, or ``admin``."""
    held = granted if isinstance(granted, frozenset) else frozenset(granted)
    return wanted in held or ADMIN in held or (wanted.split(":", 1)[0] + ":*") in held


def narrow(granted: Iterable[str], requested: Iterable[str]) -> tuple[str, ...]:
    """Scopes for a token: all that were granted if none are requested, else the requested ones if all are covered.

    Raises AppError ``invalid_scope`` if one is not covered.
    """
    held = frozenset(granted)
    wanted = tuple(requested)
    if not wanted:
        return tuple(granted)
    if not all(covers(held, scope) for scope in wanted):
        raise AppError("invalid_scope", "A requested scope is not granted to this client.")
    return wanted
