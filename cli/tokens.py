"""``flex token …``: get an access token as any client would, or look into one."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from auth_server.preparation import DemoFile
from auth_server.settings import DEMO_FILE
from cli import token_revocations
from cli.output import fail, one_line, one_line_errors, print_json, sentence_of
from shared import base64url
from shared.access_token import AccessToken, TokenRefused, verify_access_token
from shared.key_sets import MAX_BODY_BYTES, KeySetRefused, StaticKeySet, parse_key_set
from shared.secret import Secret
from shared.settings import Settings
from shared.strict_json import decode_object

app = typer.Typer(name="token", help="Access tokens: get one, see what one says, end some early.", no_args_is_help=True)

SECRET_VARIABLE = "FLEX_CLIENT_SECRET"  # noqa: S105
_TIMEOUT_S = 10.0

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Inspection(msgspec.Struct, frozen=True):
    """What a token says. ``verified``, ``revoked`` None: nobody could check; ``problem``: why not, or what is wrong."""

    verified: bool | None
    revoked: bool | None
    problem: str
    header: dict[str, Any]
    claims: dict[str, Any]
    expires_in_s: float | None


@app.command(epilog="Example: flex token issue --client-id scoring-4f9c2a17b3d1 --client-secret-file secret.txt")
def issue(
    *,
    client_id: Annotated[str, typer.Option("--client-id", help="Default: the demo client.")] = "",
    client_secret_file: Annotated[
        Path | None, typer.Option("--client-secret-file", help=f"File with the secret (or set {SECRET_VARIABLE}).")
    ] = None,
    scope: Annotated[str, typer.Option("--scope", help="Scopes to ask for (default: all that were granted).")] = "",
    resource: Annotated[
        list[str] | None, typer.Option("--resource", help="Resource to call (may repeat; default: the client's).")
    ] = None,
    token_endpoint: Annotated[str, typer.Option("--token-endpoint", help="Default: the issuer's.")] = "",
    as_json: Json = False,
) -> None:
    """Get an access token with the client credentials grant and print it: the token alone, or the whole answer."""
    with one_line_errors():
        settings = Settings.read()
        name, secret = _credentials(settings, client_id, client_secret_file)
        form: dict[str, str | list[str]] = {"grant_type": "client_credentials", "resource": list(resource or ())}
        form |= {"scope": scope} if scope else {}
        url = token_endpoint or f"{settings.issuer}/oauth2/token"
        answer = _post(url, form, name, secret)
        if as_json:
            print_json(answer)
        else:
            typer.echo(str(answer.get("access_token", "")))


@app.command(epilog="Example: flex token issue | flex token inspect -")
def inspect(
    token: Annotated[str, typer.Argument(metavar="TOKEN|-", help="The token, or - to read it from standard input.")],
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Do not fetch the issuer's keys; verify nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a token says, whether it is verified, and whether it is revoked.

    It is verified with the keys of the configured issuer, if they can be read, and looked up in the revocation feed of
    this installation's store, if it has one. The token is sent nowhere. Exit code 1 if it is not a JWT, or was checked
    and found wanting.
    """
    with one_line_errors():
        settings = Settings.read()
        raw_token = (sys.stdin.read() if token == "-" else token).strip()  # noqa: S105
        seen = _inspect(raw_token, settings, offline=offline)
        if as_json:
            print_json(seen)
        else:
            _print_inspection(seen)
        if seen.verified is False or seen.revoked:
            raise typer.Exit(1)


@app.command(epilog="Example: flex token revoke --client scoring-4f9c2a17b3d1   (or: flex token revoke - < token.txt)")
def revoke(
    token: Annotated[
        str, typer.Argument(metavar="TOKEN|-", help="One token, or - to read it from standard input.")
    ] = "",
    *,
    jti: Annotated[str, typer.Option("--jti", help="One token by its id.")] = "",
    client: Annotated[str, typer.Option("--client", help="All tokens of a client until now.")] = "",
    subject: Annotated[str, typer.Option("--subject", help="All tokens about a subject until now.")] = "",
    grant: Annotated[str, typer.Option("--grant", help="All tokens of a grant until now.")] = "",
    api_key: Annotated[str, typer.Option("--api-key", help="All tokens of an API key until now.")] = "",
    as_json: Json = False,
) -> None:
    """End tokens early, at every verifier within milliseconds; prints where that stands in the revocation feed.

    New tokens are not touched: to keep a client from getting more, disable it.
    """
    asked = {"token": token, "jti": jti, "client": client, "subject": subject, "grant": grant, "api_key": api_key}
    named = [(kind, value) for kind, value in asked.items() if value]
    if len(named) != 1:
        raise typer.BadParameter("name one: a token, --jti, --client, --subject, --grant or --api-key")
    kind, value = named[0]
    if value == "-" and kind == "token":
        value = sys.stdin.read().strip()
    done = token_revocations.revoke(kind, value)
    if as_json:
        print_json(done)
    else:
        typer.echo(
            f"Revoked {done.kind.replace('_', ' ')} {one_line(done.value)} (number {done.sequence} in the feed)."
        )


