"""Turns a public-domain IPIP statement into a label and into the halves of an explanation."""

import re
from dataclasses import dataclass

from training.problem import Feature
from training.tables import read

_SECOND_PERSON = ((r"\bmyself\b", "yourself"), (r"\bmy\b", "your"))


@dataclass(frozen=True, slots=True)
class Statement:
    """One IPIP statement: which pool asked it, its id there, our feature name, its wording ("Am always prepared.")."""

    pool: str
    item: str
    name: str
    text: str


def statements(pool: str) -> list[Statement]:
    """All candidate statements of one pool ("markers" or "spi"), in file order.

    Two SPI statements are not in the file and so never candidates: q_578 and q_811, self-dislike and hopelessness, are
    what a depression screen asks, and health is never an input.
    """
    table = read("statements.csv")
    rows = zip(*(table.words(column) for column in ("pool", "item", "name", "text")), strict=True)
    return [Statement(*map(str, row)) for row in rows if row[0] == pool]


def first_person(text: str) -> str:
    """`Am always prepared.` becomes `I am always prepared.`."""
    return f"I {text[0].lower()}{text[1:]}"


def second_person(text: str) -> str:
    """`Am always prepared.` becomes `you are always prepared`."""
    phrase = text.rstrip(".")
    phrase = f"are{phrase[2:]}" if phrase.startswith("Am ") else f"{phrase[0].lower()}{phrase[1:]}"
    for pattern, word in _SECOND_PERSON:
        phrase = re.sub(pattern, word, phrase)
    return f"you {phrase}"


def survey_feature(statement: Statement, example: float) -> Feature:
    """The record field of one statement: 1 (disagree) to 5 (agree), halves allowed."""
    phrase = second_person(statement.text)
    return Feature(
        name=statement.name,
        label=first_person(statement.text),
        unit="1-5 agreement",
        low=1.0,
        high=5.0,
        integer=False,
        example=example,
        reason_more=f"you agree more than most that {phrase}",
        reason_less=f"you agree less than most that {phrase}",
        source=statement.item,
    )
