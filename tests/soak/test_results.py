"""The verdict: a run that kept its promises holds, and each broken promise alone makes it fail."""

import msgspec
import pytest

from bench.floods.runner import Flood, Floods
from bench.soak.disconnects import DisconnectProof
from bench.soak.policy import Flip
from bench.soak.report import page
from bench.soak.results import About, Results, Soak, by_disturbance, checks, reach_figures
from bench.soak.timeline import Failure, Mark
from bench.soak.trials import Reach

IN_TIME = Reach("jti", "a", "1", 10.0, 10.2, 11.0, refused=True)
NEVER_SERVED = Reach("jti", "a", "2", 10.0, None, 11.0, refused=True)
IN_OUTAGE = Reach("client", "b", "1", 10.0, 14.5, 15.0, refused=True)
LATE = Reach("jti", "a", "1", 10.0, 11.1, 11.0, refused=True)
STILL_SERVED = Reach("jti", "a", "1", 10.0, 10.5, 11.0, refused=False)
FLIP = Flip("a", "1", 7.0, 6.4, 0.3, [])
SOAK = Soak(
    outcomes={"ok": 100, "recovered": 2},
    latency_ms={"p50": 1.0},
    failures=[],
    reaches=[IN_TIME, NEVER_SERVED, IN_OUTAGE],
    n_trials_unacknowledged=0,
    n_ghost_calls=5,
    planned=3,
    emergencies=1,
    dropped=2,
    wanted=(3, 1),
    faults={"store killed": 1},
    flips=[FLIP],
    server_faults=[],
    outages=[],
    marks=[],
    seconds=[],
    staleness=[],
)
FLOOD = Flood("unknown kids", 100, 1.0, {"401": 90, "429": 10}, 0, 1.0, 2.0, {}, 0, 70.0)
FLOODS = Floods(1.0, 2.0, 70.0, 1, 10.0, [FLOOD])
PROOF = DisconnectProof(1000, 40, 5000, 0, 0, 20.0, 0.5)
ABOUT = About("2026-01-01", "a machine", 10, 40, 6, {"a": 5, "b": -5}, quick=True, seed=1)
GOOD = Results(ABOUT, SOAK, PROOF, FLOODS)


def broken(part: str, **changed) -> Results:
    """The good run with one thing changed."""
    return msgspec.structs.replace(GOOD, **{part: msgspec.structs.replace(getattr(GOOD, part), **changed)})


def test_a_run_that_kept_every_promise_holds():
    """Its page says so."""
    assert all(check.held for check in checks(GOOD))
    assert "**Everything held.**" in page(GOOD, picture=False)


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("soak", {"outcomes": {"ok": 100, "failed": 1}, "failures": [Failure(1.0, "a", "status 503")]}),
        ("soak", {"outcomes": {}}),
        ("soak", {"reaches": [IN_TIME, LATE]}),
        ("soak", {"reaches": [STILL_SERVED]}),
        ("soak", {"reaches": []}),
        ("soak", {"n_trials_unacknowledged": 1}),
        ("soak", {"planned": 2}),
        ("soak", {"emergencies": 0}),
        ("soak", {"flips": []}),
        ("soak", {"flips": [msgspec.structs.replace(FLIP, refused_after_s=3.0)]}),
        ("soak", {"flips": [msgspec.structs.replace(FLIP, refused_after_s=None)]}),
        ("soak", {"flips": [msgspec.structs.replace(FLIP, others=[401])]}),
        ("soak", {"server_faults": ["auth: Traceback"]}),
        ("disconnects", {"missed": 1}),
        ("disconnects", {"extra": 1}),
        ("floods", {"fetches": 2}),
        ("floods", {"floods": [msgspec.structs.replace(FLOOD, statuses={"500": 1})]}),
        ("floods", {"floods": [msgspec.structs.replace(FLOOD, broken=1)]}),
        ("floods", {"floods": [msgspec.structs.replace(FLOOD, good_failed={"429": 1})]}),
        ("floods", {"floods": [msgspec.structs.replace(FLOOD, rss_mib=90.0)]}),
    ],
)
def test_one_broken_promise_fails_the_run(part, changed):
    """Exactly that one is told."""
    results = broken(part, **changed)
    assert sum(not check.held for check in checks(results)) == 1
    assert "**Not everything held.**" in page(results, picture=False)


def test_reach_is_told_apart_by_what_was_broken():
    """Where an outage moved the bound, the time says nothing about the feed; a slow way says little."""
    assert list(by_disturbance(SOAK).values()) == [[IN_TIME, NEVER_SERVED], [], [IN_OUTAGE]]
    slow = msgspec.structs.replace(SOAK, marks=[Mark(10.9, "fault", "a: store slow", 12.0)])
    assert list(by_disturbance(slow).values()) == [[], [IN_TIME, NEVER_SERVED], [IN_OUTAGE]]
    p50, _, longest = reach_figures([IN_TIME, NEVER_SERVED]) or (0.0, 0.0, 0.0)
    assert (round(p50), round(longest)) == (100, 200)
    assert reach_figures([]) is None
