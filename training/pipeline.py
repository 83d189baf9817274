"""The whole way of one attribute, from its table to its bundle, on one screen."""

from collections.abc import Callable

from training.bundle import Bundle, assemble
from training.fit import fit
from training.play import persistence_problem, teamwork_problem
from training.problem import Problem
from training.recipes import GRIT, PLAY_PERSISTENCE, PLAY_TEAMWORK, SPI
from training.report import Report, measure
from training.survey import grit_problem, spi_problem

STEPS = ("choosing", "growing trees", "measuring", "writing the card")


def problem_of(attribute_id: str) -> Problem:
    """Rows, chosen features and folds of one attribute. Raises KeyError for an unknown id."""
    if attribute_id == GRIT.id:
        return grit_problem()
    if attribute_id == PLAY_PERSISTENCE.id:
        return persistence_problem()
    if attribute_id == PLAY_TEAMWORK.id:
        return teamwork_problem()
    facets = {attribute.id: facet for facet, attribute in SPI.items()}
    return spi_problem(facets[attribute_id])


def train(attribute_id: str, on_step: Callable[[str], None] = lambda _: None) -> tuple[Bundle, Report]:
    """Train one attribute. `on_step` is told each of `STEPS` as it begins. Raises KeyError for an unknown id."""
    on_step(STEPS[0])
    problem = problem_of(attribute_id)
    on_step(STEPS[1])
    text = fit(problem)
    on_step(STEPS[2])
    report = measure(problem, text)
    on_step(STEPS[3])
    return assemble(problem, text, report), report
