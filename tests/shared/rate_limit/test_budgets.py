"""Limits from settings and token: what is accepted, and that the narrower one wins."""

import pytest

from shared.rate_limit.budgets import (
    Budget,
    BudgetError,
    detail,
    effective_limit,
    limits_for_call,
    may_call,
    narrowed,
    parse_details,
)
from shared.rate_limit.gcra import Limit
from shared.rate_limit.limits import CALL, Measure, cost_of_explanations, cost_of_rows

HUNDRED = Limit(100, 3600)
GRIT = {"type": "model_call", "attributes": ["grit", "calm"], "rows": 500, "period": "hour"}


def test_a_detail_becomes_a_budget() -> None:
    """Attributes are sorted, so that their order makes no new budget; the period is a word or seconds."""
    (budget,) = parse_details([GRIT])
    assert budget == Budget(("calm", "grit"), Limit(500, 3600))
    assert budget.digest == parse_details([GRIT | {"attributes": ["calm", "grit"], "period": 3600}])[0].digest
    assert budget.digest != parse_details([GRIT | {"rows": 501}])[0].digest
    assert parse_details(None) == ()


@pytest.mark.parametrize(
    "raw",
    [
        [],
        {},
        "model_call",
        [GRIT] * 17,
        [GRIT, {"type": "payment"}],
        [GRIT | {"extra": 1}],
        [{name: value for name, value in GRIT.items() if name != "period"}],
        [GRIT | {"rows": 0}],
        [GRIT | {"rows": -1}],
        [GRIT | {"rows": True}],
        [GRIT | {"rows": 1.5}],
        [GRIT | {"rows": "5"}],
        [GRIT | {"rows": 10**9}],
        [GRIT | {"rows": 2_000_000, "period": 1}],
        [GRIT | {"period": "week"}],
        [GRIT | {"period": 0}],
        [GRIT | {"period": True}],
        [GRIT | {"period": 2_678_401}],
        [GRIT | {"period": None}],
        [GRIT | {"attributes": []}],
        [GRIT | {"attributes": "grit"}],
        [GRIT | {"attributes": ["grit", "grit"]}],
        [GRIT | {"attributes": ["*", "grit"]}],
        [GRIT | {"attributes": ["Grit"]}],
        [GRIT | {"attributes": [["grit"]]}],
        [GRIT | {"attributes": [f"a{n}" for n in range(65)]}],
    ],
)
def test_a_detail_that_is_not_understood_is_refused(raw: object) -> None:
    """It might be a restriction, so it is never skipped; the message repeats no value."""
    with pytest.raises(BudgetError) as caught:
        parse_details(raw)
    assert "week" not in str(caught.value)


def test_a_budget_names_what_may_be_called() -> None:
    """Outside of its attributes a token with budgets may call nothing; a star is every attribute."""
    budgets = parse_details([GRIT])
    assert may_call(budgets, "grit")
    assert not may_call(budgets, "trust")
    assert may_call((), "trust")
    assert may_call(parse_details([GRIT | {"attributes": ["*"]}]), "trust")


def test_all_limits_that_apply_are_listed() -> None:
    """Client, key, attribute and the fitting budgets, each under its own policy name and without ids in it."""
    budgets = parse_details(
        [GRIT, GRIT | {"attributes": ["*"], "rows": 9, "period": 60}, GRIT | {"attributes": ["trust"]}]
    )
    keys = limits_for_call(
        "client-1",
        "grit",
        client_limit=HUNDRED,
        api_key_id="k1",
        api_key_limit=Limit(10, 60),
        attribute_limit=Limit(50, 86_400),
        budgets=budgets,
    )
    assert [(key.policy, key.limit.count) for key in keys] == [
        ("hour", 100),
        ("key-minute", 10),
        ("attribute-day", 50),
        ("rows-hour", 500),
        ("rows2-minute", 9),
    ]
    assert [key.measure for key in keys].count(Measure.ROWS) == 2
    assert len({key.name for key in keys}) == 5
    assert not any("client-1" in key.policy or "k1" in key.policy for key in keys)


def test_without_settings_the_default_holds() -> None:
    """A client without a limit of its own has the server's; a key without one adds none."""
    assert effective_limit(None, default_per_hour=100) == HUNDRED
    assert effective_limit(Limit(7, 60), default_per_hour=100) == Limit(7, 60)
    keys = limits_for_call("c", "grit", client_limit=HUNDRED, api_key_id="k")
    assert [key.name for key in keys] == ["client:c"]


def test_what_a_call_costs() -> None:
    """One call is 1 and 1; rows count as rows; an explanation weighs ten."""
    assert (CALL, cost_of_rows(500), cost_of_explanations()) == ((1, 1), (1, 500), (10, 10))
    assert cost_of_explanations(3, weight=5) == (5, 15)
    assert cost_of_rows(0) == (1, 1)


def test_a_budget_is_written_as_it_is_read() -> None:
    """With words for the usual periods, and the mark of a ceiling where it is one."""
    for raw in (GRIT | {"attributes": ["calm", "grit"]}, GRIT | {"attributes": ["*"], "period": 7, "ceiling": True}):
        assert [detail(budget) for budget in parse_details([raw])] == [raw]
    with pytest.raises(BudgetError):
        parse_details([GRIT | {"ceiling": False}])


def test_a_ceiling_bounds_and_opens_nothing() -> None:
    """It limits calls to what another budget opens."""
    budgets = parse_details([GRIT | {"attributes": ["grit"]}, GRIT | {"attributes": ["*"], "ceiling": True}])
    assert may_call(budgets, "grit")
    assert not may_call(budgets, "trust")
    assert len(limits_for_call("c", "grit", client_limit=HUNDRED, budgets=budgets)) == 3


def test_less_may_be_asked_for_and_shares_the_count_of_the_whole() -> None:
    """Every own budget of the same attributes comes along, under the name that its count has in other tokens."""
    own = parse_details(
        [GRIT, GRIT | {"attributes": ["*"], "rows": 9000, "period": "day"}, GRIT | {"attributes": ["x"]}]
    )
    (asked,) = parse_details([GRIT | {"attributes": ["grit"], "rows": 10}])
    chosen = narrowed(own, [asked])
    assert [(budget.limit.count, budget.ceiling) for budget in chosen] == [(10, False), (500, True), (9000, True)]
    assert chosen[1].digest == own[0].digest
    assert narrowed(own, []) == own
    assert narrowed([], [asked]) == (asked,)
    assert narrowed(own[:1], own[:1]) == own[:1]
    slower = parse_details([GRIT | {"rows": 9, "period": "day"}])
    assert narrowed(own[:1], slower)[0] == slower[0]
    for more in ({"rows": 501}, {"attributes": ["y"]}, {"rows": 20, "period": 60}):
        with pytest.raises(BudgetError):
            narrowed(own[:1], parse_details([GRIT | more]))
