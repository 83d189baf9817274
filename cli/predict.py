"""``flex predict`` and ``flex explain``: one record, scored by a running model server, as any caller would do it."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import fail, one_line, one_line_errors, print_json
from shared.settings import Settings

if TYPE_CHECKING:
    from flex_client import Explanation, FlexClient, Prediction

predict_app = typer.Typer(add_completion=False)
explain_app = typer.Typer(add_completion=False)

_POINTS = {"pomp_0_100": "of 100", "percent": "%"}

AttributeId = Annotated[str, typer.Argument(metavar="ID", help="The attribute's id, such as grit.")]
FeaturesText = Annotated[
    str | None,
    typer.Option("--features", metavar="JSON|@FILE|-", help="The record's features, or a whole request body."),
]
Example = Annotated[bool, typer.Option("--example", help="Use the attribute's own example record.")]
RecordId = Annotated[str | None, typer.Option("--id", help="An id of yours that comes back with the answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
DemoFile = Annotated[
    Path | None, typer.Option("--client-file", help="Client file (default: demo-client.json in the var folder).")
]
ClientId = Annotated[str | None, typer.Option("--client-id", help="Use this client instead of a client file.")]
SecretFile = Annotated[Path | None, typer.Option("--client-secret-file", help="File that holds the client's secret.")]
TokenUrl = Annotated[str | None, typer.Option("--token-endpoint", help="Default: the issuer's /oauth2/token.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="The model server (default: the resource).")]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and where: as the options say, unverified."""

    client_file: Path | None
    client_id: str | None
    client_secret_file: Path | None
    token_endpoint: str | None
    base_url: str | None


@predict_app.command(epilog="Example: flex predict grit --features '{\"ipip_always_prepared\": 4}' --json")
def predict(
    attribute_id: AttributeId,
    *,
    features: FeaturesText = None,
    example: Example = False,
    record_id: RecordId = None,
    client_file: DemoFile = None,
    client_id: ClientId = None,
    client_secret_file: SecretFile = None,
    token_endpoint: TokenUrl = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Score one record with a running model server."""
    caller = Caller(client_file, client_id, client_secret_file, token_endpoint, base_url)
    with one_line_errors():
        record = _features(features, example=example)
        with _client(caller) as client:
            record = _example(client, attribute_id) if record is None else record
            answer = client.predict(attribute_id, record, record_id)
        if as_json:
            print_json(answer)
        else:
            _tell_prediction(answer)


@explain_app.command(epilog="Example: flex explain grit --features @record.json")
def explain(
    attribute_id: AttributeId,
    *,
    features: FeaturesText = None,
    example: Example = False,
    record_id: RecordId = None,
    client_file: DemoFile = None,
    client_id: ClientId = None,
    client_secret_file: SecretFile = None,
    token_endpoint: TokenUrl = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Explain one record's score in plain words."""
    caller = Caller(client_file, client_id, client_secret_file, token_endpoint, base_url)
    with one_line_errors():
        record = _features(features, example=example)
        with _client(caller) as client:
            record = _example(client, attribute_id) if record is None else record
            answer = client.explain(attribute_id, record, record_id)
        if as_json:
            print_json(answer)
        else:
            _tell_explanation(answer)


def _client(caller: Caller) -> "FlexClient":
    from flex_client import ClientCredentials, FlexClient  # noqa: PLC0415 - httpx is slow to load, --help need not

    settings = Settings.read()
    if caller.client_id is None:
        path = caller.client_file or settings.var_dir / "demo-client.json"
        if not path.exists():
            fail(f"There is no {path}. Start 'flex serve all' once, or name a client with --client-id.")
        return FlexClient.from_demo(path, caller.base_url)
    if caller.client_secret_file is None:
        raise typer.BadParameter("--client-id needs --client-secret-file.")
    credentials = ClientCredentials(
        caller.token_endpoint or f"{settings.issuer}/oauth2/token",
        caller.client_id,
        caller.client_secret_file.read_text(encoding="utf-8").strip(),
        resource=settings.resource,
    )
    return FlexClient(caller.base_url or settings.resource, credentials)


def _features(text: str | None, *, example: bool) -> Mapping[str, Any] | None:
    """Read ``--features``: the features or a whole body, not yet validated; None for the attribute's example."""
    if example == (text is not None):
        raise typer.BadParameter("Give the record with --features, or use --example.")
    if text is None:
        return None
    raw = sys.stdin.read() if text == "-" else Path(text[1:]).read_text(encoding="utf-8") if text[:1] == "@" else text
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise typer.BadParameter("--features is not JSON.") from None
    if not isinstance(body, dict):
        raise typer.BadParameter("--features must be a JSON object.")
    features = body.get("features", body)
    if not isinstance(features, dict):
        raise typer.BadParameter("'features' must be an object of names and numbers.")
    return features


def _example(client: "FlexClient", attribute_id: str) -> Mapping[str, Any]:
    features: Mapping[str, Any] = client.attribute(attribute_id).example["features"]
    return features


def _tell_prediction(answer: "Prediction") -> None:
    if answer.score is None or answer.interval80 is None:
        _tell_too_little(answer)
    else:
        low, high = answer.interval80
        typer.echo(f"{answer.attribute}: {_amount(answer.score, answer.unit)}, {answer.band}")
        typer.echo(f"  80 of 100 such records lie between {low:.1f} and {high:.1f}; percentile {answer.percentile}")
    _tell_remarks(answer)


def _tell_explanation(answer: "Explanation") -> None:
    if answer.score is None:
        _tell_too_little(answer)
    else:
        typer.echo(f"{answer.attribute}: {_amount(answer.score, answer.unit)}")
    for reason in answer.reasons:
        typer.echo(f"  • {one_line(reason)}")
    if answer.would_narrow_most is not None:
        typer.echo(f"  {one_line(answer.would_narrow_most.message)}")
    _tell_remarks(answer)


def _tell_too_little(answer: "Prediction | Explanation") -> None:
    typer.echo(f"{answer.attribute}: no score, too little is known ({answer.coverage:.0%} of what the model uses).")


def _tell_remarks(answer: "Prediction | Explanation") -> None:
    typer.echo(f"  coverage {answer.coverage:.0%}, model version {answer.model.version} ({answer.model.sha256[:12]})")
    for name, entries in (("missing", answer.missing), ("warnings", answer.warnings), ("not for", answer.not_for)):
        if entries:
            typer.echo(f"  {name}: {one_line(', '.join(entries))}")


def _amount(score: float, unit: str) -> str:
    return f"{score:.1f} {_POINTS.get(unit, unit)}"
