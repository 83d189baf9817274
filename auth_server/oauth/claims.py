"""The claims of an access token (RFC 9068 section 2.2), not yet signed."""

import functools
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from auth_server.oauth.authorization_details import carried
from auth_server.oauth.status import StatusClaim
from auth_server.records import Client
from shared import scopes, token_ids
from shared.errors import AppError
from shared.rate_limit.budgets import Budget
from shared.revocations.entries import milliseconds
from shared.scopes import ADMIN, MANAGEMENT

MAX_AUDIENCES = 4
MAX_SCOPE_LENGTH = 1200  # with the longest audiences the token stays below the 4 KiB that verifiers take


class AccessTokenClaims(TypedDict):
    """What a token says. ``aud`` is one resource indicator or several; ``iat`` and ``exp`` are whole UTC seconds;
    the millisecond of issue is in ``jti``.

    A dictionary, because it is what the signer encodes as it stands.
    """

    iss: str
    sub: str
    aud: str | tuple[str, ...]
    client_id: str
    iat: int
    exp: int
    jti: str
    scope: str
    status: NotRequired[StatusClaim]
    calls_per_hour: NotRequired[int]
    authorization_details: NotRequired[list[dict[str, object]]]


@dataclass(frozen=True, slots=True)
class UnsignedToken:
    """What the rules decided: the claims to sign, ``expires_in`` seconds for the answer, and whether the token gets a
    place in a status list before it is signed.
    """

    claims: AccessTokenClaims
    expires_in: int
    status_list: bool = False

    def __repr__(self) -> str:  # Authlib writes what a grant issued into its debug log
        return f"UnsignedToken(jti={self.claims['jti']})"


def granted(held: tuple[str, ...], raw_scope: str) -> tuple[str, ...]:
    """Choose the scopes: those requested if ``held`` covers all of them, or all held if none is requested.

    Raises AppError invalid_scope.
    """
    return (_granted_before if len(raw_scope) <= _LONGEST_KEPT else _granted)(held, raw_scope)


def _granted(held: tuple[str, ...], raw_scope: str) -> tuple[str, ...]:
    return scopes.narrow(held, scopes.parse(raw_scope))


# Holds 1,024 answers for scopes of up to 256 characters, the longest unused let go first: nothing makes them untrue.
_granted_before = functools.lru_cache(maxsize=1024)(_granted)
_LONGEST_KEPT = 256


def audience(
    client: Client, requested: Collection[str], scopes: Collection[str], *, issuer: str, default: str
) -> str | tuple[str, ...]:
    """Choose ``aud``: the requested resources (RFC 8707 section 2), or what the granted ``scopes`` are for: attributes
    the client's default resource, management the issuer; never the client id.

    Raises AppError invalid_target for a resource that the client is not registered for, the issuer where it may manage
    nothing, and more than four.
    """
    allowed = client.resources or (default,)
    if not requested:
        chosen = _by_scopes(allowed[0], scopes, issuer)
    else:
        allowed = (*allowed, issuer) if _manages(client.scopes) else allowed
        chosen = tuple(dict.fromkeys(_resource(text, allowed) for text in requested))
    if len(chosen) > MAX_AUDIENCES:
        raise AppError("invalid_target", f"A token is for at most {MAX_AUDIENCES} resources.")
    return chosen[0] if len(chosen) == 1 else chosen


def _by_scopes(resource: str, granted: Collection[str], issuer: str) -> tuple[str, ...]:
    if not _manages(granted):
        return (resource,)
    serves_attributes = ADMIN in granted or not all(scope in MANAGEMENT for scope in granted)
    return tuple(dict.fromkeys((resource, issuer))) if serves_attributes else (issuer,)


def _manages(held: Collection[str]) -> bool:
    return ADMIN in held or any(scope in MANAGEMENT for scope in held)


def _resource(text: str, allowed: tuple[str, ...]) -> str:
    if text in allowed:
        return text
    # RFC 3986 section 6.2.3: an empty path is the same as "/"; registered indicators never end in a slash.
    bare = text.removesuffix("/")
    if bare in allowed and bare.count("/") == 2:
        return bare
    raise AppError("invalid_target", "A requested resource is unknown or not registered for this client.")


def access_token_claims(
    client: Client,
    *,
    issuer: str,
    aud: str | tuple[str, ...],
    scopes: Iterable[str],
    ttl_s: int,
    now: float,
    budgets: Sequence[Budget] = (),
) -> UnsignedToken:
    """Make the claims of a token for a client acting for itself: ``sub`` is the client (RFC 9068 section 2.2).

    ``budgets`` become its ``authorization_details`` (RFC 9396 section 9.1). Raises AppError invalid_scope or
    invalid_authorization_details if nothing, or more than a token can carry, was asked for.
    """
    scope = " ".join(scopes)
    if not scope or len(scope) > MAX_SCOPE_LENGTH:
        raise AppError(
            "invalid_scope", f"A token carries 1 to {MAX_SCOPE_LENGTH} characters of scope.", reason="scope_length"
        )
    issued_ms = milliseconds(now)
    issued_at = issued_ms // 1000
    claims: AccessTokenClaims = {
        "iss": issuer,
        "sub": client.client_id,
        "aud": aud,
        "client_id": client.client_id,
        "iat": issued_at,
        "exp": issued_at + ttl_s,
        "jti": token_ids.token_id(issued_ms, os.urandom(token_ids.RANDOM_BYTES)),
        "scope": scope,
    }
    if client.calls_per_hour is not None:
        claims["calls_per_hour"] = client.calls_per_hour
    if budgets:
        claims["authorization_details"] = carried(budgets, MAX_SCOPE_LENGTH - len(scope))
    return UnsignedToken(claims, ttl_s, client.status_list)
