"""Registering a client: what may be asked for, and the record that comes out. Pure but for the random ids."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from auth_server.oauth.authorization_details import registered
from auth_server.oauth.claims import MAX_SCOPE_LENGTH
from auth_server.records import Client, ClientSecret
from auth_server.stores.client_secrets import Pepper, new_secret
from shared import scopes
from shared.errors import AppError
from shared.rate_limit.gcra import MAX_COUNT
from shared.secret import Secret

MAX_NAME_LENGTH = 100
MAX_RESOURCES = 4
MAX_RESOURCE_LENGTH = 200
TTL_RANGE_S = (60, 3600)
_NOT_SLUG = re.compile(r"[^a-z0-9]+")
_URI = re.compile(r"[!-~]+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRequest:
    """What somebody wants registered; nothing of it is checked yet.

    ``scope`` is space-separated (RFC 7591); ``budgets`` are JSON objects of RFC 9396.
    """

    name: str
    scope: str
    resources: Sequence[str] = ()
    token_ttl_s: int | None = None
    demo: bool = False
    status_list: bool = False
    calls_per_hour: int | None = None
    budgets: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Registration:
    """A new client, and its secret, which exists nowhere else."""

    client: Client
    secret: Secret


def register(request: ClientRequest, pepper: Pepper, now: float) -> Registration:
    """Make a client with a fresh id and secret; ``now`` in UTC seconds.

    Raises AppError invalid_scope, invalid_target, invalid_authorization_details, or invalid_request for a bad name,
    token life or limit.
    """
    secret = new_secret()
    client = Client(
        client_id=new_client_id(request.name),
        name=_checked_name(request.name),
        scopes=_checked_scopes(request.scope),
        resources=_checked_resources(request.resources),
        secrets=(ClientSecret(secret_hash=pepper.secret_hash(secret.reveal()), created_at=now),),
        created_at=now,
        token_ttl_s=_checked_ttl(request.token_ttl_s),
        demo=request.demo,
        status_list=request.status_list,
        calls_per_hour=_checked_limit(request.calls_per_hour),
        budgets=registered(request.budgets),
    )
    return Registration(client, secret)


def new_client_id(name: str) -> str:
    """An id that people recognise and nobody chooses: part of the name, and 48 random bits (RFC 9700 section 4.15)."""
    slug = _NOT_SLUG.sub("-", name.lower())[:32].strip("-") or "client"
    return f"{slug}-{secrets.token_hex(6)}"


def _checked_name(name: str) -> str:
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable() or not name.strip():
        raise AppError("invalid_request", f"The name must have 1 to {MAX_NAME_LENGTH} printable characters.")
    return name


def _checked_scopes(scope: str) -> tuple[str, ...]:
    granted = scopes.parse(" ".join(scope.split()))
    if not granted or len(" ".join(granted)) > MAX_SCOPE_LENGTH:
        raise AppError("invalid_scope", f"Grant at least one scope, and at most {MAX_SCOPE_LENGTH} characters of them.")
    return granted


def _checked_resources(resources: Sequence[str]) -> tuple[str, ...]:
    if len(resources) > MAX_RESOURCES:
        raise AppError("invalid_target", f"A client has at most {MAX_RESOURCES} resources.")
    return tuple(dict.fromkeys(_checked_resource(text) for text in resources))


def _checked_resource(text: str) -> str:
    """A resource indicator: an absolute URI without a fragment (RFC 8707 section 2)."""
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = None
    if (
        parts is None
        or parts.scheme not in {"http", "https"}
        or not parts.hostname
        or parts.username is not None
        or "#" in text
        or len(text) > MAX_RESOURCE_LENGTH
        or not _URI.match(text)
    ):
        raise AppError(
            "invalid_target",
            f"A resource must be an http or https URI without user and fragment, of at most {MAX_RESOURCE_LENGTH} "
            "characters.",
        )
    return text.removesuffix("/") if parts.path == "/" and not parts.query else text


def _checked_ttl(ttl_s: int | None) -> int | None:
    low, high = TTL_RANGE_S
    if ttl_s is not None and not low <= ttl_s <= high:
        raise AppError("invalid_request", f"A token lives {low} to {high} s.")
    return ttl_s


def _checked_limit(calls_per_hour: int | None) -> int | None:
    if calls_per_hour is not None and not 1 <= calls_per_hour <= MAX_COUNT:
        raise AppError("invalid_request", f"A limit is 1 to {MAX_COUNT} calls an hour.")
    return calls_per_hour
