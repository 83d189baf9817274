"""What the token endpoint refuses, in RFC 6749's form, and what its refusals do not tell."""

import asyncio
import base64
import logging
import random
from dataclasses import replace

import pytest

from auth_server.endpoints.client_requests import FAILED_AFTER_S
from auth_server.stores.client_secrets import new_secret
from shared.events import Event
from shared.store import connect
from tests.auth_server.serving import FORM, TOKEN, basic, serving

GRANT = "grant_type=client_credentials"


async def send(server, body=GRANT, headers=(), made=None, url=TOKEN):
    """Post a body as it stands, with a client's HTTP Basic if one is given."""
    login = {"authorization": basic(made.client.client_id, made.secret)} if made else {}
    content = body.encode() if isinstance(body, str) else body
    return await server.http.post(url, content=content, headers=[*(FORM | login).items(), *headers])


def assert_refused(answer, status, error):
    """The whole form of RFC 6749 section 5.2."""
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert set(answer.json()) == {"error", "error_description"}
    assert answer.json()["error_description"].isascii()
    assert '"' not in answer.json()["error_description"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["pragma"] == "no-cache"
    assert answer.headers.get("www-authenticate") == ('Basic realm="flex"' if error == "invalid_client" else None)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", "invalid_request"),
        ("scope=predict%3Agrit", "invalid_request"),
        ("grant_type=", "invalid_request"),
        ("grant_type=password&username=a&password=b", "unsupported_grant_type"),
        ("grant_type=Client_Credentials", "unsupported_grant_type"),
        ("grant_type=authorization_code&code=x", "unsupported_grant_type"),
        (f"{GRANT}&{GRANT}", "invalid_request"),
        (f"{GRANT}&scope=predict%3Agrit&scope=predict%3Agrit", "invalid_request"),
        (f"{GRANT}&unknown=1&unknown=2", "invalid_request"),
        (f"{GRANT}&scope", "invalid_request"),
        (f"{GRANT}&=x", "invalid_request"),
        (f"{GRANT}&", "invalid_request"),
        (f"{GRANT}&scope=%zz", "invalid_request"),
        (f"{GRANT}&scope=%ff", "invalid_request"),
        (GRANT.encode() + b"&scope=\xff", "invalid_request"),
        (b"\xff\xfe" + GRANT.encode("utf-16-le"), "invalid_request"),
        (f"{GRANT}&" + "&".join(f"p{n}=1" for n in range(32)), "invalid_request"),
        (f"{GRANT}&scope=" + "x" * 9000, "invalid_scope"),
        (f"{GRANT}&client_secret=x", "invalid_request"),
        (f"{GRANT}&client_id=another-0123456789", "invalid_request"),
        (f"{GRANT}&client_assertion=x", "invalid_request"),
        ('{"grant_type": "client_credentials"}', "invalid_request"),
    ],
)
async def test_a_malformed_request_is_refused_although_the_secret_is_right(server, body, error):
    """RFC 6749 sections 2.3, 3.2 and appendix B."""
    assert_refused(await send(server, body, made=await server.register()), 400, error)


async def test_unknown_parameters_are_ignored_and_the_own_id_may_be_repeated_in_the_body(server):
    """The success beside the refusals: what lenient clients send."""
    made = await server.register()
    body = f"{GRANT}&extra=1&client_id={made.client.client_id}&audience=&client_secret="
    assert (await send(server, body, made=made)).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/x-www-form-urlencoded; charset=UTF-8", 200),
        ("APPLICATION/X-WWW-FORM-URLENCODED", 200),
        ("application/x-www-form-urlencoded; charset=utf-16", 400),
        ("application/json", 400),
        ("text/plain", 400),
        ("multipart/form-data; boundary=x", 400),
        ("", 400),
    ],
)
async def test_only_forms_in_utf_8_are_read(server, content_type, status):
    """RFC 6749 appendix B."""
    made = await server.register()
    headers = {"authorization": basic(made.client.client_id, made.secret), "content-type": content_type}
    assert (await server.http.post(TOKEN, content=GRANT, headers=headers)).status_code == status