@app.command("reseal-feed", epilog="Example: flex token reseal-feed")
def reseal_feed(*, as_json: Json = False) -> None:
    """Mend the revocation feed after entries were deleted or altered in the store, or its feed key was replaced.

    What is authentic stays in force, what is gone is accepted as gone: end it again, or drop the signing key.
    """
    n_kept = token_revocations.reseal()
    if as_json:
        print_json({"kept": n_kept})
    else:
        typer.echo(f"The feed goes on in a new epoch with {n_kept} revocations; followers read it anew within seconds.")


def _credentials(settings: Settings, client_id: str, secret_file: Path | None) -> tuple[str, Secret]:
    held_elsewhere = os.environ.get(SECRET_VARIABLE, "")
    secret = secret_file.read_text("utf-8").strip() if secret_file is not None else held_elsewhere
    if client_id and secret:
        return client_id, Secret(secret)
    demo = settings.var_dir / DEMO_FILE
    if client_id or secret or not demo.is_file():
        fail(f"name the client with --client-id and its secret with --client-secret-file or {SECRET_VARIABLE}.")
    held = msgspec.json.decode(demo.read_bytes(), type=DemoFile)
    return held.client_id, Secret(held.client_secret)


def _post(url: str, form: dict[str, str | list[str]], name: str, secret: Secret) -> dict[str, Any]:
    try:
        answer = httpx.post(url, data=form, auth=(name, secret.reveal()), timeout=_TIMEOUT_S, trust_env=False)
        content: dict[str, Any] = answer.json()
    except httpx.HTTPError as error:
        fail(f"{url} does not answer ({type(error).__name__}); is the auth server running?")
    except ValueError:
        fail(f"{url} gave no JSON; is it a token endpoint?")
    if answer.status_code != 200:
        fail(f"{content.get('error', 'refused')}: {content.get('error_description', f'status {answer.status_code}')}")
    return content


def _inspect(raw_token: str, settings: Settings, *, offline: bool) -> Inspection:
    parts = raw_token.split(".")
    try:
        header, claims = (decode_object(base64url.decode(part.encode())) for part in parts[:2])
    except (ValueError, RecursionError):
        fail("this is not a JWT.")
    verified, revoked, problem = _check(raw_token, settings, claims) if not offline else (None, None, "not asked for")
    expiry = claims.get("exp")
    expires_in_s = round(expiry - time.time(), 1) if isinstance(expiry, int | float) else None
    return Inspection(verified, revoked, problem, header, claims, expires_in_s)


def _check(raw_token: str, settings: Settings, claims: dict[str, Any]) -> tuple[bool | None, bool | None, str]:
    token, verified, problem = _verify(raw_token, settings, claims)
    if token is None:
        return verified, None, problem
    try:
        reason = token_revocations.why_revoked(settings, token)
    except Exception as unknown:  # noqa: BLE001 - whatever keeps us from knowing is said, and the rest is shown
        return True, None, f"it can't be seen whether it is revoked: {sentence_of(unknown)}"
    return True, reason is not None, reason or ""


def _verify(raw_token: str, settings: Settings, claims: dict[str, Any]) -> tuple[AccessToken | None, bool | None, str]:
    """Check with the configured issuer's keys: never with those of whoever the token names."""
    try:
        metadata = _get(f"{settings.issuer}/.well-known/oauth-authorization-server")
        if metadata.get("issuer") != settings.issuer:
            return None, None, "the issuer's metadata is another issuer's"
        body = _get_bytes(str(metadata["jwks_uri"]))
        keys = StaticKeySet(parse_key_set(body, settings.issuer))
    except (httpx.HTTPError, KeySetRefused, ValueError, LookupError) as error:
        return None, None, f"the keys of {settings.issuer} can't be read ({type(error).__name__})"
    audience = claims.get("aud")
    expected = audience if isinstance(audience, str) else settings.resource
    try:
        token = verify_access_token(raw_token, keys, issuer=settings.issuer, audience=expected, now=time.time())
    except TokenRefused as refused:
        return None, False, refused.reason
    return token, True, ""


def _get(url: str) -> dict[str, Any]:
    return decode_object(_get_bytes(url))


def _get_bytes(url: str) -> bytes:
    answer = httpx.get(url, timeout=_TIMEOUT_S, trust_env=False)
    answer.raise_for_status()
    if len(answer.content) > MAX_BODY_BYTES:
        raise ValueError("too large")
    return answer.content


def _print_inspection(seen: Inspection) -> None:
    console = Console()
    if seen.revoked:
        console.print(f"[red]revoked[/red]: {one_line(seen.problem)}")
    elif seen.verified:
        console.print("[green]verified[/green]: signed by the issuer's key, in time")
        console.print(f"[yellow]{one_line(seen.problem)}[/yellow]" if seen.problem else "not revoked")
    elif seen.verified is None:
        console.print(f"[yellow]not verified[/yellow]: {one_line(seen.problem)}")
    else:
        console.print(f"[red]refused[/red]: {one_line(seen.problem)}")
    table = Table(box=None, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for part in (seen.header, seen.claims):
        for name, value in part.items():
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            table.add_row(one_line(name), escape(one_line(text)))
    if seen.expires_in_s is not None:
        table.add_row("expires in", f"{seen.expires_in_s:.0f} s")
    console.print(table)
