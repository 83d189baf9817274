"""The whole way through one server as it is wired: issue, revoke, and what other verifiers read then."""

import asyncio

from tests.auth_server.other_verifiers import bit, path, payload
from tests.auth_server.serving import basic


async def test_a_token_revoked_here_is_invalid_in_its_list_and_in_the_snapshot(server, clock):
    """RFC 7009 in, both statements out; the snapshot with a token for the issuer."""
    made, reader = await server.register(status_list=True), await server.register("audit:read")
    raw_token = (await server.token(made)).json()["access_token"]
    entry = payload(raw_token)["status"]["status_list"]
    assert bit(payload((await server.http.get(path(entry["uri"]))).text), entry["idx"]) == 0
    headers = {"authorization": basic(made.client.client_id, made.secret)}
    assert (await server.http.post("/oauth2/revoke", data={"token": raw_token}, headers=headers)).status_code == 200
    clock.advance(2)
    async with asyncio.timeout(5):
        while True:
            listed = await server.http.get(path(entry["uri"]))
            if listed.status_code == 200 and bit(payload(listed.text), entry["idx"]):
                break
            clock.advance(0.1)
            await asyncio.sleep(0.01)
    bearer = {"authorization": "Bearer " + (await server.token(reader)).json()["access_token"]}
    snapshot = payload((await server.http.get("/oauth2/revocations", headers=bearer)).text)
    assert len(snapshot["revocations"]["tokens"]) == 1
    bearer = {"authorization": f"Bearer {raw_token}"}
    assert (await server.http.get("/oauth2/revocations", headers=bearer)).status_code == 401