@pytest.mark.parametrize(
    "query", ["client_id=x&client_secret=y", "client%5Fsecret=y", "grant_type=client_credentials", "resource=x"]
)
async def test_credentials_in_the_uri_are_refused(server, query):
    """RFC 6749 section 2.3.1; an unrelated query is ignored."""
    made = await server.register()
    assert_refused(await send(server, made=made, url=f"{TOKEN}?{query}"), 400, "invalid_request")
    assert (await send(server, made=made, url=f"{TOKEN}?trace=1")).status_code == 200


async def test_a_body_of_more_than_16_kib_is_not_read(server):
    """413, still in the token endpoint's own form, and the connection ends."""
    made = await server.register()
    answer = await send(server, GRANT + "&x=" + "x" * 16 * 1024, made=made)
    assert_refused(answer, 413, "invalid_request")
    assert answer.headers["connection"] == "close"


async def test_two_authorization_headers_are_one_too_many(server):
    """One authentication method a request."""
    made = await server.register()
    again = [("authorization", basic(made.client.client_id, made.secret))]
    assert_refused(await send(server, headers=again, made=made), 400, "invalid_request")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_are_not_allowed(server, method):
    """Never 'unsupported_grant_type' for a GET."""
    answer = await server.http.request(method, TOKEN)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def headers_but_ids(answer):
    return {name: value for name, value in answer.headers.items() if name != "x-request-id"}


async def test_all_failed_authentications_look_the_same(server, clock, event_log):
    """Unknown client, wrong secret, disabled client, unreadable credentials: one answer; the log knows which."""
    made, other, disabled = [await server.register() for _ in range(3)]
    await server.clients.disable(disabled.client.client_id, clock())
    own = made.client.client_id
    logins = [
        ("unknown_client", basic("nobody-0123456789ab", new_secret())),
        ("unknown_client", basic("not an id of ours", new_secret())),
        ("wrong_secret", basic(own, new_secret())),
        ("wrong_secret", basic(own, other.secret)),
        ("wrong_secret", basic(own, "\u00e9\u4e2d")),
        ("disabled_client", basic(disabled.client.client_id, disabled.secret)),
        ("malformed_basic", basic(own, "")),
        ("malformed_basic", "Basic " + base64.b64encode(own.encode()).decode()),
        ("malformed_basic", "Basic " + base64.b64encode(b"\xff\xfe:x").decode()),
        ("malformed_basic", "Basic !!!!"),
        ("malformed_basic", "Basic"),
        ("malformed_basic", basic(own, "%zz")),
        ("oversized_credentials", basic(own, "x" * 600)),
        ("unknown_method", "Bearer " + made.secret.reveal()),
    ]
    answers = [await send(server, headers=[("authorization", login)]) for _, login in logins]
    answers.append(await send(server, f"{GRANT}&client_id={own}"))
    answers.append(await send(server))
    assert_refused(answers[0], 401, "invalid_client")
    assert len({answer.content for answer in answers}) == 1
    assert all(headers_but_ids(answer) == headers_but_ids(answers[0]) for answer in answers)
    reasons = [line["reason"] for line in event_log.named(Event.CLIENT_AUTHENTICATION_FAILED)]
    assert reasons == [reason for reason, _ in logins] + ["no_credentials"] * 2


async def test_a_wrong_secret_costs_the_same_round_trip_as_an_unknown_client(server):
    """The time must not tell a client that is held in memory from one that does not exist."""
    made = await server.register()
    assert (await server.token(made)).status_code == 200
    store = connect(server.settings)

    async def reads():
        return (await store.info("commandstats"))["cmdstat_hgetall"]["calls"]

    for client_id in (made.client.client_id, "nobody-0123456789ab"):
        before = await reads()
        await send(server, headers=[("authorization", basic(client_id, new_secret()))])
        assert await reads() - before == 1
    await store.aclose()


