"""The chain: whatever somebody does to the entries between two followers' looks, one of the checks says so."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.revocations.chain import Chain, Gap
from shared.revocations.entries import FIRST_LINK, Entry, Kind, Revocation, encode_entry, epoch_authenticator
from shared.revocations.feed_key import FeedKey
from shared.revocations.head import Head

KEY, EPOCH = FeedKey(bytes(32)), b"e" * 16
AUTHENTICATOR = epoch_authenticator(KEY, EPOCH)
Page = list[tuple[bytes, list[bytes]]]


def written(n_entries: int, first: int = 1, link: bytes = FIRST_LINK, salt: bytes = b"") -> tuple[Page, Head]:
    page = []
    for number in range(first, first + n_entries):
        raw, link = encode_entry(AUTHENTICATOR, Revocation(Kind.TOKEN, salt + b"%d" % number, 1), number, link, 1)
        page.append((b"1-%d" % number, [b"e", raw]))
    return page, Head(EPOCH, 1, first + n_entries - 1, link, 1)


def read(page: Page, head: Head) -> list[bytes]:
    """Read like a follower that starts; gives the keys taken in. Raises Gap."""
    chain, taken = Chain(KEY, EPOCH), []
    chain.mark()
    chain.take(page, lambda entry: taken.append(entry.key))
    chain.confirm(head)
    return taken


@given(st.integers(0, 8), st.integers(0, 8))
def test_a_whole_chain_is_confirmed_wherever_it_is_cut(n_entries: int, n_trimmed: int) -> None:
    """Trimmed up to the floor that the head names, or less: all is well."""
    page, head = written(n_entries)
    floor = min(n_trimmed, n_entries) + 1
    head = Head(EPOCH, floor, head.last, head.link, 1)
    for start in range(floor):
        assert len(read(page[start:], head)) == n_entries - start


@given(st.integers(1, 8), st.data())
def test_any_harm_is_found(n_entries: int, data: st.DataObject) -> None:
    """Deleted, altered, repeated, swapped, forged, from another history: never confirmed."""
    page, head = written(n_entries)
    place = data.draw(st.integers(0, n_entries - 1))
    other = data.draw(st.integers(0, n_entries - 1).filter(lambda n: n != place or n_entries == 1))
    raw = page[place][1][1]
    foreign = written(n_entries, salt=b"x")[0]
    forged = encode_entry(
        epoch_authenticator(FeedKey(b"f" * 32), EPOCH), Revocation(Kind.CLIENT, b"c", 1), 1, bytes(8), 1
    )
    harmed = {
        "deleted": page[:place] + page[place + 1 :],
        "altered": [*page[:place], (b"1-1", [b"e", raw[:-1] + bytes([raw[-1] ^ 1])]), *page[place + 1 :]],
        "empty": [*page[:place], (b"1-1", []), *page[place + 1 :]],
        "repeated": [*page, page[place]],
        "twice": [*page[: place + 1], *page[place:]],
        "forged": [*page[:place], (b"1-1", [b"e", forged[0]]), *page[place:]],
        "other history": [*page[:place], *foreign[place:]],
    }
    if n_entries > 1:
        swapped = page.copy()
        swapped[place], swapped[other] = swapped[other], swapped[place]
        harmed["swapped"] = swapped
    for wrong in harmed.values():
        with pytest.raises(Gap):
            read(wrong, head)


def test_each_fault_has_its_word() -> None:
    """For the audit line."""
    page, head = written(5)
    more, later = written(3, 6, head.link)
    for entries, against, reason in [
        (page[1:], head, "missing_start"),
        ([], head, "missing_start"),
        (page[:-1], head, "missing_end"),
        (page[:2] + page[3:], head, "out_of_sequence"),
        (page, Head(b"f" * 16, 1, 5, head.link, 1), "epoch_changed"),
        (page, Head(EPOCH, 1, 5, b"another.", 1), "other_history"),
        ([(b"1-1", [b"e", b"junk"])], head, "not_authentic"),
        (page + more, head, ""),
        (page + more, later, ""),
    ]:
        found = ""
        try:
            read(entries, against)
        except Gap as gap:
            found = gap.reason
        assert found == reason


def test_a_later_head_may_be_behind_what_came_with_it_but_not_behind_what_came_before() -> None:
    """That is what tells a heartbeat that was overtaken from a store that lost writes."""
    page, head = written(5)
    more, _ = written(3, 6, head.link)
    chain = Chain(KEY, EPOCH)
    chain.take(page, ignore)
    chain.mark()
    chain.take(more, ignore)
    chain.confirm(head)
    chain.mark()
    with pytest.raises(Gap, match="rewound"):
        chain.confirm(head)


def test_what_is_authentic_counts_whatever_is_missing_beside_it() -> None:
    """A broken feed still teaches."""
    page, _ = written(5)
    chain, taken = Chain(KEY, EPOCH), []
    chain.take([page[0], (b"1-9", [b"e", os.urandom(70)]), page[3], page[4]], lambda entry: taken.append(entry.key))
    assert taken == [b"1", b"4", b"5"]
    assert chain.fault == "not_authentic"


def ignore(_: Entry) -> None:
    """Take nothing in."""
