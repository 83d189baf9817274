"""Keys are followed in the background: real sockets, good and bad issuers, a settable clock."""

import asyncio
import contextlib
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from model_server.remote_keys import RemoteKeys
from model_server.remote_keys import fetch as fetch_module
from model_server.remote_keys.fetch import metadata_urls, open_client
from model_server.remote_keys.follower import refresh_in_s, retry_in_s
from shared.errors import AppError
from shared.events import Event
from tests.model_server.issuer_site import (
    JWKS,
    METADATA,
    OPENID,
    drip,
    flood,
    hang,
    hang_up,
    plain,
    redirect,
    running_site,
)
from tests.tokens import Issuer, compact

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def site():
    async with running_site() as site:
        yield site


@pytest.fixture
async def client(site, monkeypatch):
    """An HTTP client as the follower makes it, impatient so that hanging issuers cost the tests little."""
    monkeypatch.setattr(fetch_module, "TIMEOUT_S", 0.3)
    async with open_client(site.url) as client:
        yield client


@pytest.fixture
def keys(site, clock, tmp_path):
    return follow(site, clock, tmp_path)


def follow(site, clock, folder, **changes) -> RemoteKeys:
    usual = {"soft_max_age_s": 300, "max_stale_s": 3600.0, "clock": clock, "chance": lambda: 0.5}
    return RemoteKeys(site.url, file=folder / "model" / "key_set.json", **(usual | changes))


@pytest.fixture
def first(site, rsa_key):
    return Issuer(rsa_key, "one", site.url)


@pytest.fixture
def second(site, other_rsa_key):
    return Issuer(other_rsa_key, "two", site.url)


async def test_keys_are_found_through_the_metadata(site, client, keys, first, event_log):
    """Discovery, fetch, one event that names the kids; the next fetch comes at 80 % of the soft age."""
    site.publish(first.jwk)
    assert await keys.refresh(client) == pytest.approx(240.0)
    assert keys.get("one") == first.key
    assert keys.usable
    (line,) = event_log.named(Event.KEY_SET_REFRESHED)
    assert (line["kids"], line["generation"], line["source"], line["saved"]) == (["one"], 1, "issuer", True)


async def test_without_keys_the_answer_is_503(keys):
    """Nothing held: the fault is ours, and the caller should come back."""
    assert not keys.usable
    with pytest.raises(AppError) as error:
        keys.get("one")
    assert (error.value.code, error.value.retry_after_s) == ("keys_unavailable", 5)


async def test_openid_configuration_is_the_second_choice(site, client, keys, first):
    """For issuers that know only OpenID Connect Discovery."""
    site.publish(first.jwk)
    site.answers[OPENID] = site.answers.pop(METADATA)
    await keys.refresh(client)
    assert keys.get("one")


def test_metadata_of_an_issuer_with_a_path_lies_in_three_places():
    """RFC 8414 section 3.1 puts the path behind; older issuers and OpenID Connect in front."""
    assert metadata_urls("https://id.example/tenant/a") == [
        "https://id.example/.well-known/oauth-authorization-server/tenant/a",
        "https://id.example/tenant/a/.well-known/oauth-authorization-server",
        "https://id.example/tenant/a/.well-known/openid-configuration",
    ]
    assert len(metadata_urls("https://id.example")) == 2


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "http://other", "jwks_uri": "{url}/jwks"},
        {"jwks_uri": "{url}/jwks"},
        {"issuer": "{url}/", "jwks_uri": "{url}/jwks"},
        {"issuer": "{url}"},
        {"issuer": "{url}", "jwks_uri": ["{url}/jwks"]},
        {"issuer": "{url}", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "{url}", "jwks_uri": "/jwks"},
        {"issuer": "{url}", "jwks_uri": "http://user:secret@127.0.0.1/jwks"},
        {"issuer": "{url}", "jwks_uri": "http://[::1/jwks"},
    ],
)
async def test_metadata_that_can_not_be_trusted_is_not_used(site, client, keys, first, metadata, event_log):
    """Another issuer's, without a usable address, or with one that is no web address of the same kind."""
    site.publish(first.jwk)
    site.answers[METADATA] = plain(compact(metadata).replace(b"{url}", site.url.encode()))
    await keys.refresh(client)
    assert not keys.usable
    assert site.n_requests[JWKS] == 0
    assert event_log.named(Event.KEY_SET_UNREACHABLE)


