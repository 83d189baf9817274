"""The ten attributes: what each one claims, on whose answers or play it rests, and what it must not be used for."""

from training.problem import Attribute, Recipe

NOT_FOR = ("hiring", "admission", "pay", "discipline", "credit", "matchmaking_bans")
REVIEW_BY = "2028-11-30"
"""After this day the card says the model has expired: review the sample, then train again."""

_SURVEY = Recipe(n_trees=500, n_leaves=4, min_rows_per_leaf=90)
_PLAY = Recipe(n_trees=250, n_leaves=5, min_rows_per_leaf=90)

_SURVEY_IS_NOT = (
    (
        "It is not a measurement of what somebody does, can do, or is worth; it guesses a longer self-report scale "
        "from other self-report statements."
    ),
    (
        "It is not made from game data. Play explains next to nothing of such scales (0 to 5 % of variance where it "
        "was tried), so no record of playtime belongs here."
    ),
    "It is not better than the scale itself: whoever can ask the scale's own questions should ask those.",
)
_GRIT_TERMS = (
    "Data: no explicit licence (openpsychometrics.org, published for general public edification, research consent). "
    "Grit Scale: copyrighted, non-commercial; no item wording is shipped. IPIP statements: public domain."
)
_SPI_TERMS = "Data: GPL-2 or later (R package psychTools 2.2.9). IPIP statements: public domain."
_PLAY_TERMS = "CC BY 4.0: Vuorre, Johannes, Magnusson and Przybylski (2022), changed: aggregated to one row a player."


def _spi(id_: str, title: str, facet: str, meaning: str, *more_is_not: str) -> Attribute:
    """One facet of the SAPA Personality Inventory, predicted from the 24 shared statements."""
    return Attribute(
        id=id_,
        title=title,
        pack="survey",
        target=f"SAPA Personality Inventory facet {facet} (5 items), in percent of the possible range",
        scale=f"SPI facet {facet} (SAPA Personality Inventory, Condon 2018), mean of its 5 items",
        unit="pomp_0_100",
        score_range=(0.0, 100.0),
        sample="3,991 volunteers of the English web test sapa-project.org aged 13 to 90 (59 % women, median age 23)",
        exclusions="4,000 rows in the file, 9 without an age are left out",
        data_licence=_SPI_TERMS,
        files=("spi_items.csv.gz", "spi_key.csv", "statements.csv"),
        meaning=meaning,
        is_not=(*more_is_not, *_SURVEY_IS_NOT),
        inputs="24 IPIP statements, shared by seven attributes; none belongs to any of the seven target facets",
        recipe=_SURVEY,
    )


GRIT = Attribute(
    id="grit",
    title="Grit",
    pack="survey",
    target="Grit-O, 12 items (Duckworth et al. 2007), in percent of the possible range",
    scale="Grit-O (Original Grit Scale, Duckworth et al. 2007), mean of 12 items",
    unit="pomp_0_100",
    score_range=(0.0, 100.0),
    sample="3,885 volunteers of an English web test on openpsychometrics.org, 2015 file (65 % women, median age 21)",
    exclusions="4,270 rows in the file; left out: two or more of three made-up words ticked as known, no age, or a "
    "Grit item missing",
    data_licence=_GRIT_TERMS,
    files=("grit_bigfive.csv.gz", "statements.csv"),
    meaning="An estimate of the score that somebody would get on the 12-item Grit Scale: how far they describe "
    "themselves as persevering and as keeping the same interests.",
    is_not=(
        (
            "It is not distinct from conscientiousness: most of these statements come from a Conscientiousness scale, "
            "and that overlap is why it works."
        ),
        (
            "It is not for high stakes. The scale's author advises against its use where faking pays, and names "
            "admissions and hiring."
        ),
        *_SURVEY_IS_NOT,
    ),
    inputs="12 IPIP statements out of the 50 Big-Five markers; no Grit item is an input",
    recipe=_SURVEY,
)