async def test_failed_authentications_take_their_time(server):
    """Whatever was looked up, the answer comes no sooner than the fixed moment after the request."""
    made, loop = await server.register(), asyncio.get_running_loop()
    await server.token(made)
    took = []
    for login in (
        [("authorization", basic(made.client.client_id, new_secret()))],
        [("authorization", basic("nobody-0123456789ab", new_secret()))],
        [("authorization", "Basic !!!")],
        [],
    ):
        started = loop.time()
        assert (await send(server, headers=login)).status_code == 401
        took.append(loop.time() - started)
    assert min(took) >= FAILED_AFTER_S - 0.001  # timers may fire within the clock's resolution


async def test_a_secret_that_ended_is_told_apart_in_the_log_only(server, event_log):
    """The method a client is not registered for, too."""
    made = await server.register()
    body = f"{GRANT}&client_id={made.client.client_id}&client_secret={new_secret().reveal()}"
    assert_refused(await send(server, body), 401, "invalid_client")
    (line,) = event_log.named(Event.CLIENT_AUTHENTICATION_FAILED)
    assert (line["reason"], line["client_id"]) == ("wrong_secret", made.client.client_id)


async def test_no_secret_and_no_token_reaches_a_log_an_event_or_an_error(server, event_log, caplog):
    """Not even with every logger at DEBUG, Authlib's included; nor through a secret sent in the wrong place."""
    caplog.set_level(logging.DEBUG)
    made, wrong = await server.register(), new_secret()
    issued = await server.token(made)
    bodies = [
        f"{GRANT}&client_id={wrong.reveal()}&client_secret={wrong.reveal()}",
        f"{GRANT}&scope={wrong.reveal()}",
        f"{GRANT}&resource={wrong.reveal()}",
        f"grant_type={wrong.reveal()}",
    ]
    answers = [await send(server, body, made=None if "client_id" in body else made) for body in bodies]
    answers.append(await send(server, headers=[("authorization", basic(made.client.client_id, wrong))]))
    answers.append(await send(server, headers=[("authorization", basic(wrong.reveal(), wrong))]))
    answers.append(await send(server, made=made, url=f"{TOKEN}?client_secret={wrong.reveal()}"))
    assert {answer.status_code for answer in answers} == {400, 401}
    # The test's own client logs the URLs that it calls.
    logged = " ".join(record.getMessage() for record in caplog.records if record.name != "httpx")
    assert "authlib" in caplog.text
    printed = logged + event_log.text + "".join(answer.text for answer in answers)
    token = issued.json()["access_token"]
    for secret in (made.secret.reveal(), wrong.reveal(), token, token.rpartition(".")[2], token.split(".")[1]):
        assert secret not in printed
        assert base64.b64encode(secret.encode()).decode()[4:40] not in printed
    assert event_log.named(Event.TOKEN_ISSUED)[0]["client_id"] == made.client.client_id


async def test_too_many_signatures_at_once_are_put_off_not_failed(server):
    """The queue is bounded: what does not fit is told to come back, the rest is served."""
    made = await server.register()
    answers = await asyncio.gather(*(server.token(made) for _ in range(150)))
    late = [answer for answer in answers if answer.status_code != 200]
    assert len(answers) - len(late) >= 64
    for answer in late:
        assert_refused(answer, 503, "temporarily_unavailable")
        assert answer.headers["retry-after"] == "1"


