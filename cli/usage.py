"""``flex usage``: who used what, and which scopes nobody needed."""

import time
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from auth_server.endpoints.admin_usage import (
    UNUSED_DAYS,
    UnusedScopes,
    UsageView,
    all_clients,
    last_days,
    unused_scopes,
    view,
)
from cli.output import print_json
from cli.session import Session, with_clients
from shared.usage import KEPT_DAYS, UsageLedger

app = typer.Typer(help="Who used what.")
_PAGE = 500


@app.command(epilog="Example: flex usage --days 7 --client scoring-4f9c2a17b3d1 --json")
def usage(
    *,
    client: Annotated[str, typer.Option("--client", help="Only this client.")] = "",
    attribute: Annotated[str, typer.Option("--attribute", help="Only this attribute (* is the profile).")] = "",
    days: Annotated[int, typer.Option("--days", min=1, max=KEPT_DAYS, help="How many days back, today included.")] = 30,
    by_day: Annotated[bool, typer.Option("--by-day", help="One line a day.")] = False,
    unused: Annotated[
        bool, typer.Option("--unused-scopes", help=f"Scopes that nobody used in {UNUSED_DAYS} days, by client.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show calls, rows, explanations, refusals and times by client and attribute; model servers report every 10 s."""
    if unused:
        _print_unused(with_clients(_unused), as_json=as_json)
        return

    async def work(session: Session) -> list[UsageView]:
        ledger, cursor, views = UsageLedger(session.store), "", []
        while True:
            page = await ledger.page(
                last_days(time.time(), days),
                client_id=client,
                attribute=attribute,
                by_day=by_day,
                cursor=cursor,
                limit=_PAGE,
            )
            views += [view(line, counts, by_day=by_day) for line, counts in page.lines]
            if not (cursor := page.next_cursor):
                return views

    _print(with_clients(work), as_json=as_json)


async def _unused(session: Session) -> list[UnusedScopes]:
    clients = [client async for client in all_clients(session.clients)]
    return await unused_scopes(clients, UsageLedger(session.store), time.time())


def _print(views: list[UsageView], *, as_json: bool) -> None:
    if as_json:
        print_json({"items": views})
        return
    table = Table(box=box.SIMPLE_HEAD, padding=0, collapse_padding=True)
    names = ("client", "attribute", "day") if any(each.day for each in views) else ("client", "attribute")
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name == "day")
    for name in ("calls", "rows", "explained", "limited", "denied", "invalid", "failed", "mean ms"):
        table.add_column(name, justify="right", no_wrap=name != "mean ms")
    for each in views:
        counts = (each.calls, each.rows, each.explanations, each.limited, each.denied, each.invalid, each.failed)
        mean_ms = each.time_us / each.calls / 1000 if each.calls else 0.0
        who = (escape(each.client_id), each.attribute, each.day or "")[: len(names)]
        table.add_row(*who, *(f"{count:,}" for count in counts), f"{mean_ms:.2f}")
    Console().print(table if views else "Nobody called.")


def _print_unused(unused: list[UnusedScopes], *, as_json: bool) -> None:
    if as_json:
        print_json({"items": unused, "days": UNUSED_DAYS})
        return
    table = Table()
    table.add_column("client", no_wrap=True)
    table.add_column("unused scopes")
    table.add_column("since", no_wrap=True)
    for each in unused:
        table.add_row(each.client_id, " ".join(each.scopes), each.since)
    Console().print(table if unused else "Every scope was used.")