def test_an_https_issuer_can_not_send_us_to_http():
    """No downgrade, to the loopback neither."""
    for uri in ("http://id.example/jwks", "http://127.0.0.1/jwks"):
        assert not fetch_module._may_fetch(uri, "https://id.example")
    assert fetch_module._may_fetch("https://keys.example/jwks", "https://id.example")


async def test_an_unchanged_set_costs_a_304_and_keeps_the_keys_identity(site, client, keys, first, clock):
    """The entity tag is sent back; tokens verified with the key stay good, and the set is as fresh as new."""
    changes = []
    keys.on_change = lambda: changes.append(1)
    site.publish(first.jwk)
    await keys.refresh(client)
    key = keys.get("one")
    clock.advance(200)
    await keys.refresh(client)
    assert site.headers[JWKS]["if-none-match"]
    assert keys.get("one") is key
    assert (keys.ring.generation, keys.ring.confirmed_at, len(changes)) == (1, clock.now, 1)


async def test_the_same_keys_in_a_new_spelling_are_no_change(site, client, keys, first):
    """White space and order do not empty the memo."""
    site.publish(first.jwk)
    await keys.refresh(client)
    ring = keys.ring
    site.answers[JWKS] = plain(b'  {"keys": [' + compact(dict(reversed(first.jwk.items()))) + b"]}")
    await keys.refresh(client)
    assert keys.ring.by_kid is ring.by_kid


async def test_a_rotation_swaps_the_ring_and_tells(site, client, keys, first, second):
    """The new key is there, the one that stayed is the same object, the removed one is gone, the memo is emptied."""
    changes = []
    keys.on_change = lambda: changes.append(keys.ring.generation)
    site.publish(first.jwk, second.jwk)
    await keys.refresh(client)
    kept = keys.get("two")
    site.publish(second.jwk)
    await keys.refresh(client)
    assert keys.get("one") is None
    assert keys.get("two") is kept
    assert changes == [1, 2]


BAD_ANSWERS = {
    "hangs": hang,
    "drips": drip,
    "floods": flood,
    "hangs up": hang_up,
    "is gone": plain(b"gone", status=404),
    "fails": plain(b"", status=500),
    "redirects": redirect("http://127.0.0.1:1/jwks"),
    "is garbage": plain(b"<html>login</html>"),
    "is empty": plain(b'{"keys":[]}'),
    "is huge": plain(b" " * 70_000 + b'{"keys":[]}'),
    "is compressed": plain(b"xxx", content_encoding="gzip"),
    "is no change": plain(b"", status=304),
}


@pytest.mark.parametrize("bad", BAD_ANSWERS)
async def test_a_bad_answer_leaves_the_last_good_set(site, client, keys, first, clock, bad, event_log):
    """Whatever the endpoint does: in bounded time, with an event, and known keys go on working."""
    site.publish(first.jwk)
    await keys.refresh(client)
    site.answers[JWKS] = BAD_ANSWERS[bad]
    keys._etag = None
    clock.advance(100)
    async with asyncio.timeout(3):
        assert await keys.refresh(client) == pytest.approx(1.0)
    assert keys.get("one") == first.key
    assert keys.ring.confirmed_at == clock.now - 100
    assert event_log.named(Event.KEY_SET_UNREACHABLE) or event_log.named(Event.KEY_SET_REFUSED)


@pytest.mark.parametrize("member", ["d", "k"])
async def test_a_set_with_a_private_member_is_refused_whole(site, client, keys, first, second, member, event_log):
    """Not even the good keys of a set that leaks are taken."""
    site.publish(first.jwk)
    await keys.refresh(client)
    site.publish(first.jwk, second.jwk | {member: "AA"})
    await keys.refresh(client)
    assert keys.get("two") is None
    assert keys.get("one")
    (line,) = event_log.named(Event.KEY_SET_REFUSED)
    assert line["reason"] == "private_member"


async def test_a_hanging_issuer_delays_no_look_up(site, client, keys, first):
    """While the fetch hangs, known and unknown kids are answered at once."""
    site.publish(first.jwk)
    await keys.refresh(client)
    site.answers[JWKS] = hang
    refreshing = asyncio.create_task(keys.refresh(client))
    while site.n_requests[JWKS] < 2:
        await asyncio.sleep(0)
    assert keys.get("one")
    assert keys.get("unknown") is None
    assert not refreshing.done()
    await refreshing


