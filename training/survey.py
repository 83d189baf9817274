"""The survey pack's rows: Grit from 12 Big-Five markers, seven SPI facets from 24 shared statements."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from training.choose import directions, greedy
from training.folds import Folds, split
from training.problem import Feature, Problem
from training.recipes import GRIT, SPI
from training.tables import Floats, Table, Words, read
from training.wording import Statement, statements, survey_feature

_GRIT_PERSEVERANCE = (1, 4, 6, 9, 10, 12)
_GRIT_START = ("C1", "N8")
"""Always asked: they are the record shown wherever the product is explained. The other ten are chosen."""
_N_GRIT, _N_SHARED = 12, 24


def pomp(means: Floats, low: float, high: float) -> Floats:
    """Percent of the maximum possible: 0 at the scale's lowest mean, 100 at its highest. Shape as given."""
    result: Floats = (means - low) / (high - low) * 100.0
    return result


def grit_table() -> Table:
    """The 3,885 rows with an age, all Grit items, and fewer than two made-up words ticked."""
    table = read("grit_bigfive.csv.gz")
    answers = table.matrix([f"GS{item}" for item in range(1, 13)])
    honest = table.numbers("fake_words") < 2
    return table.keep(honest & ~np.isnan(table.numbers("age")) & ~np.isnan(answers).any(axis=1))


def grit_items(table: Table) -> Floats:
    """The 12 keyed Grit answers (1 to 5), shape (n, 12). In the file 1 is "very much like me": perseverance turns."""
    columns = [
        6.0 - table.numbers(f"GS{item}") if item in _GRIT_PERSEVERANCE else table.numbers(f"GS{item}")
        for item in range(1, 13)
    ]
    return np.column_stack(columns)


def spi_table() -> Table:
    """The 3,991 rows with an age."""
    table = read("spi_items.csv.gz")
    return table.keep(~np.isnan(table.numbers("age")))


def spi_items(table: Table, facet: str) -> Floats:
    """The keyed answers (1 to 6) of one facet's five items, shape (n, 5)."""
    key = read("spi_key.csv")
    rows = zip(key.words("item"), key.words("facet"), key.words("keyed"), strict=True)
    columns = [
        table.numbers(str(item)) if keyed == "1" else 7.0 - table.numbers(str(item))
        for item, of, keyed in rows
        if of == facet
    ]
    return np.column_stack(columns)


def five_point(answers: Floats) -> Floats:
    """SPI answers 1 to 6 on the record's 1 to 5 scale. Shape as given."""
    result: Floats = np.round(1.0 + 0.8 * (answers - 1.0), 1)
    return result


def cronbach_alpha(items: Floats) -> float:
    """Internal consistency of keyed `items` (n, k): the most that any model of their mean can explain, roughly."""
    k = items.shape[1]
    return float(k / (k - 1) * (1.0 - items.var(axis=0, ddof=1).sum() / items.sum(axis=1).var(ddof=1)))


def grit_problem() -> Problem:
    """Grit with its 12 statements chosen inside the training fold."""
    table, pool = grit_table(), statements("markers")
    X, items, folds = table.matrix([s.item for s in pool]), grit_items(table), split(table.n_rows, "grit")
    y = pomp(items.mean(axis=1), 1.0, 5.0)
    start = [[statement.item for statement in pool].index(item) for item in _GRIT_START]
    columns = greedy(X, y[:, None], folds.train, _N_GRIT, start)
    groups = {
        "sex": _named(table.words("gender"), {"1": "men", "2": "women"}),
        "age": _age_bands(table.numbers("age")),
        "first language": _named(table.words("engnat"), {"1": "English", "2": "other"}),
    }
    return Problem(
        attribute=GRIT,
        features=_features(pool, columns, X, y, folds),
        X=X[:, columns],
        y=y,
        folds=folds,
        directions=directions(X[:, columns], y, folds.train),
        groups=groups,
        reliability=cronbach_alpha(items),
        choice="two statements given (always prepared, mood swings), ten chosen one after the other by explained "
        "variance on the training fold only",
    )


@cache
def _shared() -> tuple[Table, Floats, Folds, list[int]]:
    """What all seven SPI models have in common: rows, candidate answers on 1-5, folds and the chosen columns."""
    table, pool = spi_table(), statements("spi")
    X, folds = five_point(table.matrix([s.item for s in pool])), split(table.n_rows, "spi")
    Y = np.column_stack([spi_items(table, facet).mean(axis=1) for facet in SPI])
    return table, X, folds, greedy(X, Y, folds.train, _N_SHARED)


def spi_problem(facet: str) -> Problem:
    """One SPI facet with the shared 24 statements, chosen inside the training fold for all seven at once."""
    table, X, folds, columns = _shared()
    items = spi_items(table, facet)
    y = pomp(items.mean(axis=1), 1.0, 6.0)
    groups = {
        "sex": _named(table.words("sex"), {"1": "men", "2": "women"}),
        "age": _age_bands(table.numbers("age")),
    }
    return Problem(
        attribute=SPI[facet],
        features=_features(statements("spi"), columns, X, y, folds),
        X=X[:, columns],
        y=y,
        folds=folds,
        directions=directions(X[:, columns], y, folds.train),
        groups=groups,
        reliability=cronbach_alpha(items),
        choice="chosen one after the other by explained variance, averaged over the seven targets, on the training "
        "fold only; two statements that read like a health question were no candidates",
    )


def _features(pool: Sequence[Statement], columns: list[int], X: Floats, y: Floats, folds: Folds) -> tuple[Feature, ...]:
    """The chosen statements as record fields; the example answers sit a step on the high-scoring side of the median."""
    signs = directions(X[:, columns], y, folds.train)
    levels = [0.5 + 0.2 * sign for sign in signs]
    typical = [np.nanquantile(X[folds.train, column], level) for column, level in zip(columns, levels, strict=True)]
    return tuple(
        survey_feature(pool[column], float(round(float(answer))))
        for column, answer in zip(columns, typical, strict=True)
    )


def _named(codes: Words, names: dict[str, str]) -> Words:
    """Codes as words; an unknown code becomes "" and is left out of the audit. Shape (n,)."""
    return np.array([names.get(str(code), "") for code in codes], dtype=np.str_)


def _age_bands(ages: Floats) -> Words:
    """13-17, 18-24, 25-39, 40+. Shape (n,)."""
    names = ("13-17", "18-24", "25-39", "40+")
    return np.array([names[int(np.searchsorted((17, 24, 39), age))] for age in ages], dtype=np.str_)