SPI = {
    "Industry": _spi(
        "dependable",
        "Dependable",
        "Industry",
        "An estimate of the SPI Industry score: whether somebody says they start at once, work hard and do not "
        "neglect duties. It is the closest published scale to the everyday word.",
        "It is not a record of kept promises; the scale is called Industry, not reliability.",
    ),
    "Compassion": _spi(
        "empathy",
        "Empathy",
        "Compassion",
        "An estimate of the SPI Compassion score: whether somebody says they care about others' feelings and needs.",
        "It is not the ability to read other people; the scale asks for concern, not for accuracy.",
    ),
    "Charisma": _spi(
        "leadership",
        "Leadership",
        "Charisma",
        "An estimate of the SPI Charisma score: whether somebody says they influence people and handle social "
        "situations well.",
        "It is not a rating by anybody who was led; the scale is called Charisma.",
    ),
    "EmotionalStability": _spi(
        "calm",
        "Calm",
        "Emotional Stability",
        "An estimate of the SPI Emotional Stability score: whether somebody says that emotions seldom overwhelm them.",
        "It is not a statement about anybody's health, and it must not be used as one.",
    ),
    "Adaptability": _spi(
        "adaptability",
        "Adaptability",
        "Adaptability",
        "An estimate of the SPI Adaptability score: whether somebody says they like change and adjust easily.",
        "It is not steady over samples: with other splits of the same people R² was as low as 0.29.",
    ),
    "Creativity": _spi(
        "creativity",
        "Creativity",
        "Creativity",
        "An estimate of the SPI Creativity score: whether somebody says they have many and new ideas.",
        "It is not a judgement of anything made; nobody looked at a work.",
    ),
    "Trust": _spi(
        "trust",
        "Trust",
        "Trust",
        "An estimate of the SPI Trust score: whether somebody says that people mean well and can be believed.",
        "It is not teamwork and not trustworthiness: it is trust in others, and the weakest of the survey models.",
    ),
}
"""By the facet's name in `spi_key.csv`."""

_PLAY_SAMPLE = "players of Outriders (2021, PlayStation, Xbox and Steam) who agreed to share their telemetry"
_PLAY_IS_NOT = (
    "It is not a trait and says nothing about character; it forecasts the same player's next four weeks.",
    (
        "It is not transferable as it stands: it learned one game in its first months. Report the percentile, and "
        "train again for another game."
    ),
    (
        "It is not tested on veterans: each player's very first 28 days were its input, so a record from later on is a "
        "guess beyond the data."
    ),
    "It is not made from Steam profile data: it needs a game's own session log.",
)

PLAY_PERSISTENCE = Attribute(
    id="play_persistence",
    title="Play persistence",
    pack="play",
    target="days with play in days 28 to 55 after the first session, 0 to 28",
    scale="days with at least one session in the four weeks after the first four weeks",
    unit="days",
    score_range=(0.0, 28.0),
    sample=f"2,007 {_PLAY_SAMPLE}",
    exclusions="sessions over 16 hours count as idle and were dropped before aggregation; 2,014 players in the source",
    data_licence=_PLAY_TERMS,
    files=("outriders_players.csv.gz", "gran_turismo_players.csv.gz"),
    meaning="A forecast: on how many of the next 28 days this player will play, from 19 figures about the last 28.",
    is_not=("It is not grit, and must never be shown under that name.", *_PLAY_IS_NOT),
    inputs="19 figures about the first 28 days of play",
    recipe=_PLAY,
)

PLAY_TEAMWORK = Attribute(
    id="play_teamwork",
    title="Play teamwork",
    pack="play",
    target="share of sessions played in co-op in days 28 to 55 after the first session, in percent",
    scale="share of sessions in co-op in the four weeks after the first four weeks",
    unit="percent",
    score_range=(0.0, 100.0),
    sample=f"857 {_PLAY_SAMPLE} and had at least five sessions in days 28 to 55",
    exclusions="players with fewer than five sessions in days 28 to 55 (1,150 of 2,007) have no outcome and are left "
    "out, so the model only speaks of players who stay",
    data_licence=_PLAY_TERMS,
    files=("outriders_players.csv.gz",),
    meaning="A forecast: what share of the next four weeks' sessions this player will play together with others.",
    is_not=("It is not how well somebody works in a team; it counts sessions with company.", *_PLAY_IS_NOT),
    inputs="19 figures about the first 28 days of play",
    recipe=_PLAY,
)

ATTRIBUTES: tuple[Attribute, ...] = (GRIT, *SPI.values(), PLAY_PERSISTENCE, PLAY_TEAMWORK)
