"""Write the documentation that comes from code: settings, errors, events, and a table of docs/operations.md.

Run by ``make docs``; a test compares.
"""

import dataclasses
from pathlib import Path

from auth_server.settings import AuthSettings
from cli import fault_table
from model_server.settings import ModelSettings
from shared import event_catalogue
from shared.error_catalogue import CATALOGUE
from shared.events import MAX_LINE_BYTES, Event
from shared.settings import Settings

CONFIGURATION_HEAD = """# Configuration

Generated from the settings classes by `make docs`; do not edit.

Settings are read once at start, from the environment and from `.env` in the working folder (the environment wins).
All problems are reported at once and nothing starts until there are none. Times are in seconds.

"""
ERRORS_HEAD = """# Errors

Generated from the error catalogue by `make docs`; do not edit.

Every error is `application/json`. The token, revocation and introspection endpoints answer in the form of RFC 6749
section 5.2 (`error`, `error_description`); everything else has `error` (one sentence) and the members of RFC 9457,
where `type` is `urn:flex:error:<code>` and `instance` is the request id that the log knows. `errors` has one entry for
each wrong field, with an RFC 6901 pointer. 429 and 503 say in `Retry-After` when to come back; where a limit was hit,
`type` is the quota problem type registered for it and `violated-policies` names the limit as `RateLimit-Policy` does.

"""
EVENTS_HEAD = f"""# Events

Generated from the event catalogue by `make docs`; do not edit.

Both servers write events on standard output, one JSON object of at most {MAX_LINE_BYTES} bytes a line: `ts` (UTC
seconds), `server`, `event`, and short facts; never a token, a secret or input. What a `flex` command changes is written
to `operator-events.jsonl` in the var folder. This is the whole vocabulary; an action stands where an operator has one.

"""
TABLE_START, TABLE_END = "<!-- written by `make docs` -->\n", "<!-- until here -->\n"
DOCS = Path(__file__).parents[1] / "docs"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def configuration() -> str:
    """Give docs/configuration.md: every variable, its default and its meaning."""
    rows = ["| variable | default | read by | meaning |", "|---|---|---|---|"]
    common = {spec.name for spec in dataclasses.fields(Settings)}
    for owner, settings in (("both", Settings), ("auth server", AuthSettings), ("model server", ModelSettings)):
        for spec in dataclasses.fields(settings):
            if owner != "both" and spec.name in common:
                continue
            default = f"`{spec.metadata['default']}`" if spec.metadata["default"] else "empty"
            rows.append(f"| `{spec.metadata['env']}` | {default} | {owner} | {_cell(spec.metadata['help'])} |")
    return CONFIGURATION_HEAD + "\n".join(rows) + "\n"


def errors() -> str:
    """Give docs/errors.md: every code, its status, cause and cure."""
    rows = ["| code | status | what the caller reads | cause | cure |", "|---|---|---|---|---|"]
    rows += [
        f"| `{kind.code}` | {kind.status} | {_cell(kind.detail)} | {_cell(kind.cause)} | {_cell(kind.cure)} |"
        for kind in sorted(CATALOGUE.values(), key=lambda kind: (kind.status, kind.code))
    ]
    return ERRORS_HEAD + "\n".join(rows) + "\n"


def events() -> str:
    """Give docs/events.md: every event, what it means and what to do."""
    rows = ["| event | what happened | action |", "|---|---|---|"]
    kinds = ((event, event_catalogue.CATALOGUE[event]) for event in Event)
    rows += [f"| `{event}` | {_cell(kind.meaning)} | {_cell(kind.action)} |" for event, kind in kinds]
    return EVENTS_HEAD + "\n".join(rows) + "\n"


def operations() -> str:
    """Give docs/operations.md as it is, with its table written again."""
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    before, _, rest = page.partition(TABLE_START)
    _, _, after = rest.partition(TABLE_END)
    return f"{before}{TABLE_START}\n{fault_table.markdown()}\n{TABLE_END}{after}"


PAGES = {"configuration.md": configuration, "errors.md": errors, "events.md": events, "operations.md": operations}


def main() -> None:
    """Write every generated page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
