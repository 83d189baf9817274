"""Reading what a load generator says, and our own generator on a real server."""

import asyncio

import pytest

from bench.generator import LoadFailedError, read_outcome, write_requests
from bench.own_generator import Requests, load, read_requests

GOOD = b'@@{"n": 10, "duration_us": 1e6, "p50_us": 1, "p99_us": 2, "max_us": 3, "ran_out": 0, "failed": {"status": 0}}'


def test_outcome_is_read_from_the_last_line():
    """Whatever the generator prints before it is passed over."""
    outcome = read_outcome(b"Running 1s test\n" + GOOD + b"\n")
    assert (outcome.n, outcome.rate) == (10, 10.0)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (b"unable to connect", "unable to connect"),
        (GOOD.replace(b'"status": 0', b'"status": 3'), "'status': 3"),
        (GOOD.replace(b'"ran_out": 0', b'"ran_out": 7'), "7 requests"),
        (GOOD.replace(b'"n": 10', b'"n": 0'), "no answer"),
    ],
)
def test_anything_but_good_answers_fails_the_run(output, words):
    """Figures of a run with errors mean nothing."""
    with pytest.raises(LoadFailedError, match=words):
        read_outcome(output)


def test_requests_survive_their_file(tmp_path):
    """Bodies may hold line ends and digits."""
    requests = [b"GET / HTTP/1.1\r\n\r\n", b"12\n34", b""]
    assert read_requests(write_requests(tmp_path / "requests", requests)) == requests


def test_each_cold_request_is_used_once():
    """When none is left that is counted, since the figure would be wrong."""
    requests = Requests([b"warm"], [b"cold-1", b"cold-2"], 2)
    assert [requests.take() for _ in range(6)] == [b"warm", b"cold-1", b"warm", b"cold-2", b"warm", b"warm"]
    assert requests.ran_out == 1


@pytest.mark.parametrize(("status", "n_failed"), [(b"200 OK", 0), (b"503 Service Unavailable", 1)])
async def test_own_generator_counts_answers_and_failures(status, n_failed):
    """A real socket on both sides; an error status is a failure, not an answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readline()
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        outcome = await load(port, 4, 0.05, Requests([b"GET / HTTP/1.1\r\n\r\n"], [], 0))
    assert outcome["n"] >= 4
    assert bool(outcome["failed"]["status"]) == bool(n_failed)
    assert outcome["failed"]["read"] == 0
    assert 0 < outcome["p50_us"] <= outcome["p99_us"] <= outcome["max_us"]
