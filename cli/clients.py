"""``flex client …``: register clients, look at them, rotate their secrets, end them.

The commands work on the store itself, so they also work while the auth server is stopped; a running server follows
within milliseconds.
"""

import re
import sys
import time
from typing import Annotated

import typer

from auth_server import preparation
from auth_server.oauth.registration import ClientRequest, Registration, register
from auth_server.records import Client, ClientSecret
from auth_server.settings import DEMO_FILE
from auth_server.stores.client_secrets import new_secret
from auth_server.stores.clients import Page
from auth_server.stores.endings import end_tokens_of_client
from auth_server.stores.revocations import note_written
from cli import clients_output as output
from cli.session import Session, with_clients
from shared.errors import AppError
from shared.events import Event, emit
from shared.revocations.entries import client_revoked

app = typer.Typer(
    name="client", help="Clients: the services that may get tokens, their scopes and secrets.", no_args_is_help=True
)

MAX_OVERLAP_S = 30 * 86400
_DURATION = re.compile(r"(\d{1,9})([smhd]?)\Z")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ClientId = Annotated[str, typer.Argument(help="The client's id.")]


def _duration(text: str) -> int:
    found = _DURATION.match(text)
    seconds = int(found[1]) * _UNIT_S[found[2]] if found else -1
    if not 0 <= seconds <= MAX_OVERLAP_S:
        raise typer.BadParameter("must be 0 to 30d, such as 0, 90s, 15m, 24h or 7d")
    return seconds


@app.command(epilog="Example: flex client create --name scoring --scope 'predict:grit explain:grit' --json")
def create(
    *,
    name: Annotated[str, typer.Option("--name", help="What people call the client; part of its id.")],
    scope: Annotated[str, typer.Option("--scope", help="Scopes it may use, separated by spaces.")],
    resource: Annotated[
        list[str] | None,
        typer.Option("--resource", help="Resource it may call (may repeat; default: this installation's)."),
    ] = None,
    token_ttl: Annotated[
        int | None, typer.Option("--token-ttl", help="Life of its tokens, 60 to 3600 s (default: the installation's).")
    ] = None,
    status_list: Annotated[
        bool, typer.Option("--status-list", help="Its tokens name a Token Status List, for verifiers of other makers.")
    ] = False,
    rate_limit: Annotated[
        int | None, typer.Option("--rate-limit", help="Calls it may make in an hour (default: the installation's).")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            help="Rows it may use, as JSON (may repeat): "
            '{"type":"model_call","attributes":["grit"],"rows":500,"period":"day"}.',
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Register a client and print its secret, once."""

    async def work(session: Session) -> Registration:
        asked = ClientRequest(
            name=name,
            scope=scope,
            resources=tuple(resource or ()),
            token_ttl_s=token_ttl,
            status_list=status_list,
            calls_per_hour=rate_limit,
            budgets=tuple(budget or ()),
        )
        made = register(asked, session.pepper, time.time())
        await session.clients.create(made.client)
        emit(Event.CLIENT_CREATED, client_id=made.client.client_id, scope=" ".join(made.client.scopes))
        output.print_secret(made.client, made.secret, session.settings, as_json=as_json)
        return made

    with_clients(work)


@app.command(name="list", epilog="Example: flex client list --limit 20 --json")
def list_clients(
    *,
    cursor: Annotated[str, typer.Option("--cursor", help="Go on after this id (next_cursor of the last page).")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="How many at most.")] = 50,
    as_json: Json = False,
) -> None:
    """List clients in the order of their ids."""

    async def work(session: Session) -> Page:
        return await session.clients.page(cursor, limit)

    output.print_page(with_clients(work), time.time(), as_json=as_json)


@app.command(epilog="Example: flex client show scoring-4f9c2a17b3d1")
def show(client_id: ClientId, *, as_json: Json = False) -> None:
    """Show one client; its secrets only by their age."""
    output.print_client(with_clients(lambda session: _get(session, client_id)), time.time(), as_json=as_json)


@app.command(name="rotate-secret", epilog="Example: flex client rotate-secret scoring-4f9c2a17b3d1 --overlap 24h")
def rotate_secret(
    client_id: ClientId,
    *,
    overlap: Annotated[
        str,
        typer.Option("--overlap", help="How long the old secret stays good (90s, 15m, 24h, 7d; 0: it ends now) [24h]."),
    ] = "",
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Somebody else has the secret: end all old ones and all tokens now.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Give a client a new secret and print it, once; the old one stays good for the overlap."""
    if compromised and overlap not in {"", "0"}:
        raise typer.BadParameter("a compromised secret has no overlap")
    overlap_s = 0 if compromised else _duration(overlap or "24h")

    async def work(session: Session) -> None:
        secret, now = new_secret(), time.time()
        made = ClientSecret(secret_hash=session.pepper.secret_hash(secret.reveal()), created_at=now)
        await session.clients.add_secret(client_id, made, previous_end_at=now + overlap_s)
        emit(Event.CLIENT_SECRET_ROTATED, client_id=client_id, overlap_s=overlap_s, compromised=compromised)
        preparation.follow_rotation(session.settings.var_dir / DEMO_FILE, client_id, secret)
        # The secret first: if the tokens can't be ended now, it must not be lost as well.
        output.print_secret(await _get(session, client_id), secret, session.settings, as_json=as_json)
        if compromised:
            await _end_tokens(session, client_id, "secret_compromised")

    with_clients(work)


@app.command(epilog="Example: flex client disable scoring-4f9c2a17b3d1")
def disable(client_id: ClientId, *, as_json: Json = False) -> None:
    """Let a client get no more tokens, and end those that it holds, at once."""

    async def work(session: Session) -> Client:
        await session.clients.disable(client_id, time.time())
        emit(Event.CLIENT_DISABLED, client_id=client_id)
        await _end_tokens(session, client_id, "client_disabled")
        return await _get(session, client_id)

    output.print_client(with_clients(work), time.time(), as_json=as_json)


@app.command(epilog="Example: flex client enable scoring-4f9c2a17b3d1")
def enable(client_id: ClientId, *, as_json: Json = False) -> None:
    """Take a disablement back; the tokens that it ended stay ended."""

    async def work(session: Session) -> Client:
        await session.clients.enable(client_id)
        emit(Event.CLIENT_DISABLED, client_id=client_id, disabled=False)
        return await _get(session, client_id)

    output.print_client(with_clients(work), time.time(), as_json=as_json)


@app.command(epilog="Example: flex client delete scoring-4f9c2a17b3d1 --yes")
def delete(
    client_id: ClientId,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask (nor is anybody asked without a terminal).")] = False,
    as_json: Json = False,
) -> None:
    """Forget a client and its secrets for ever, and end its tokens."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete {client_id}?", abort=True, err=True)

    async def work(session: Session) -> None:
        await session.clients.delete(client_id)
        emit(Event.CLIENT_DELETED, client_id=client_id)
        preparation.follow_deletion(session.settings.var_dir / DEMO_FILE, client_id)
        await _end_tokens(session, client_id, "client_deleted")

    with_clients(work)
    output.print_deleted(client_id, as_json=as_json)


async def _end_tokens(session: Session, client_id: str, reason: str) -> None:
    position = await end_tokens_of_client(session.feed, client_id, time.time)
    note_written(client_revoked(client_id, time.time()), position, by="operator", reason=reason)


async def _get(session: Session, client_id: str) -> Client:
    client = await session.clients.get(client_id)
    if client is None:
        raise AppError("not_found", "There is no client with this id.")
    return client