async def test_without_the_store_clients_are_put_off_and_served_again_after_it(own_store, clock):
    """503 with Retry-After, the same for a known and an unknown client; no restart is needed."""
    store, settings = own_store
    async with serving(replace(settings, store_outage_hold_s=0), clock) as server:
        made = await server.register()
        assert (await server.token(made)).status_code == 200
        store.release()
        async with asyncio.timeout(5):
            while (await server.token(made)).status_code == 200:
                await asyncio.sleep(0.01)
        answers = [await server.token(made), await send(server, headers=[("authorization", basic("nobody-0123", "x"))])]
        for answer in answers:
            assert_refused(answer, 503, "temporarily_unavailable")
            assert answer.headers["retry-after"] == "1"
        assert (await server.http.get("/health/ready")).status_code == 503
        assert (await server.http.get("/.well-known/jwks.json")).status_code == 200
        store.attach()
        async with asyncio.timeout(10):
            while (await server.token(made)).status_code != 200:
                await asyncio.sleep(0.02)


async def test_known_clients_get_tokens_while_the_store_is_away(own_store, clock, event_log):
    """Decided on what was true when the store was lost, marked in the audit; whoever can't be proved is put off."""
    store, settings = own_store
    async with serving(settings, clock) as server:
        made, refused = await server.register(), await server.register()
        await server.clients.disable(refused.client.client_id, clock())
        assert (await server.token(made)).status_code == 200
        async with asyncio.timeout(5):
            while (await server.token(refused)).status_code == 200:  # until the change has reached the server
                await asyncio.sleep(0.001)
        store.release()
        async with asyncio.timeout(5):
            while (await server.http.get("/health/ready")).json()["status"] != "degraded":
                clock.advance(1.1)
                await asyncio.sleep(0.01)
        answer = await server.token(made)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        assert event_log.named(Event.TOKEN_ISSUED)[-1]["without_store"] is True
        for login in (
            basic("nobody-0123456789ab", new_secret()),
            basic(made.client.client_id, new_secret()),
            basic(refused.client.client_id, refused.secret),
        ):
            assert_refused(await send(server, headers=[("authorization", login)]), 503, "temporarily_unavailable")
        store.attach()
        async with asyncio.timeout(10):
            while (await server.http.get("/health/ready")).json()["status"] != "ready":
                clock.advance(1.1)
                await asyncio.sleep(0.02)
        assert (await server.token(made)).status_code == 200
        assert "without_store" not in event_log.named(Event.TOKEN_ISSUED)[-1]


async def test_a_server_may_start_before_its_store(own_store, clock):
    """It is alive but not ready, refuses with 503, and serves once the store is there."""
    store, settings = own_store
    store.release()
    async with serving(settings, clock) as server:
        assert (await server.http.get("/health/live")).status_code == 200
        assert (await server.http.get("/health/ready")).json()["type"] == "urn:flex:error:not_ready"
        login = [("authorization", basic("nobody-0123456789ab", "x"))]
        assert_refused(await send(server, headers=login), 503, "temporarily_unavailable")
        store.attach()
        async with asyncio.timeout(10):
            while (await server.http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.02)
        assert (await server.token(await server.register())).status_code == 200


async def test_no_input_makes_the_server_fail(server):
    """Five hundred damaged requests: never a 500, never anything but RFC 6749's form."""
    chance = random.Random(20260821)
    made = await server.register()
    seeds = [GRANT.encode() + b"&scope=predict%3Agrit&resource=http%3A%2F%2F127.0.0.1%3A8000"]
    seeds += [f"{GRANT}&client_id={made.client.client_id}&client_secret={made.secret.reveal()}".encode()]
    login = basic(made.client.client_id, made.secret)
    for _ in range(500):
        body, header = bytearray(chance.choice(seeds)), bytearray(login.encode())
        for _ in range(chance.randint(0, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        for _ in range(chance.randint(0, 2)):
            header[chance.randrange(len(header))] = chance.choice([b for b in range(33, 256) if b != 127])
        headers = FORM | ({"authorization": bytes(header).decode("latin-1")} if chance.random() < 0.7 else {})
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = await server.http.post(TOKEN, content=bytes(body), headers=raw)
        assert answer.status_code in {200, 400, 401}
        assert set(answer.json()) >= ({"access_token"} if answer.status_code == 200 else {"error", "error_description"})
