"""Fixtures that several packages' tests share: a settable clock, a signing key, and where events go."""

import faulthandler
import io
import json
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from shared import events

_MAY_END_IN_S = 60


def pytest_unconfigure() -> None:
    """Fail, and say where, if a thread keeps this process alive after the last test: no time-out covers that."""
    faulthandler.dump_traceback_later(_MAY_END_IN_S, exit=True)


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    """A settable clock that starts in 2027."""
    return Clock()


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    """One RSA-2048 key for all tests (making one costs 50 ms)."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def other_rsa_key() -> rsa.RSAPrivateKey:
    """A second key, for forgeries and rotations."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class EventLog:
    """What was emitted during one test."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        events.flush()
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.text.splitlines()]

    def named(self, event: events.Event) -> list[dict]:
        return [line for line in self.lines if line["event"] == event]


@pytest.fixture(autouse=True)
def event_log() -> Iterator[EventLog]:
    """Catch this test's events, so that they can be read and do not fill the terminal."""
    log = EventLog()
    events.configure(stream=log.stream)
    yield log
    events.configure(stream=None)
