"""The few pieces of Markdown that the card and the index are made of."""

from collections.abc import Sequence


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; the first row is the head. A vertical bar inside a cell becomes a slash."""
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def section(title: str, *paragraphs: str) -> str:
    """A second-level heading and its paragraphs, a blank line between each; empty paragraphs are left out."""
    return "\n\n".join((f"## {title}", *(paragraph for paragraph in paragraphs if paragraph)))


def bullets(*lines: str) -> str:
    """A list, one line each; empty lines are left out."""
    return "\n".join(f"- {line}" for line in lines if line)


def percent(share: float, digits: int = 0) -> str:
    """0.256 becomes `26 %`."""
    return f"{share * 100.0:.{digits}f} %"
