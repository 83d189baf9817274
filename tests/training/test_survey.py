"""Scales, record names and the statements of the survey pack."""

import re
from itertools import chain

import numpy as np
import pytest

from training.pipeline import problem_of
from training.recipes import ATTRIBUTES, SPI
from training.survey import cronbach_alpha, five_point, grit_items, grit_table, pomp, spi_items, spi_table
from training.tables import read
from training.wording import Statement, first_person, second_person, statements

SENSITIVE = re.compile(r"(^|_)(sex|gender|race|ethnic\w*|religi\w*|country|health|platform|device|age)(_|$)")


def test_pomp_is_0_at_the_lowest_and_100_at_the_highest_answer() -> None:
    """Percent of the maximum possible, by definition."""
    assert pomp(np.array([1.0, 3.0, 5.0]), 1.0, 5.0).tolist() == [0.0, 50.0, 100.0]
    assert pomp(np.array([1.0, 6.0]), 1.0, 6.0).tolist() == [0.0, 100.0]


def test_six_point_answers_land_on_the_records_1_to_5() -> None:
    """1 and 6 become the ends; nothing falls outside the record's range."""
    assert five_point(np.array([1.0, 2.0, 6.0])).tolist() == [1.0, 1.8, 5.0]


def test_the_scales_hold_together_as_published() -> None:
    """A wrongly keyed item would show as a much lower alpha (0.84 for Grit, 0.80 to 0.88 for the facets)."""
    assert cronbach_alpha(grit_items(grit_table())) == pytest.approx(0.84, abs=0.01)
    table = spi_table()
    for facet in SPI:
        assert 0.79 < cronbach_alpha(spi_items(table, facet)) < 0.89


def test_one_name_is_always_one_statement() -> None:
    """A name that two pools share must be the same sentence, since one answer will serve both."""
    wording: dict[str, str] = {}
    for statement in chain(statements("markers"), statements("spi")):
        assert wording.setdefault(statement.name, statement.text) == statement.text
        assert re.fullmatch(r"ipip_[a-z0-9_]{3,36}", statement.name)
        assert not SENSITIVE.search(statement.name)


def test_statements_about_despair_are_no_candidates() -> None:
    """What a depression screen asks is a health answer, and health is never an input."""
    items = {statement.item for statement in statements("spi")}
    assert not items & {"q_578", "q_811"}


def test_no_statement_belongs_to_a_target_facet_or_a_withheld_pool() -> None:
    """A scale must not be predicted from its own items, and only public-domain wording may be shipped."""
    table = read("spi_key.csv")
    facet = dict(zip(table.words("item").tolist(), table.words("facet").tolist(), strict=True))
    source = dict(zip(table.words("item").tolist(), table.words("source").tolist(), strict=True))
    for feature in problem_of("calm").features:
        assert facet[feature.source] not in SPI
        assert source[feature.source] == "IPIP"


def test_all_seven_facets_share_the_same_24_statements() -> None:
    """One questionnaire of 24 serves seven attributes, in the same order."""
    shared = [[f.name for f in problem_of(attribute.id).features] for attribute in SPI.values()]
    assert len(shared[0]) == len(set(shared[0])) == 24
    assert all(names == shared[0] for names in shared)


def test_grit_asks_12_statements_with_the_documented_two_among_them() -> None:
    """The record shown in the documents must be a real one."""
    names = [feature.name for feature in problem_of("grit").features]
    assert len(names) == 12
    assert {"ipip_always_prepared", "ipip_mood_swings"} <= set(names)


@pytest.mark.parametrize("attribute_id", [attribute.id for attribute in ATTRIBUTES])
def test_no_sensitive_column_is_ever_a_feature(attribute_id: str) -> None:
    """Group columns are in the audit only."""
    problem = problem_of(attribute_id)
    assert not [feature.name for feature in problem.features if SENSITIVE.search(feature.name)]
    assert problem.X.shape == (len(problem.y), len(problem.features))
    assert not np.isnan(problem.y).any()
    low, high = problem.attribute.score_range
    assert problem.y.min() >= low
    assert problem.y.max() <= high


@pytest.mark.parametrize("attribute_id", [attribute.id for attribute in ATTRIBUTES])
def test_every_example_and_every_row_lies_in_the_declared_range(attribute_id: str) -> None:
    """The ready-to-send example must be accepted, and no data row may be refused by its own schema."""
    problem = problem_of(attribute_id)
    for place, feature in enumerate(problem.features):
        assert feature.low <= feature.example <= feature.high
        assert not feature.integer or float(feature.example).is_integer()
        assert np.nanmin(problem.X[:, place]) >= feature.low
        assert np.nanmax(problem.X[:, place]) <= feature.high


def test_a_statement_reads_well_in_both_persons() -> None:
    """Labels speak as the person, reasons speak to the person."""
    assert first_person("Am always prepared.") == "I am always prepared."
    assert second_person("Am always prepared.") == "you are always prepared"
    assert second_person("Enjoy examining myself and my life.") == "you enjoy examining yourself and your life"
    assert Statement("spi", "q_1", "ipip_x", "Panic easily.").text == "Panic easily."
