"""Clients in the store. Every write is one script that also appends to the change stream, which caches follow.

Keys (all permanent; one hash slot, so that the scripts also run on a Cluster):
``flex:{clients}:client:<id>`` a hash for each client, ``flex:{clients}:index`` their ids sorted by name,
``flex:{clients}:demo`` the ids of demo clients, ``flex:{clients}:pepper`` which pepper their hashes need,
``flex:{clients}:changes`` the last 1,000 changes, ``flex:{clients}:n_changes`` how many there were.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from auth_server.records import Client, ClientSecret
from auth_server.stores import scripts
from shared.errors import AppError
from shared.rate_limit.budgets import detail, parse_details
from shared.store import store_errors

INDEX = "flex:{clients}:index"
DEMO = "flex:{clients}:demo"
PEPPER = "flex:{clients}:pepper"
CHANGES = "flex:{clients}:changes"
N_CHANGES = "flex:{clients}:n_changes"
MAX_CHANGES = 1000
MAX_PAGE = 200


def client_key(client_id: str) -> str:
    """Where a client rests."""
    return "flex:{clients}:client:" + client_id


class _Profile(msgspec.Struct, frozen=True):
    """What no later write changes, as JSON in the field ``profile``."""

    name: str
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    grant_types: tuple[str, ...]
    auth_methods: tuple[str, ...]
    created_at: float
    token_ttl_s: int | None = None
    demo: bool = False
    status_list: bool = False
    calls_per_hour: int | None = None
    authorization_details: list[dict[str, object]] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some clients in the order of their ids; ``next_cursor`` is empty on the last page."""

    clients: tuple[Client, ...]
    next_cursor: str


class Clients:
    """The registered clients. Every operation raises AppError store_unavailable if the store does not answer."""

    def __init__(self, store: Redis) -> None:
        self._store = store

    async def get(self, client_id: str) -> Client | None:
        """Read one client in one round trip; None if there is none."""
        with store_errors():
            fields = await cast("Awaitable[dict[bytes, bytes]]", self._store.hgetall(client_key(client_id)))
        # An absent client is decoded like a present one, so that the time does not tell which it was.
        client = _decode(client_id, fields or _DECOY)
        return client if fields else None

    async def page(self, cursor: str = "", limit: int = 50) -> Page:
        """List clients after ``cursor`` (empty: from the start), at most ``limit`` (1 to 200) of them."""
        limit = max(1, min(limit, MAX_PAGE))
        start = f"({cursor}" if cursor else "-"
        with store_errors():
            found = await self._store.zrange(
                INDEX, cast("Any", start), cast("Any", "+"), bylex=True, offset=0, num=limit + 1
            )
            ids = [cast("bytes", member).decode() for member in found[:limit]]
            async with self._store.pipeline(transaction=False) as pipe:
                for client_id in ids:
                    pipe.hgetall(client_key(client_id))
                replies = await pipe.execute()
        clients = tuple(_decode(client_id, fields) for client_id, fields in zip(ids, replies, strict=True) if fields)
        return Page(clients, ids[-1] if len(found) > limit else "")

    async def create(self, client: Client) -> None:
        """Add a client. Raises AppError conflict if its id is taken."""
        fields = [text for pair in _encode(client).items() for text in pair]
        done = await self._run(scripts.CREATE, client.client_id, [INDEX, DEMO], ["1" if client.demo else "0", *fields])
        if not done:
            raise AppError("conflict", "A client with this id is there already.")

    async def add_secret(self, client_id: str, secret: ClientSecret, *, previous_end_at: float) -> None:
        """Put ``secret`` first; the one before it may be used until ``previous_end_at``, any older one ends now.

        Raises AppError not_found, or conflict if two secrets are live and the older one would lose its time: that
        never happens if ``previous_end_at`` is not after ``secret.created_at``, which ends all earlier secrets.
        """
        answer = await self._run(
            scripts.ADD_SECRET,
            client_id,
            [],
            [secret.secret_hash, repr(secret.created_at), repr(previous_end_at), repr(secret.expires_at or 0.0)],
        )
        if answer == b"two live":
            raise AppError(
                "conflict",
                "Two secrets of this client are live. Wait until the older one ends, or rotate with an overlap of 0, "
                "which ends both.",
            )
        _found(answer)

    async def disable(self, client_id: str, now: float) -> None:
        """Let the client get no more tokens; idempotent. Raises AppError not_found."""
        _found(await self._run(scripts.SET_DISABLED, client_id, [], [repr(now)]))

    async def enable(self, client_id: str) -> None:
        """Take a disablement back; idempotent. Raises AppError not_found."""
        _found(await self._run(scripts.SET_DISABLED, client_id, [], [""]))

    async def delete(self, client_id: str) -> None:
        """Forget the client. Raises AppError not_found."""
        _found(await self._run(scripts.DELETE, client_id, [INDEX, DEMO], []))

    async def demo_ids(self) -> list[str]:
        """Ids of the demo clients."""
        with store_errors():
            members = await cast("Awaitable[set[bytes]]", self._store.smembers(DEMO))
        return sorted(member.decode() for member in members)

    async def claim_pepper(self, fingerprint: str) -> None:
        """Bind the store to the pepper under which its secrets are hashed; the first to ask decides.

        Raises AppError conflict if it was bound to another: every secret would be refused.
        """
        with store_errors():
            held = await self._store.set(PEPPER, fingerprint, nx=True, get=True)
        if held is not None and held != fingerprint.encode():
            raise AppError(
                "conflict",
                "The client secrets in this store were hashed with another client-secret.pepper than the one in the "
                "keys folder. Restore that file, or use the var and keys folders that belong together.",
            )

    async def _run(self, script: str, client_id: str, keys: Sequence[str], arguments: Sequence[str | bytes]) -> Any:
        names = [client_key(client_id), CHANGES, N_CHANGES, *keys]
        with store_errors():
            return await self._store.eval(
                script, len(names), *names, client_id, str(MAX_CHANGES), *cast("Sequence[str]", arguments)
            )


