"""What counts as late, and how a trial follows one token on real connections."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.children import free_port
from bench.soak.lines import Line, staleness_of
from bench.soak.rotations import kid_of
from bench.soak.timeline import Timeline
from bench.soak.trials import Reach, Trials
from bench.soak.wire import Answer, CallBroken, Pool, connect
from tests.soak.conftest import serving


class Verifier:
    """A server that answers with one status, which a test sets."""

    def __init__(self) -> None:
        self.status = 200
        self.port = free_port()

    async def serve(self, reader, writer):
        while await reader.read(65536):
            writer.write(b"HTTP/1.1 %d -\r\ncontent-length: 2\r\n\r\n{}" % self.status)


@pytest.fixture
async def verifier() -> AsyncIterator[Verifier]:
    """One that takes every token at first."""
    made = Verifier()
    async with serving(made.port, made.serve):
        yield made


async def trials_on(verifier: Verifier) -> Trials:
    line = Line("a", "1", 1, await connect(verifier.port))
    return Trials([line], Timeline(), "/x", [{"f": 1}])


async def test_a_token_that_is_refused_in_time_is_not_late(verifier):
    """Its reach is the last call that was served after the acknowledgement."""
    trials = await trials_on(verifier)

    async def revoke() -> float:
        acked_at = trials.timeline.now()
        asyncio.get_running_loop().call_later(0.1, setattr, verifier, "status", 401)
        return acked_at

    await trials.hold("jti", "token", revoke)
    await trials.finish()
    (reach,) = trials.reaches
    assert reach.refused
    assert not reach.late
    assert 0.03 < reach.reach_s < 0.5
    assert trials.timeline.outcomes["failed"] == 0


async def test_a_token_that_was_refused_before_its_revocation_is_a_failed_good_call(verifier):
    """And nothing is revoked."""
    verifier.status = 401
    trials = await trials_on(verifier)

    async def revoke() -> float:
        raise AssertionError

    await trials.hold("jti", "token", revoke)
    assert trials.timeline.outcomes["failed"] == 1
    assert not trials.reaches


async def test_a_dead_token_that_is_served_again_is_late(verifier):
    """However long after."""
    trials, stop = await trials_on(verifier), asyncio.Event()

    async def revoke() -> float:
        verifier.status = 401
        return trials.timeline.now()

    await trials.hold("jti", "token", revoke)
    await trials.finish()
    haunting = asyncio.create_task(trials.haunt(stop, 200))
    await asyncio.sleep(0.05)
    assert [reach.kind for reach in trials.reaches] == ["jti"]
    trials.timeline.outages.clear()
    trials._graves = [(request, acked_at - 2) for request, acked_at in trials._graves]
    verifier.status = 200
    await asyncio.sleep(0.1)
    stop.set()
    await haunting
    assert all(reach.late for reach in trials.reaches if reach.kind == "ghost")
    assert "ghost" in {reach.kind for reach in trials.reaches}


async def test_a_revocation_that_is_not_acknowledged_leaves_no_trial(verifier):
    """Nobody promised anything."""
    trials = await trials_on(verifier)

    async def revoke() -> float:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await trials.hold("jti", "token", revoke)
    await trials.finish()
    assert not trials.reaches


def test_served_up_to_the_bound_is_in_time():
    """Later, or never refused, is late."""
    assert not Reach("jti", "a", "1", 1.0, 2.0, 2.0, refused=True).late
    assert Reach("jti", "a", "1", 1.0, 2.01, 2.0, refused=True).late
    assert Reach("jti", "a", "1", 1.0, None, 2.0, refused=False).late


async def test_a_pool_uses_its_connections_in_turn_and_replaces_broken_ones(verifier):
    """A call over a connection that ends is broken, not answered."""
    pool = Pool(verifier.port)
    await pool.fill(2)
    assert (await pool.ask(b"x")).status == 200
    async with pool.one() as first, pool.one() as second:
        assert first is not second
        first.close()
        with pytest.raises(CallBroken):
            await first.ask(b"x")
    assert (await pool.ask(b"x")).status == 200
    pool.close()


@pytest.mark.parametrize(
    ("body", "told"), [(b'{"feed":{"staleness_s":1.5}}', 1.5), (b'{"staleness_s": null}', None), (b"{}", None)]
)
def test_staleness_is_read_from_readiness(body, told):
    """A process that knows nothing says null."""
    assert staleness_of(Answer(200, b"", body)) == told


def test_the_kid_is_read_from_a_tokens_header(issuer):
    """No token has none."""
    assert kid_of(issuer.token().decode()) == issuer.kid
    assert not kid_of("")


async def test_a_bound_is_final_only_when_the_outage_has_ended(verifier):
    """A token that is refused while an outage goes on must not be owed to nobody for ever."""
    trials = await trials_on(verifier)

    async def revoke() -> float:
        verifier.status = 401
        return trials.timeline.now()

    with trials.timeline.outage("a"):
        await trials.hold("jti", "token", revoke)
        await trials.finish()
        (before,) = trials.settled()
        assert before.due == float("inf")
    (after,) = trials.settled()
    assert trials.timeline.now() <= after.due <= trials.timeline.now() + 1.0