async def test_the_hard_age_ends_it(site, client, keys, first, clock, event_log):
    """Beyond it nothing is known any more: 503, an event, and good again with the next answer."""
    site.publish(first.jwk)
    await keys.refresh(client)
    site.answers.clear()
    clock.advance(3599)
    await keys.refresh(client)
    assert keys.get("one")
    clock.advance(2)
    await keys.refresh(client)
    assert event_log.named(Event.KEY_SET_STALE)
    with pytest.raises(AppError, match="keys_unavailable"):
        keys.get("one")
    site.publish(first.jwk)
    await keys.refresh(client)
    assert keys.get("one")


@contextlib.asynccontextmanager
async def running(keys, until):
    """Run the follower's own loop until it has done something."""
    task = asyncio.create_task(keys.run())
    try:
        async with asyncio.timeout(10):
            while not until():
                await asyncio.sleep(0.005)
            yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_unknown_kids_cause_one_refetch_in_thirty_seconds(site, keys, first, second, clock):
    """A flood of made-up kids is one request; a new key is found; after the pause another one may be asked."""
    site.publish(first.jwk)
    async with running(keys, until=lambda: keys.usable):
        site.publish(first.jwk, second.jwk)
        for n in range(500):
            assert keys.get(f"made-up-{n}") is None
        while keys.get("two") is None:
            await asyncio.sleep(0.005)
        assert site.n_requests[JWKS] == 2
        clock.advance(29)
        keys.get("made-up")
        await asyncio.sleep(0.05)
        assert site.n_requests[JWKS] == 2
        clock.advance(2)
        keys.get("made-up")
        while site.n_requests[JWKS] < 3:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("bad", ["hangs", "fails"])
async def test_unknown_kids_do_not_hammer_an_issuer_that_is_down(site, clock, tmp_path, first, bad, monkeypatch):
    """The pause is stamped before the fetch, so that failing and hanging ones count too."""
    monkeypatch.setattr(fetch_module, "TIMEOUT_S", 0.1)
    keys = follow(site, clock, tmp_path, chance=lambda: 1e6)  # the next planned attempt never comes
    site.publish(first.jwk)
    async with running(keys, until=lambda: keys.usable):
        site.answers[JWKS] = BAD_ANSWERS[bad]
        for n in range(200):
            keys.get(f"made-up-{n}")
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.15)
        assert site.n_requests[JWKS] == 2
        assert keys.get("one")


async def test_a_start_keeps_trying_until_the_issuer_is_there(site, keys, first):
    """The issuer may come up later than we do; the first retries are fast."""
    async with running(keys, until=lambda: site.n_requests[METADATA] >= 2):
        assert not keys.usable
        site.publish(first.jwk)
        while not keys.usable:
            await asyncio.sleep(0.005)


async def test_a_short_max_age_is_followed(site, clock, tmp_path, first, second):
    """With max-age=1 a rotation is seen within a second, without anybody asking for it."""
    keys = follow(site, clock, tmp_path)
    site.publish(first.jwk, cache_control="public, max-age=1")
    async with running(keys, until=lambda: keys.usable):
        site.publish(first.jwk, second.jwk)
        while "two" not in keys.ring.by_kid:
            await asyncio.sleep(0.01)


def test_the_pace_of_refreshes():
    """80 % of the soft age with a tenth of jitter; bounds from 1 s to 15 min and to what the operator set."""
    assert refresh_in_s(300, 300, 0.0) == pytest.approx(216)
    assert refresh_in_s(300, 300, 1.0) == pytest.approx(264)
    assert refresh_in_s(None, 300, 0.5) == pytest.approx(240)
    assert refresh_in_s(0, 300, 0.5) == pytest.approx(0.8)
    assert refresh_in_s(86_400, 86_400, 0.5) == pytest.approx(720)
    assert refresh_in_s(600, 60, 0.5) == pytest.approx(48)


def test_the_pace_of_retries():
    """Doubling from 1 s to 5 min with keys, from 0.1 s to 5 s without."""
    assert [retry_in_s(n, holds_keys=True, chance=0.5) for n in (1, 2, 3, 9, 99)] == pytest.approx([1, 2, 4, 256, 300])
    assert [retry_in_s(n, holds_keys=False, chance=0.5) for n in (1, 2, 99)] == pytest.approx([0.1, 0.2, 5])


