"""Which cases run, and in which order."""

from bench.plan import CASES, FASTEST, GROUPS, Results, Sample, chosen, in_order, with_needs


def test_every_case_belongs_to_a_group_and_has_a_name_of_its_own():
    """A case outside the groups could never be asked for."""
    assert {case.group for case in CASES} <= set(GROUPS)
    assert len({case.name for case in CASES}) == len(CASES)


def test_partners_of_a_ratio_are_measured_one_after_the_other():
    """What changes on the machine between them would be taken for a difference of theirs."""
    names = [case.name for case in CASES]
    for one, other in (("sign", "token-32"), ("floor-32", "predict-32"), ("naive-32", "predict-32")):
        assert abs(names.index(one) - names.index(other)) == 1


def test_only_takes_along_what_the_ratios_need():
    """A ratio without its other side says nothing."""
    assert with_needs(frozenset({"predict"})) == {"predict", "floor", "naive"}
    assert with_needs(frozenset({"token"})) == {"token", "sign"}
    assert with_needs(frozenset({"batch"})) == {"batch"}


def test_every_second_round_goes_backwards():
    """A slow drift of the machine then hits all cases alike."""
    cases = chosen(frozenset({"floor", "predict"}), quick=False)
    assert in_order(cases, 1) == in_order(cases, 0)[::-1]


def test_quick_run_keeps_every_case_that_a_target_needs():
    """The smoke run gives all ratios, only rougher."""
    names = {case.name for case in chosen(frozenset(GROUPS), quick=True)}
    assert {"sign", "token-32", "floor-32", "predict-32", "naive-32"} <= names
    assert len(names) < len(CASES)


def test_enough_cold_tokens_for_every_round():
    """Each round gets tokens that the server has never seen; a case without them needs none."""
    by_name = {case.name: case for case in CASES}
    assert by_name["predict-32"].n_cold(3) == 0
    assert by_name["predict-1pc-32"].n_cold(3) >= 3 * FASTEST // 100
    assert by_name["predict-1pc-32"].n_cold_in_all(3, 5) == 5 * by_name["predict-1pc-32"].n_cold(3)


def test_dear_case_is_bounded():
    """A round of cold tokens only would need hundreds of thousands of signatures."""
    case = next(case for case in CASES if case.cold_every == 1)
    assert case.seconds_of(10) == 1
    assert case.n_cold_in_all(10, 100) == 3 * case.n_cold(1)


def test_results_keep_rounds_apart():
    """One sample a round, in order."""
    results = Results()
    for rate in (1.0, 3.0):
        results.add("sign", Sample(rate, 10))
    assert results.rates("sign") == [1.0, 3.0]
    assert results.rates("unknown") == []