def _found(answer: object) -> None:
    if not answer:
        raise AppError("not_found", "There is no client with this id.")


def _encode(client: Client) -> dict[str, str | bytes]:
    profile = _Profile(
        name=client.name,
        scopes=client.scopes,
        resources=client.resources,
        grant_types=client.grant_types,
        auth_methods=client.auth_methods,
        created_at=client.created_at,
        token_ttl_s=client.token_ttl_s,
        demo=client.demo,
        status_list=client.status_list,
        calls_per_hour=client.calls_per_hour,
        authorization_details=[detail(budget) for budget in client.budgets] or None,
    )
    fields: dict[str, str | bytes] = {"profile": msgspec.json.encode(profile)}
    for number, secret in enumerate(client.secrets, 1):
        fields[f"hash_{number}"] = secret.secret_hash
        fields[f"created_at_{number}"] = repr(secret.created_at)
        fields[f"expires_at_{number}"] = repr(secret.expires_at or 0.0)
    if client.disabled_at is not None:
        fields["disabled_at"] = repr(client.disabled_at)
    return fields


_decode_profile = msgspec.json.Decoder(_Profile).decode


def _decode(client_id: str, fields: dict[bytes, bytes]) -> Client:
    profile = _decode_profile(fields[b"profile"])
    disabled_at = fields.get(b"disabled_at")
    return Client(
        client_id=client_id,
        name=profile.name,
        scopes=profile.scopes,
        resources=profile.resources,
        secrets=tuple(secret for number in (b"1", b"2") if (secret := _decode_secret(fields, number)) is not None),
        created_at=profile.created_at,
        grant_types=profile.grant_types,
        auth_methods=profile.auth_methods,
        token_ttl_s=profile.token_ttl_s,
        disabled_at=None if disabled_at is None else float(disabled_at),
        demo=profile.demo,
        status_list=profile.status_list,
        calls_per_hour=profile.calls_per_hour,
        budgets=parse_details(profile.authorization_details),
    )


def _decode_secret(fields: dict[bytes, bytes], number: bytes) -> ClientSecret | None:
    secret_hash = fields.get(b"hash_" + number)
    if secret_hash is None:
        return None
    return ClientSecret(
        secret_hash=secret_hash,
        created_at=float(fields[b"created_at_" + number]),
        expires_at=float(fields[b"expires_at_" + number]) or None,
    )


_DECOY = {
    name.encode(): text if isinstance(text, bytes) else text.encode()
    for name, text in _encode(
        Client(
            client_id="",
            name="decoy",
            scopes=("predict:*", "explain:*"),
            resources=(),
            secrets=(ClientSecret(secret_hash=bytes(32), created_at=1.0),),
            created_at=1.0,
        )
    ).items()
}
