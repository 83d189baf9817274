"""A request that was read before is still decided anew, and nothing secret is kept of it."""

import asyncio

from auth_server.endpoints.repeated_requests import RepeatedRequests
from auth_server.oauth.requests import Presented, TokenForm
from tests.auth_server.serving import TOKEN

FORM = b"application/x-www-form-urlencoded"


def presented(client_id="one"):
    """What some request says."""
    return Presented(TokenForm({"grant_type": "client_credentials"}, ()), "client_secret_basic", client_id, b"h" * 32)


def test_the_same_bytes_are_read_once():
    """What was remembered comes back; other bytes do not find it."""
    repeated = RepeatedRequests()
    digest = repeated.digest([b"Basic abc"], FORM, b"grant_type=client_credentials")
    assert repeated.get(digest) is None
    repeated.remember(digest, presented())
    assert repeated.get(digest) == presented()
    assert repeated.get(repeated.digest([b"Basic abd"], FORM, b"grant_type=client_credentials")) is None


def test_bytes_that_move_between_header_and_body_are_another_request():
    """The parts are kept apart, so no two requests share a digest by running together."""
    repeated = RepeatedRequests()
    seen = {
        repeated.digest([b"Basic ab"], FORM, b"c"),
        repeated.digest([b"Basic a"], FORM, b"bc"),
        repeated.digest([], FORM, b"Basic abc"),
        repeated.digest([b"Basic abc" + FORM], b"x", b""),
    }
    assert len(seen) == 4


def test_two_servers_do_not_share_digests():
    """The key is the process's own: a dump of one says nothing about another's."""
    first, second = RepeatedRequests(), RepeatedRequests()
    assert first.digest([b"Basic a"], FORM, b"") != second.digest([b"Basic a"], FORM, b"")


def test_several_authorizations_and_no_content_type_are_never_remembered():
    """What will be refused is read each time."""
    repeated = RepeatedRequests()
    assert repeated.digest([b"a", b"b"], FORM, b"") is None
    assert repeated.digest([b"a"], None, b"") is None
    repeated.remember(None, presented())
    assert repeated.get(None) is None


def test_its_size_is_bounded():
    """2,000 and not one more."""
    repeated = RepeatedRequests()
    for number in range(2_001):
        repeated.remember(number.to_bytes(32, "big"), presented())
    assert len(repeated._read) == 1


async def test_repeated_bytes_are_decided_on_the_client_as_it_is_now(server, settings, clock):
    """The same request gets a token, nothing while the client is disabled, and a token again."""
    made = await server.register()
    assert (await server.token(made)).status_code == 200
    await server.clients.disable(made.client.client_id, clock())
    await until_answered(server, made, 401)
    await server.clients.enable(made.client.client_id)
    await until_answered(server, made, 200)
    first, second = await server.token(made), await server.token(made)
    assert first.json()["access_token"] != second.json()["access_token"]


async def until_answered(server, made, status):
    """Wait for a change of the client, which reaches the server within milliseconds."""
    async with asyncio.timeout(5):
        while (await server.token(made)).status_code != status:
            await asyncio.sleep(0.005)


async def test_no_secret_is_kept(server):
    """Neither in the header's form nor in the body's."""
    made = await server.register()
    secret = made.secret.reveal()
    form = {"grant_type": "client_credentials", "client_id": made.client.client_id, "client_secret": secret}
    assert (await server.http.post(TOKEN, data=form)).status_code == 200
    repeated = server_memo(server)
    assert repeated._read
    assert secret not in repr(list(repeated._read.values()))


def server_memo(server):
    """Find the running endpoint's memory."""
    import gc

    return next(found for found in gc.get_objects() if isinstance(found, RepeatedRequests) and found._read)
