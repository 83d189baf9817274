"""How ``flex client`` speaks: tables for people, JSON for programs."""

from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from auth_server.records import Client
from auth_server.stores.clients import Page
from cli.output import print_json
from shared.rate_limit.budgets import detail
from shared.secret import Secret
from shared.settings import Settings


class SecretView(msgspec.Struct, frozen=True):
    """One secret as it may be shown: when it began and when it ends (UTC seconds)."""

    created_at: float
    expires_at: float | None
    live: bool


class ClientView(msgspec.Struct, frozen=True):
    """A client as it may be shown. ``scope`` and ``resources`` as at registration; times in UTC seconds."""

    client_id: str
    name: str
    scope: str
    resources: tuple[str, ...]
    grant_types: tuple[str, ...]
    token_endpoint_auth_methods: tuple[str, ...]
    token_ttl_s: int | None
    created_at: float
    disabled_at: float | None
    demo: bool
    status_list: bool
    calls_per_hour: int | None
    authorization_details: tuple[dict[str, object], ...]
    secrets: tuple[SecretView, ...]


class NewSecretView(msgspec.Struct, frozen=True):
    """A client with the secret that was just made, and what a first call needs."""

    client_id: str
    client_secret: str
    name: str
    scope: str
    resources: tuple[str, ...]
    token_endpoint: str
    token_ttl_s: int | None
    previous_secret_expires_at: float | None


class PageView(msgspec.Struct, frozen=True):
    """One page; ``next_cursor`` is empty on the last."""

    clients: tuple[ClientView, ...]
    next_cursor: str


def _view(client: Client, now: float) -> ClientView:
    return ClientView(
        client_id=client.client_id,
        name=client.name,
        scope=" ".join(client.scopes),
        resources=client.resources,
        grant_types=client.grant_types,
        token_endpoint_auth_methods=client.auth_methods,
        token_ttl_s=client.token_ttl_s,
        created_at=client.created_at,
        disabled_at=client.disabled_at,
        demo=client.demo,
        status_list=client.status_list,
        calls_per_hour=client.calls_per_hour,
        authorization_details=tuple(map(detail, client.budgets)),
        secrets=tuple(SecretView(each.created_at, each.expires_at, each.live(now)) for each in client.secrets),
    )


def print_secret(client: Client, secret: Secret, settings: Settings, *, as_json: bool) -> None:
    """Print a client with its new secret; it is shown this once."""
    older = client.secrets[1] if len(client.secrets) > 1 else None
    view = NewSecretView(
        client_id=client.client_id,
        client_secret=secret.reveal(),
        name=client.name,
        scope=" ".join(client.scopes),
        resources=client.resources or (settings.resource,),
        token_endpoint=f"{settings.issuer}/oauth2/token",
        token_ttl_s=client.token_ttl_s,
        previous_secret_expires_at=older.expires_at if older else None,
    )
    if as_json:
        print_json(view)
        return
    table = _plain_table()
    table.add_row("client id", view.client_id)
    table.add_row("client secret", f"[bold]{view.client_secret}[/bold]")
    table.add_row("scope", view.scope)
    table.add_row("resources", escape("\n".join(view.resources)))
    table.add_row("token endpoint", escape(view.token_endpoint))
    if view.previous_secret_expires_at is not None:
        table.add_row("old secret ends", _when(view.previous_secret_expires_at))
    console = Console()
    console.print(table)
    console.print("The secret is shown this once; keep it now.")


def print_page(page: Page, now: float, *, as_json: bool) -> None:
    """Print a list of clients."""
    if as_json:
        print_json(PageView(tuple(_view(client, now) for client in page.clients), page.next_cursor))
        return
    table = Table()
    for column in ("client id", "name", "scope", "secrets", "created", "state"):
        table.add_column(column, no_wrap=column == "client id")
    for client in page.clients:
        live = len(client.live_secrets(now))
        table.add_row(
            client.client_id,
            escape(client.name),
            " ".join(client.scopes),
            str(live),
            _when(client.created_at),
            _state(client),
        )
    console = Console()
    console.print(table if page.clients else "No clients.")
    if page.next_cursor:
        console.print(f"More: flex client list --cursor {page.next_cursor}")


def print_client(client: Client, now: float, *, as_json: bool) -> None:
    """Print one client."""
    if as_json:
        print_json(_view(client, now))
        return
    table = _plain_table()
    table.add_row("client id", client.client_id)
    table.add_row("name", escape(client.name))
    table.add_row("state", _state(client))
    table.add_row("scope", " ".join(client.scopes))
    table.add_row("resources", escape("\n".join(client.resources)) or "the installation's")
    table.add_row("tokens live", f"{client.token_ttl_s} s" if client.token_ttl_s else "the installation's time")
    table.add_row("status list", "named in its tokens" if client.status_list else "none")
    table.add_row("calls an hour", str(client.calls_per_hour or "the installation's limit"))
    for budget in client.budgets:
        table.add_row("budget", escape(msgspec.json.encode(detail(budget)).decode()))
    table.add_row("created", _when(client.created_at))
    for number, secret in enumerate(client.secrets, 1):
        end = "no end" if secret.expires_at is None else f"until {_when(secret.expires_at)}"
        table.add_row(f"secret {number}", f"since {_when(secret.created_at)}, {end if secret.live(now) else 'ended'}")
    Console().print(table)


def print_deleted(client_id: str, *, as_json: bool) -> None:
    """Say that a client is gone."""
    if as_json:
        print_json({"client_id": client_id, "deleted": True})
    else:
        Console().print(f"{client_id} is deleted.")


def _plain_table() -> Table:
    table = Table(box=None, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _state(client: Client) -> str:
    return f"disabled {_when(client.disabled_at)}" if client.disabled_at is not None else "enabled"


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
