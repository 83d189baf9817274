"""``/admin/v1/revocations``: every kind ends what it names, what makes no sense is refused, and the list is whole."""

import os

import pytest

from auth_server.endpoints.admin_revocations import page
from shared.events import Event
from shared.revocations.entries import Entry, Kind
from shared.revocations.revoked import RevokedSet
from tests.auth_server.test_admin import PATH, assert_problem, call
from tests.auth_server.test_revoke import active, issued


@pytest.fixture
async def operator(server):
    """Call the revocations with a token that may."""
    token = await issued(server, await server.register("tokens:revoke"))

    async def ask(method="POST", query="", **body):
        return await call(server, token, method, PATH + query, **({"json": body} if body else {}))

    return ask


async def test_a_token_ends_by_itself_or_by_its_id(server, operator):
    """Position in the answer; no token is echoed."""
    made = await server.register()
    token, by_id, good = [await issued(server, made) for _ in range(3)]
    answer = await operator(kind="token", value=token, reason="leaked in a ticket")
    assert answer.status_code == 200
    assert set(answer.json()) == {"kind", "epoch", "sequence", "stream_id"}
    from tests.auth_server.test_revoke import INTROSPECT, send

    jti = (await send(server, made, by_id, INTROSPECT)).json()["jti"]
    again = await operator(kind="jti", value=jti)
    assert again.json()["sequence"] == answer.json()["sequence"] + 1
    assert [await active(server, made, each) for each in (token, by_id, good)] == [False, False, True]


@pytest.mark.parametrize("kind", ["client", "subject"])
async def test_all_tokens_of_a_client_or_subject_end_and_new_ones_are_good(server, operator, clock, kind):
    """The same second, a millisecond later."""
    made, other = await server.register(), await server.register()
    before, foreign = await issued(server, made), await issued(server, other)
    clock.now += 0.002
    assert (await operator(kind=kind, value=made.client.client_id)).status_code == 200
    clock.now += 0.001
    after = await issued(server, made)
    assert [await active(server, made, each) for each in (before, foreign, after)] == [False, True, True]


async def test_a_not_before_in_the_past_ends_what_is_older(server, operator, clock):
    """And nothing issued since."""
    made = await server.register()
    before = await issued(server, made)
    clock.advance(2)
    after = await issued(server, made)
    assert (await operator(kind="client", value=made.client.client_id, not_before=clock() - 1)).status_code == 200
    assert [await active(server, made, each) for each in (before, after)] == [False, True]


async def test_a_key_that_signs_is_for_the_key_ring(server, clock):
    """409 for active and standby keys; keys of others need ``keys:manage`` too."""
    may_keys = await issued(server, await server.register("tokens:revoke keys:manage"))
    only_revoke = await issued(server, await server.register("tokens:revoke"))
    kids = [key["kid"] for key in (await server.http.get("/.well-known/jwks.json")).json()["keys"]]
    assert len(kids) == 2
    for kid in kids:
        assert_problem(
            await call(server, may_keys, "POST", json={"kind": "signing_key", "value": kid}), 409, "conflict"
        )
    body = {"kind": "signing_key", "value": "gone"}
    assert_problem(await call(server, only_revoke, "POST", json=body), 403, "insufficient_scope")
    assert (await call(server, may_keys, "POST", json=body)).status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"kind": "nonsense", "value": "x"}, "/kind"),
        ({"kind": "client"}, ""),
        ({"kind": "client", "value": ""}, "/value"),
        ({"kind": "client", "value": 7}, "/value"),
        ({"kind": "client", "value": "x", "more": 1}, ""),
        ({"kind": "client", "value": "x", "not_before": "now"}, "/not_before"),
        ({"kind": "client", "value": "x", "not_before": -1}, "/not_before"),
        ({"kind": "client", "value": "x", "reason": "a\nb"}, "/reason"),
        ({"kind": "client", "value": "x", "not_before": 1_900_000_000}, None),
        ({"kind": "client", "value": "x" * 513}, None),
        ({"kind": "jti", "value": "x", "not_before": 1}, None),
        ({"kind": "token", "value": "x"}, None),
    ],
)
async def test_what_makes_no_sense_is_refused(operator, event_log, body, pointer):
    """400 with a pointer where one member is wrong; nothing is written, nothing echoed."""
    answer = await operator(**body)
    assert_problem(answer, 400, "invalid_request")
    assert [error["pointer"] for error in answer.json()["errors"]] == ([] if pointer is None else [pointer])
    assert "nonsense" not in answer.text
    assert not event_log.named(Event.REVOCATION_WRITTEN)


async def test_all_kinds_are_listed_page_by_page(operator, clock):
    """Each once, whatever the size of the page; with counts, and a filter."""
    wanted = [("client", "c-1"), ("client", "c-2"), ("subject", "ann"), ("grant", "g"), ("api_key", "k")]
    for kind, value in [*wanted, ("jti", "0" * 32), ("jti", "1" * 32)]:
        assert (await operator(kind=kind, value=value)).status_code == 200
    found, cursor = [], ""
    while cursor is not None:
        body = (await operator("GET", f"?limit=2&cursor={cursor}")).json()
        found += body["items"]
        cursor = body["next"]
    listed = [(item["kind"], item["value"]) for item in found]
    assert listed == [*wanted, ("token", "0" * 32), ("token", "1" * 32)]
    assert found[0]["not_before"] == clock()
    assert found[-1]["until"] > clock() + 3600
    assert body["counts"] == {"token": 2, "client": 2, "subject": 1, "grant": 1, "api_key": 1, "signing_key": 0}
    assert body["as_of"] == clock()
    only = (await operator("GET", "?kind=client&limit=1")).json()
    assert (len(only["items"]), only["next"]) == (1, "client." + b"c-1".hex())
    for query in ("?kind=nonsense", "?cursor=x", "?cursor=client.zz", "?cursor=token.1", "?cursor=nonsense.00"):
        assert_problem(await operator("GET", query), 400, "invalid_request")


def test_pages_of_a_large_set_are_whole():
    """1,000 tokens over many minutes, and one that was revoked again for longer stands there once."""
    revoked = RevokedSet(3600, 30)
    keys = [os.urandom(16) for _ in range(1000)]
    for number, key in enumerate([*keys, keys[0]]):
        revoked.apply(Entry(Kind.TOKEN, 0, b"", 0, 1_800_000_000_000 + number * 3000, key, b""))
    found, cursor = [], ""
    while cursor is not None:
        items, cursor = page(revoked, cursor, 7, None)
        found += [item.value for item in items]
    assert len(found) == 1000
    assert set(found) == {key.hex() for key in keys}
