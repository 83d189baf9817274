"""The card's sections of figures: how good, how sure, for whom, and with how much missing."""

from training.audit import Group, ItemGap
from training.conformal import LEVEL
from training.markdown import bullets, percent, section, table
from training.picture import UNITS
from training.problem import Problem
from training.report import Report

_LEVEL_WITHIN = 0.02
_GAP_TO_TELL = 0.3
_BELOW_PROMISE = 0.7
_TREES_FOR = "their handling of missing values, their fixed directions and one file format"


def how_good(problem: Problem, report: Report) -> str:
    """R² and errors beside both referees, then what they mean."""
    s, unit, folds = report.scores, UNITS[problem.attribute.unit], problem.folds
    rows = [
        ("", "LightGBM (served)", "ridge regression", "always the mean"),
        ("R² (variance explained)", f"**{s.r2:.2f}**", f"{s.r2_ridge:.2f}", "0.00"),
        (f"mean error, {unit}", f"{s.mae:.1f}", f"{s.mae_ridge:.1f}", f"{s.mae_mean:.1f}"),
    ]
    others = len(folds.train) + len(folds.calibrate)
    remarks = bullets(
        f"The test set is small: with other people of the same kind R² would lie between {s.r2_low:.2f} and "
        f"{s.r2_high:.2f} (95 %, bootstrap).",
        f"Five-fold cross-validation on the other {others} people gives R² {s.r2_cross_validated:.2f}, so the test "
        f"people were {_luck(s.r2 - s.r2_cross_validated)}.",
        f"Two random people are put in the right order in {percent(s.ordering_probability)} of cases (a coin: 50 %). "
        f"Top quarter against the rest: AUC {s.auc_top_quarter:.2f}.",
        f"Calibration slope {s.calibration_slope:.2f} (1 is right; below 1, predictions are too far apart).",
        _verdict(report),
        _ceiling(problem.reliability),
        _travel(s.r2_other_game),
    )
    opening = f"On {len(folds.test)} people who took part in neither choosing, training nor calibrating:"
    return section("How good it is", opening, table(rows), remarks)


def _luck(difference: float) -> str:
    """In words, how the test fold compares with cross-validation."""
    if abs(difference) < _LEVEL_WITHIN:
        return "neither easy nor hard"
    return "easier than most" if difference > 0 else "harder than most"


def _verdict(report: Report) -> str:
    """What ridge regression says about the trees."""
    s = report.scores
    gap = next(point for point in report.missing if point.share == 0.25)
    gaps = f"With a quarter of the inputs missing it is {gap.r2:.2f} against {gap.r2_ridge:.2f}."
    if s.r2_ridge > s.r2 + _LEVEL_WITHIN:
        return f"**Plain ridge regression is better here.** The trees are served for {_TREES_FOR}. {gaps}"
    if s.r2_ridge >= s.r2 - _LEVEL_WITHIN:
        return f"**Plain ridge regression is level with it.** The trees are served for {_TREES_FOR}. {gaps}"
    return f"It beats ridge regression by {s.r2 - s.r2_ridge:.2f} of R². {gaps}"


def _ceiling(reliability: float | None) -> str:
    if reliability is None:
        return ""
    return (
        f"Ceiling: the scale agrees with itself only to α = {reliability:.2f}, and no model can explain much more "
        "than that."
    )


def _travel(r2_other_game: float | None) -> str:
    if r2_other_game is None:
        return ""
    return f"On another game, never trained on (Gran Turismo Sport, 17,924 players), R² is {r2_other_game:.2f}."


def how_sure(problem: Problem, report: Report) -> str:
    """Interval widths by coverage of the record, whether they held, and for which predictions they did not."""
    s, unit = report.scores, UNITS[problem.attribute.unit]
    rows = [
        ("coverage of the record (by gain)", "80 % half-width", "held for the test people"),
        ("90 % or more", f"± {report.half_width_full:.1f} {unit}", percent(s.coverage80)),
        ("50 to 90 %", f"± {report.half_width_partial:.1f} {unit}", percent(s.coverage80_partial)),
        ("below 50 %", "no score is given", ""),
    ]
    return section(
        "How sure one score is",
        f"{percent(LEVEL)} intervals by split conformal prediction on {len(problem.folds.calibrate)} people who were "
        "used for nothing else. The promise holds on average over people like these, not for every group.",
        table(rows),
        "The width is the same for everybody, so it fits some predictions better than others:",
        table(_group_rows(report.thirds, unit)),
        _too_narrow(report.thirds),
        "The percentile compares with this model's own predictions for held-out people, not with observed scores. "
        f"Below {report.percentiles[24]:.1f} is called low, from {report.percentiles[74]:.1f} high.",
    )


def _too_narrow(thirds: tuple[Group, ...]) -> str:
    """A warning where the interval holds far less often than promised."""
    failing = [f"the {group.label[2:]} ({percent(group.coverage80)})" for group in thirds if _fails(group)]
    return f"**The interval is too narrow for {' and '.join(failing)}.**" if failing else ""


def _fails(group: Group) -> bool:
    return group.coverage80 < _BELOW_PROMISE


def by_group(problem: Problem, report: Report) -> str:
    """Residuals and interval coverage by group, and statements that work differently between groups."""
    return section(
        "By group",
        f"Never an input, only looked at afterwards: {', '.join(problem.groups)}. A positive residual (observed minus "
        "predicted) means that the group is under-predicted. A gap is no proof of an unfair question, and no gap is no "
        "proof of fairness. Groups of fewer than 30 are not shown.",
        table(_group_rows(report.groups, UNITS[problem.attribute.unit])),
        _item_gaps(report.item_gaps),
    )


def _group_rows(found: tuple[Group, ...], unit: str) -> list[tuple[str, ...]]:
    head = ("group", "held-out people", f"observed mean, {unit}", "mean residual", "80 % interval held (test people)")
    rows = [
        (
            f"{group.kind}: {group.label}",
            str(group.n),
            f"{group.observed:.1f}",
            f"{group.residual:+.1f}",
            f"{percent(group.coverage80)} of {group.n_test}",
        )
        for group in found
    ]
    return [head, *rows]


def _item_gaps(gaps: tuple[ItemGap, ...]) -> str:
    """One paragraph on differential item functioning; nothing where it was not looked for."""
    if not gaps:
        return ""
    pairs = {"sex": "women against men", "age": "40+ against 18-24"}
    told = sorted((gap for gap in gaps if abs(gap.gap) >= _GAP_TO_TELL), key=lambda gap: -abs(gap.gap))
    named = "; ".join(f"`{gap.feature}` {gap.gap:+.1f} ({pairs[gap.kind]})" for gap in told) or "none"
    return (
        "Statements answered differently by people with the same observed score (standardised difference of at least "
        f"{_GAP_TO_TELL} answer points, matched on tenths of the score, all rows): {named}."
    )


def missing(report: Report) -> str:
    """R² as inputs go missing, beside ridge with means filled in."""
    rows = [("share of inputs missing at random", "R², LightGBM", "R², ridge with means filled in")]
    rows += [(percent(point.share), f"{point.r2:.2f}", f"{point.r2_ridge:.2f}") for point in report.missing]
    return section(
        "When values are missing",
        "Masked copies of the rows were part of training, so every split knows what to do with a gap; no feature is "
        "required.",
        table(rows),
    )
