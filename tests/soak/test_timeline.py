"""Until when a revoked token may be served, and when a retry is what clients have to expect."""

import pytest

from bench.soak.timeline import BOUND_S, Outage, Timeline, allowed_until


@pytest.mark.parametrize(
    ("outages", "until"),
    [
        ([], 11.0),
        ([(2.0, 9.9)], 11.0),  # over before the acknowledgement
        ([(8.0, 14.0)], 15.0),
        ([(10.5, 14.0)], 15.0),  # begins within the bound
        ([(11.5, 14.0)], 11.0),  # begins after it: the host had its second
        ([(14.5, 20.0), (8.0, 14.0)], 21.0),  # the next begins before the second after the first is over
        ([(8.0, 14.0), (15.5, 20.0)], 15.0),
        ([(8.0, float("inf"))], float("inf")),
    ],
)
def test_the_bound_starts_again_at_the_end_of_an_outage(outages, until):
    """A host that can't be reached can't know; from the moment it can, it has one second."""
    assert BOUND_S == 1.0
    assert allowed_until([Outage("a", *outage) for outage in outages], 10.0) == until


def test_an_outage_concerns_only_its_hosts():
    """Each host has its own way to the store."""
    timeline = Timeline()
    with timeline.outage("a"):
        assert timeline.cut_off("a")
        assert not timeline.cut_off("b")
        assert timeline.due("b", 5.0) == 6.0
        assert timeline.due("a", timeline.now()) == float("inf")
    assert not timeline.cut_off("a")


def test_a_retry_is_expected_only_near_an_emergency():
    """Before it, or long after, a 401 for a good token is a failure."""
    timeline = Timeline()
    timeline.emergencies.append((10.0, 12.0))
    assert [timeline.retry_expected(at) for at in (9.9, 10.0, 21.9, 22.1)] == [False, True, True, False]


def test_calls_are_summed_up_by_second_and_host():
    """Latency counts from when a call was due, so a call that had to wait shows it."""
    timeline = Timeline()
    timeline.good("a", timeline.now() - 0.5, retried=False)
    timeline.good("a", timeline.now() - 0.5, retried=True)
    timeline.failed("b", "status 503")
    (second,) = timeline.seconds()
    assert (second.host, second.n) == ("a", 2)
    assert second.max_ms >= 500
    assert timeline.outcomes == {"ok": 1, "recovered": 1, "failed": 1}
