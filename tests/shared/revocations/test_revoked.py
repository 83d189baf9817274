"""The set in memory: what it refuses, for how long, and what it costs."""

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.revocations.entries import Entry, Kind, TokenMarks
from shared.revocations.revoked import Reason, RevokedSet, retention_s

NOW_MS = 1_800_000_000_000
LIFE_MS, LEEWAY_MS = 3_600_000, 30_000
TOKEN = TokenMarks(b"t" * 16, b"kid-1", b"client-1", b"ann", b"family-1", b"key-1", NOW_MS)


def entry(kind: int, key: bytes, time_ms: int) -> Entry:
    return Entry(kind, 1, bytes(8), NOW_MS, time_ms, key, bytes(8))


def new_set() -> RevokedSet:
    return RevokedSet(LIFE_MS / 1000, LEEWAY_MS / 1000)


@pytest.mark.parametrize(
    ("kind", "key", "reason"),
    [
        (Kind.CLIENT, b"client-1", Reason.CLIENT),
        (Kind.SUBJECT, b"ann", Reason.SUBJECT),
        (Kind.GRANT, b"family-1", Reason.GRANT),
        (Kind.API_KEY, b"key-1", Reason.API_KEY),
    ],
)
def test_a_watermark_ends_what_was_issued_until_its_millisecond(kind: Kind, key: bytes, reason: Reason) -> None:
    """The millisecond itself is dead, the next one lives; a lower watermark afterwards takes nothing back."""
    revoked = new_set()
    assert revoked.is_revoked(TOKEN) is None
    revoked.apply(entry(kind, b"other", NOW_MS))
    assert revoked.is_revoked(TOKEN) is None
    revoked.apply(entry(kind, key, NOW_MS - 1))
    assert revoked.is_revoked(TOKEN) is None
    revoked.apply(entry(kind, key, NOW_MS))
    revoked.apply(entry(kind, key, NOW_MS - 1000))
    assert revoked.is_revoked(TOKEN) is reason
    assert revoked.is_revoked(replace(TOKEN, issued_ms=NOW_MS + 1)) is None


def test_an_iat_in_whole_seconds_dies_with_every_watermark_of_its_second() -> None:
    """Conservative: we can't know whether it was issued before or after."""
    revoked = new_set()
    revoked.apply(entry(Kind.CLIENT, b"client-1", NOW_MS + 400))
    assert revoked.is_revoked(replace(TOKEN, issued_ms=NOW_MS)) is Reason.CLIENT
    assert revoked.is_revoked(replace(TOKEN, issued_ms=NOW_MS + 401)) is None


def test_one_token_and_one_signing_key() -> None:
    """A kid is said to be new once; a token without grant or API key matches no empty name."""
    revoked = new_set()
    assert revoked.apply(entry(Kind.SIGNING_KEY, b"kid-1", 0))
    assert not revoked.apply(entry(Kind.SIGNING_KEY, b"kid-1", 0))
    assert revoked.is_revoked(TOKEN) is Reason.SIGNING_KEY
    assert revoked.signing_keys == ("kid-1",)
    revoked.apply(entry(Kind.TOKEN, b"t" * 16, NOW_MS + 1000))
    assert revoked.is_revoked(TOKEN) is Reason.TOKEN
    assert revoked.is_revoked(replace(TOKEN, token=b"u" * 16, signing_key=b"kid-2", grant=b"", api_key=b"")) is None
    revoked.apply(entry(99, b"client-1", NOW_MS))
    assert len(revoked) == 2


def test_nothing_is_let_go_while_a_token_could_need_it() -> None:
    """A token until its expiry and the leeway, a watermark for the longest life; then all of it goes."""
    revoked = new_set()
    revoked.apply(entry(Kind.TOKEN, b"t" * 16, NOW_MS + 1000))
    revoked.apply(entry(Kind.CLIENT, b"client-1", NOW_MS))
    revoked.expire(NOW_MS + 1000 + LEEWAY_MS)
    assert revoked.is_revoked(TOKEN) is Reason.TOKEN
    revoked.expire(NOW_MS + 1000 + LEEWAY_MS + 70_000)
    assert revoked.is_revoked(TOKEN) is Reason.CLIENT
    revoked.expire(NOW_MS + LIFE_MS + LEEWAY_MS)
    assert revoked.is_revoked(TOKEN) is Reason.CLIENT
    revoked.expire(NOW_MS + LIFE_MS + LEEWAY_MS + 70_000)
    assert revoked.is_revoked(TOKEN) is None
    revoked.apply(entry(Kind.TOKEN, b"t" * 16, NOW_MS + 1000))  # read again from the stream: of no use any more
    assert len(revoked) == 0


