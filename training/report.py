"""Measures one fitted model: everything that its card and its metadata say about it."""

from dataclasses import dataclass, replace

import numpy as np

from training import audit, conformal, metrics
from training.fit import fit, gain_shares, predict
from training.folds import Folds, uniforms
from training.play import other_game
from training.problem import Problem
from training.referees import fit_ridge
from training.tables import Floats, Ints


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of the test fold. Errors and half-widths are in the attribute's unit, all others are plain numbers."""

    r2: float
    r2_low: float
    r2_high: float
    r2_ridge: float
    mae: float
    mae_ridge: float
    mae_mean: float
    ordering_probability: float
    auc_top_quarter: float
    calibration_slope: float
    coverage80: float
    coverage80_partial: float
    r2_missing25: float
    r2_cross_validated: float
    r2_other_game: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """One model, measured. `predicted` and `observed` are the held-out rows behind the picture, shape (m,)."""

    gains: Floats
    half_width_full: float
    half_width_partial: float
    percentiles: Floats
    scores: Scores
    groups: tuple[audit.Group, ...]
    thirds: tuple[audit.Group, ...]
    missing: tuple[audit.MissingPoint, ...]
    item_gaps: tuple[audit.ItemGap, ...]
    predicted: Floats
    observed: Floats


def measure(problem: Problem, text: str) -> Report:
    """Score the model text `text` on the rows that it never saw."""
    low, high = problem.attribute.score_range

    def scored(X: Floats) -> Floats:
        return np.clip(predict(text, X), low, high)

    folds, gains = problem.folds, gain_shares(text)
    ridge = fit_ridge(problem.X[folds.train], problem.y[folds.train])

    def referee(X: Floats) -> Floats:
        return np.clip(ridge.predict(X), low, high)

    everywhere = scored(problem.X)
    full = _width(problem, scored, problem.X[folds.calibrate], folds.calibrate)
    stream = f"{problem.attribute.id}/calibrate"
    copies, kept = conformal.partly_hidden(problem.X[folds.calibrate], gains, stream)
    partial = max(full, _width(problem, scored, copies, folds.calibrate[kept]))
    missing = audit.missing_curve(problem, scored, referee)
    test_copies, test_kept = conformal.partly_hidden(problem.X[folds.test], gains, f"{problem.attribute.id}/test")
    inside = metrics.within(problem.y[folds.test[test_kept]], scored(test_copies), partial)
    return Report(
        gains=gains,
        half_width_full=full,
        half_width_partial=partial,
        percentiles=np.quantile(everywhere[folds.held_out], np.arange(1, 100) / 100),
        scores=_scores(
            problem,
            everywhere=everywhere,
            referee=referee(problem.X),
            half_width=full,
            inside_partial=inside,
            missing=missing,
            other=_other_game(problem, scored),
        ),
        groups=audit.groups(problem, everywhere, full),
        thirds=audit.thirds(problem, everywhere, full),
        missing=missing,
        item_gaps=_gaps(problem),
        predicted=everywhere[folds.held_out],
        observed=problem.y[folds.held_out],
    )


def _width(problem: Problem, scored: audit.Predict, X: Floats, rows: Ints) -> float:
    """The 80 % half-width over these copies of rows, rounded up to two decimals so that the promise holds."""
    return float(np.ceil(conformal.half_width(problem.y[rows] - scored(X)) * 100.0) / 100.0)


def _scores(
    problem: Problem,
    *,
    everywhere: Floats,
    referee: Floats,
    half_width: float,
    inside_partial: float,
    missing: tuple[audit.MissingPoint, ...],
    other: float | None,
) -> Scores:
    test, train = problem.folds.test, problem.folds.train
    y, p, line = problem.y[test], everywhere[test], referee[test]
    low, high = metrics.r2_range(y, p, problem.attribute.id)
    return Scores(
        r2=metrics.r2(y, p),
        r2_low=low,
        r2_high=high,
        r2_ridge=metrics.r2(y, line),
        mae=metrics.mean_error(y, p),
        mae_ridge=metrics.mean_error(y, line),
        mae_mean=metrics.mean_error(y, np.full_like(y, problem.y[train].mean())),
        ordering_probability=metrics.ordering_probability(y, p),
        auc_top_quarter=metrics.auc_top_quarter(y, p),
        calibration_slope=metrics.slope(y, p),
        coverage80=metrics.within(y, p, half_width),
        coverage80_partial=inside_partial,
        r2_missing25=next(point.r2 for point in missing if point.share == 0.25),
        r2_cross_validated=_cross_validated(problem),
        r2_other_game=other,
    )


def _cross_validated(problem: Problem) -> float:
    """R² of five fits on the training and calibration rows, each scored on the fifth it did not see.

    Less a matter of luck than the one test fold. Slightly kind to survey models, whose statements were chosen on most
    of these rows.
    """
    rows = np.concatenate([problem.folds.train, problem.folds.calibrate])
    fifth = (uniforms(f"{problem.attribute.id}/fifths", len(rows)) * 5.0).astype(np.int64)
    predicted = np.empty(len(rows))
    for turn in range(5):
        seen, unseen = rows[fifth != turn], rows[fifth == turn]
        text = fit(replace(problem, folds=Folds(train=seen, calibrate=unseen, test=unseen)))
        predicted[fifth == turn] = np.clip(predict(text, problem.X[unseen]), *problem.attribute.score_range)
    return metrics.r2(problem.y[rows], predicted)


def _other_game(problem: Problem, scored: audit.Predict) -> float | None:
    """R² of the persistence model on another game, where its telemetry has the same outcome; else None."""
    if problem.attribute.id != "play_persistence":
        return None
    X, y = other_game()
    return metrics.r2(y, scored(X))


def _gaps(problem: Problem) -> tuple[audit.ItemGap, ...]:
    """Statements that work differently for women than men, and for 40+ than 18-24; nothing for play figures."""
    if problem.attribute.pack != "survey":
        return ()
    return (*audit.item_gaps(problem, "sex", "women", "men"), *audit.item_gaps(problem, "age", "40+", "18-24"))
