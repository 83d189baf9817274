"""The proof that no revocation is missed, in small."""

from bench.soak.disconnects import prove


async def test_nothing_is_missed_over_some_disconnects_and_restarts(tmp_path):
    """Both followers hold exactly what the writers were told is written."""
    told: list[str] = []
    proof = await prove(tmp_path, 60, tell=told.append)
    assert (proof.missed, proof.extra) == (0, 0)
    assert proof.held
    assert proof.n_disconnects >= 60
    assert proof.n_restarts >= 1
    assert proof.n_revocations > 20
    assert told
