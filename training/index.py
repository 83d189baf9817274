"""Writes `models/README.md`: all shipped bundles in one table, read from their metadata."""

import tomllib
from pathlib import Path

from training.markdown import table
from training.recipes import ATTRIBUTES

_HEAD = ("attribute", "what was measured", "R²", "ridge", "80 % half-width", "bundle")
_OPENING = (
    "Each folder holds one attribute model and everything said about it: `model.txt` (LightGBM text), `attribute.toml` "
    "(record schema, intervals, percentiles, digests), `golden.jsonl` (made-up records with exact raw scores), "
    "`card.md` and `card.png`. Read the card before using a score. `make models` makes all of it again, byte for byte, "
    "from the tables in `training/data/`; `python -m training --check` proves it.\n\n"
    "The survey attributes are estimated from answers to public-domain statements, the play attributes from a game's "
    "own session log. Neither is made from the other, and none is for hiring, admission, pay, discipline, credit or "
    "matchmaking bans."
)


def text(models: Path) -> str:
    """The page's Markdown, from the bundles that stand in `models`."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for attribute in ATTRIBUTES:
        for path in sorted((models / attribute.id).glob("[0-9]*/attribute.toml")):
            found = tomllib.loads(path.read_text("utf-8"))
            metrics, width = found["metrics"], found["interval"]["half_width_full"]
            figures = (f"{metrics['r2']:.2f}", f"{metrics['r2_ridge']:.2f}", f"± {width:.1f}")
            link = f"[card]({found['id']}/{found['version']}/card.md)"
            rows.append((f"`{found['id']}`", found["target"], *figures, link))
    return f"# Shipped attribute models\n\n{_OPENING}\n\n{table(rows)}\n"


def current(models: Path) -> bool:
    """Whether the page in place says what the bundles beside it say."""
    page = models / "README.md"
    return page.is_file() and page.read_text("utf-8") == text(models)


def publish(models: Path) -> None:
    """Put the page in place by rename, so that no reader sees half of it."""
    fresh = models / ".README.md.new"
    fresh.write_text(text(models), "utf-8")
    fresh.rename(models / "README.md")