async def test_a_restart_works_while_the_issuer_is_down(site, client, keys, first, clock, tmp_path, event_log):
    """The last good set is on disk, for this user only; its age goes on counting."""
    site.publish(first.jwk)
    await keys.refresh(client)
    file = tmp_path / "model" / "key_set.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["key_set.json"]
    clock.advance(1000)
    restarted = follow(site, clock, tmp_path)
    restarted.load_last_good()
    assert restarted.get("one") == first.key
    assert restarted.ring.confirmed_at == clock.now - 1000
    clock.advance(2600)
    assert not restarted.usable
    assert event_log.named(Event.KEY_SET_REFRESHED)[-1]["source"] == "disk"


async def test_an_unchanged_set_is_confirmed_on_disk(site, client, keys, first, clock, tmp_path):
    """Else a restart after a quiet day would find a set that looks too old."""
    site.publish(first.jwk)
    await keys.refresh(client)
    clock.advance(3000)
    await keys.refresh(client)
    clock.advance(3000)
    restarted = follow(site, clock, tmp_path)
    restarted.load_last_good()
    assert restarted.usable


async def test_a_file_that_can_not_be_trusted_is_left_alone(site, client, keys, first, clock, tmp_path, event_log):
    """Another issuer's, writable by others, a link, garbage, or with a private member: as if it were not there."""
    site.publish(first.jwk)
    await keys.refresh(client)
    file = tmp_path / "model" / "key_set.json"
    good = file.read_bytes()

    def usable_after_restart(**changes) -> bool:
        restarted = follow(site, clock, tmp_path, **changes)
        restarted.load_last_good()
        return restarted.usable

    file.chmod(0o660)
    assert not usable_after_restart()
    file.chmod(0o600)
    assert usable_after_restart()
    for bad in (b"", b"{}", good[:-20], good.replace(b'\\"kid', b'\\"d\\":\\"AA\\",\\"kid')):
        file.write_bytes(bad)
        assert not usable_after_restart()
    file.write_bytes(good.replace(site.url.encode(), b"http://other"))
    assert not usable_after_restart()
    moved = tmp_path / "elsewhere"
    moved.write_bytes(good)
    file.unlink()
    file.symlink_to(moved)
    assert not usable_after_restart()
    assert {line["reason"] for line in event_log.named(Event.KEY_SET_REFUSED)} == {
        "file_writable_by_others",
        "file_malformed",
        "file_unreadable",
        "private_member",
    }


async def test_a_disk_that_can_not_be_written_costs_only_the_file(site, client, clock, first, tmp_path, event_log):
    """Keys are followed all the same; the event says that they were not saved."""
    (tmp_path / "model").write_text("in the way")
    keys = follow(site, clock, tmp_path)
    site.publish(first.jwk)
    await keys.refresh(client)
    assert keys.usable
    assert event_log.named(Event.KEY_SET_REFRESHED)[0]["saved"] is False


async def test_the_client_follows_no_proxy_of_the_environment(site, keys, first, monkeypatch):
    """An environment variable can't put somebody between us and the issuer."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    site.publish(first.jwk)
    async with open_client(site.url) as client:
        await keys.refresh(client)
    assert keys.usable


async def test_a_defect_does_not_stop_the_follower(site, client, keys, first, monkeypatch, event_log):
    """An unforeseen exception is an event and a retry, never a dead task."""
    site.publish(first.jwk)
    monkeypatch.setattr("model_server.remote_keys.follower.discover", None)
    assert await keys.refresh(client) < 1
    (line,) = event_log.named(Event.INTERNAL_ERROR)
    assert line["reason"] == "TypeError"


async def test_a_client_that_can_not_be_made_is_tried_again(site, clock, tmp_path, first, event_log):
    """For example with a CA bundle that can't be read: an event, a pause, and another attempt."""
    attempts = []

    def fail_once(issuer: str):
        attempts.append(issuer)
        if len(attempts) == 1:
            raise OSError("no such CA bundle")
        return open_client(issuer)

    keys = follow(site, clock, tmp_path, open_client=fail_once)
    site.publish(first.jwk)
    async with running(keys, until=lambda: keys.usable):
        assert attempts == [site.url, site.url]
    assert event_log.named(Event.INTERNAL_ERROR)[0]["reason"] == "OSError"


def test_the_clients_own_command_line_is_not_loaded():
    """It would bring click, rich and pygments into every worker: 4 MiB."""
    code = (
        "import sys; from model_server.remote_keys.fetch import open_client; open_client('http://x');"
        "print([m for m in ('rich', 'pygments') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