def test_a_token_revoked_again_for_longer_is_kept_for_longer() -> None:
    """The shorter time, whether it comes first or last, takes nothing back."""
    for times in [(1000, 500_000), (500_000, 1000)]:
        revoked = new_set()
        for time_ms in times:
            revoked.apply(entry(Kind.TOKEN, b"t" * 16, NOW_MS + time_ms))
        revoked.expire(NOW_MS + 400_000)
        assert revoked.is_revoked(TOKEN) is Reason.TOKEN


def test_a_burst_expires_in_bounded_steps() -> None:
    """50,000 tokens of one minute go in three calls, so no call holds the loop for long."""
    revoked = new_set()
    for number in range(50_000):
        revoked.apply(entry(Kind.TOKEN, number.to_bytes(16), NOW_MS))
    sizes = []
    for _ in range(4):
        revoked.expire(NOW_MS + 200_000)
        sizes.append(len(revoked))
    assert sizes == [30_000, 10_000, 0, 0]


kinds = st.sampled_from([*Kind])
operations = st.lists(
    st.one_of(
        st.tuples(kinds, st.sampled_from([b"a" * 16, b"b" * 16, b"c" * 16]), st.integers(-7_200_000, 3_600_000)),
        st.integers(0, 900_000),
    ),
    max_size=40,
)


@given(operations)
def test_the_set_is_never_less_than_a_plain_list_of_revocations(history: list) -> None:
    """Against a model that forgets nothing: whatever a token that is still good needs, the set has; and no more."""
    revoked, now_ms = new_set(), NOW_MS
    written: list[tuple[Kind, bytes, int]] = []
    for step in history:
        if isinstance(step, int):
            now_ms += step
            revoked.expire(now_ms)
        else:
            kind, key, offset = step
            time_ms = now_ms + (offset if kind == Kind.TOKEN else min(offset, 0))
            written.append((kind, key, time_ms))
            revoked.apply(entry(kind, key, time_ms))
    for key in (b"a" * 16, b"b" * 16, b"c" * 16):
        for age_ms in (0, 1, 600_000, LIFE_MS):
            issued_ms = now_ms - age_ms
            token = TokenMarks(key, key, key, key, key, key, issued_ms)
            dead = any(
                name == key and (kind in (Kind.TOKEN, Kind.SIGNING_KEY) or issued_ms <= time_ms)
                for kind, name, time_ms in written
            )
            needed = any(
                name == key
                and (
                    kind == Kind.SIGNING_KEY
                    or (kind == Kind.TOKEN and now_ms <= time_ms + LEEWAY_MS)
                    or (kind not in (Kind.TOKEN, Kind.SIGNING_KEY) and issued_ms <= time_ms)
                )
                for kind, name, time_ms in written
            )
            found = revoked.is_revoked(token) is not None
            assert found or not needed
            assert dead or not found


def test_contents_survive_a_copy() -> None:
    """What a snapshot takes and gives back."""
    first, second = new_set(), new_set()
    for kind in Kind:
        first.apply(entry(kind, os.urandom(16), NOW_MS + (1000 if kind == Kind.TOKEN else 0)))
    second.merge(first.contents())
    second.merge(first.contents())
    assert second.contents() == first.contents()
    assert len(second) == 6


def test_a_million_revoked_tokens_fit() -> None:
    """100,000 measured: below 160 bytes each, all there is counted."""
    import tracemalloc

    tracemalloc.start()
    try:
        revoked = new_set()
        for number in range(100_000):
            revoked.apply(entry(Kind.TOKEN, os.urandom(16), NOW_MS + number % LIFE_MS))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size / 100_000 < 160
    assert retention_s(3600, 30) == 3635
