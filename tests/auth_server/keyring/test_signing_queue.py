"""The signing queue on a real loop: fair, bounded, and never more than a few signatures an iteration."""

import asyncio

import pytest

from auth_server.keyring.signer import Signer
from auth_server.keyring.signing_queue import AT_A_TIME, SigningQueue
from shared.errors import AppError

ISSUER = "http://issuer.test"


@pytest.fixture
def signer(folder, policy, clock) -> Signer:
    return Signer.open(folder, policy, issuer=ISSUER, clock=clock)


def claims(clock, number: int = 0) -> dict[str, object]:
    return {"iss": ISSUER, "exp": int(clock.now) + 900, "jti": str(number)}


async def test_cheap_work_runs_after_every_few_signatures(signer, clock):
    """While 20 tokens are signed, a coroutine that only yields gets a turn after every few of them."""
    queue = SigningQueue(signer)
    order = []

    async def sign(number: int) -> None:
        await queue.sign(claims(clock, number))
        order.append("signed")

    async def cheap() -> None:
        while order.count("signed") < 20:
            order.append("served")
            await asyncio.sleep(0)

    await asyncio.gather(cheap(), *(sign(number) for number in range(20)))
    assert " ".join(["signed"] * (AT_A_TIME + 1)) not in " ".join(order)


async def test_sockets_are_served_while_tokens_are_signed(signer, clock):
    """An echo over a real socket comes back after a few signatures, though the queue never runs empty."""

    async def echo(reader, writer) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    queue, busy, n_signed, waited = SigningQueue(signer), True, 0, []

    async def load() -> None:
        nonlocal n_signed
        while busy:
            await queue.sign(claims(clock))
            n_signed += 1

    loaders = [asyncio.create_task(load()) for _ in range(40)]
    for _ in range(20):
        before = n_signed
        writer.write(b"ping\n")
        assert await reader.readline() == b"ping\n"
        waited.append(n_signed - before)
    busy = False
    await asyncio.gather(*loaders)
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    # Counted, not timed: three or four passes of the loop carry one echo; a queue that ran dry would make it 40 each.
    assert n_signed > 40
    assert sorted(waited)[len(waited) // 2] <= 5 * AT_A_TIME


async def test_first_come_first_signed(signer, clock):
    """In the order of arrival, each caller its own token."""
    queue, done = SigningQueue(signer), []

    async def sign(number: int) -> str:
        token = await queue.sign(claims(clock, number))
        done.append(number)
        return token

    tokens = await asyncio.gather(*(sign(number) for number in range(12)))
    assert done == list(range(12))
    assert tokens == [signer.sign(claims(clock, number)) for number in range(12)]
    assert queue.n_waiting == 0


async def test_full_queue_refuses_with_retry_after(signer, clock):
    """One is signed at once, four wait, the sixth is told to come back."""
    queue = SigningQueue(signer, max_waiting=4)
    waiting = [asyncio.create_task(queue.sign(claims(clock, number))) for number in range(6)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    refused = [result for result in results if isinstance(result, AppError)]
    assert [(error.code, error.retry_after_s) for error in refused] == [("overloaded", 1)]
    assert results[5] is refused[0]
    await queue.sign(claims(clock))


async def test_caller_that_went_away_costs_no_signature(signer, clock):
    """Its place is skipped; who comes behind is served."""
    queue = SigningQueue(signer)
    first = asyncio.create_task(queue.sign(claims(clock, 1)))
    gone = asyncio.create_task(queue.sign(claims(clock, 2)))
    last = asyncio.create_task(queue.sign(claims(clock, 3)))
    await asyncio.sleep(0)
    gone.cancel()
    assert len(await asyncio.gather(first, last)) == 2
    assert gone.cancelled()
    assert queue.n_waiting == 0


async def test_claims_that_can_not_be_signed_fail_their_caller_only(signer, clock):
    """Whether they are first or wait behind others."""
    queue = SigningQueue(signer)
    bad = claims(clock) | {"exp": int(clock.now) + 10_000}
    results = await asyncio.gather(
        queue.sign(claims(clock, 1)), queue.sign(bad), queue.sign(claims(clock, 2)), return_exceptions=True
    )
    assert [type(result) for result in results] == [str, ValueError, str]
    with pytest.raises(ValueError, match="longest life"):
        await queue.sign(bad)


async def test_rotation_in_the_middle_is_taken_over_without_a_failure(signer, changes, clock):
    """The queue reads the ring in a thread and goes on: every token is signed, no loop is blocked."""
    queue, old = SigningQueue(signer), signer.ring.active.kid
    clock.advance(60)
    before = await asyncio.gather(*(queue.sign(claims(clock)) for _ in range(3)))
    clock.advance(400)
    changes.rotate(seen_active=old, reports=())
    after = await asyncio.gather(*(queue.sign(claims(clock)) for _ in range(5)))
    assert signer.ring.active.kid != old
    assert len({token.split(".")[0] for token in before}) == len({token.split(".")[0] for token in after}) == 1
    assert before[0].split(".")[0] != after[0].split(".")[0]


async def test_exhausted_reservation_is_raised_before_the_next_signature(signer, folder, clock):
    """A burst after a long sleep waits once for the disk, then all are signed."""
    queue = SigningQueue(signer)
    clock.advance(5000)
    assert len(await asyncio.gather(*(queue.sign(claims(clock)) for _ in range(5)))) == 5
    assert folder.read()[0].active.last_expiry_at == clock.now + 900 + 120


async def test_lost_folder_fails_whoever_waits_and_the_queue_recovers(signer, folder, clock, tmp_path):
    """503 for each, nobody hangs, and signing goes on when the folder is back."""
    queue = SigningQueue(signer)
    folder.path.rename(tmp_path / "away")
    results = await asyncio.gather(*(queue.sign(claims(clock)) for _ in range(4)), return_exceptions=True)
    assert {result.code for result in results} == {"keys_unavailable"}
    (tmp_path / "away").rename(folder.path)
    assert await queue.sign(claims(clock))
