"""The description of the server for people: a table a topic, made from the OpenAPI document; nothing is loaded."""

from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import Any

Json = dict[str, Any]
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}h2{margin-top:2rem}"
    "td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #ddd}td:first-child{width:24rem}"
    "code{font:14px/1.5 ui-monospace,monospace}ul{margin:.2rem 0;padding-left:1.2rem}li{font-size:14px;color:#475569}"
    "pre{overflow:auto;background:#f6f8fa;padding:1rem}"
)


def page(described: Json) -> str:
    """Write the page for an OpenAPI document whose operations have one tag each, those of one tag together."""
    issuer, info = described["servers"][0]["url"], described["info"]
    call = f"curl -u CLIENT_ID:CLIENT_SECRET -d grant_type=client_credentials \\\n  {issuer}/oauth2/token"
    calls = [
        (operation["tags"][0], f"{method.upper()} {path}", operation)
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]
    topics = "".join(
        f"<h2>{escape(topic)}</h2><table>{''.join(_row(call, operation) for _, call, operation in rows)}</table>"
        for topic, rows in groupby(calls, key=lambda row: row[0])
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Flex auth server</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{escape(info['title'])}</h1>"
        f'<p>{escape(info["summary"])} For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"<pre>{escape(call)}</pre>{topics}</body></html>"
    )


def _row(call: str, operation: Json) -> str:
    notes = "".join(f"<li>{note}</li>" for note in _notes(operation))
    return (
        f"<tr><td><code>{escape(call)}</code></td><td>{escape(operation['summary'])}"
        f"{f'<ul>{notes}</ul>' if notes else ''}</td></tr>"
    )


def _notes(operation: Json) -> Iterator[str]:
    """What a caller sends, and the scope that it needs."""
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        properties = media["schema"]["properties"]
        if kind == "application/json":
            yield "JSON body: " + ", ".join(f"<code>{escape(name)}</code>" for name in properties)
        else:
            yield from (
                f"<code>{escape(name)}</code>: {escape(each['description'])}" for name, each in properties.items()
            )
    if query := [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]:
        yield "parameters: " + ", ".join(f"<code>{escape(name)}</code>" for name in query)
    if scopes := [scope for scheme in operation["security"] for scope in scheme.get("bearer", ())]:
        yield f"scope <code>{escape(scopes[0])}</code>, token for the issuer itself"
