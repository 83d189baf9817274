"""The play pack's rows: what the first 28 days of a player's sessions say about the next 28."""

from functools import cache

import numpy as np

from training.folds import split
from training.problem import Attribute, Feature, Problem
from training.recipes import PLAY_PERSISTENCE, PLAY_TEAMWORK
from training.tables import Floats, Table, read

_DIRECTIONS = {
    "play_persistence": {"active_days_28d": 1, "active_days_last7": 1, "days_since_last_session": -1},
    "play_teamwork": {"coop_share": 1, "mean_squad_size": 1},
}
_PLATFORMS = {"steam": "Steam", "psn": "PlayStation", "xbox": "Xbox"}
_IN_BOTH_GAMES = 11


@cache
def figures() -> tuple[Feature, ...]:
    """The 19 figures about 28 days; the first 11 need nothing but session times, so any game has them."""
    table = read("figures.csv")
    high, example, whole = table.numbers("high"), table.numbers("example"), table.numbers("integer")
    words = zip(*(table.words(column) for column in ("name", "label", "unit", "more", "less")), strict=True)
    return tuple(
        Feature(
            name=str(name),
            label=str(label),
            unit=str(unit),
            low=0.0,
            high=float(high[row]),
            integer=bool(whole[row]),
            example=float(example[row]),
            reason_more=str(more),
            reason_less=str(less),
            source=str(name),
        )
        for row, (name, label, unit, more, less) in enumerate(words)
    )


def persistence_problem() -> Problem:
    """Days with play in the next 28, for all 2,007 Outriders players."""
    return _problem(PLAY_PERSISTENCE, read("outriders_players.csv.gz"), "y_next28d_active_days")


def teamwork_problem() -> Problem:
    """Co-op share of the next 28 days, for the 857 players with at least five sessions in them."""
    table, target = read("outriders_players.csv.gz"), "y_next28d_coop_pct"
    return _problem(PLAY_TEAMWORK, table.keep(~np.isnan(table.numbers(target))), target)


def other_game() -> tuple[Floats, Floats]:
    """Gran Turismo Sport's 17,924 players in the same 19 columns and the same outcome in days.

    The figures that game doesn't have are NaN. Shapes (17924, 19) and (17924,). Used only to measure how far the
    persistence model travels, never to train.
    """
    table = read("gran_turismo_players.csv.gz")
    X = np.full((table.n_rows, len(figures())), np.nan)
    X[:, :_IN_BOTH_GAMES] = table.matrix([feature.source for feature in figures()[:_IN_BOTH_GAMES]])
    return X, table.numbers("y_next28d_active_days")


def _problem(attribute: Attribute, table: Table, target: str) -> Problem:
    """The 19 figures against one outcome; the platform is kept for the audit only."""
    features = figures()
    return Problem(
        attribute=attribute,
        features=features,
        X=table.matrix([feature.source for feature in features]),
        y=table.numbers(target),
        folds=split(table.n_rows, attribute.id),
        directions=tuple(_DIRECTIONS[attribute.id].get(feature.name, 0) for feature in features),
        groups={"platform": np.array([_PLATFORMS.get(str(word), "") for word in table.words("platform")])},
        reliability=None,
        choice="all figures that the data set offers; nothing was chosen by its result",
    )
