"""All parts of the admin API behind their scopes, over HTTP, on a running server."""

import pytest

from tests.auth_server.test_admin import assert_problem, call
from tests.auth_server.test_revoke import issued

PARTS = [
    ("keys:manage", "/admin/v1/keys", {"keys", "verifiers", "generation", "advice"}),
    ("keys:manage", "/admin/v1/verifiers", {"verifiers"}),
    ("tokens:revoke", "/admin/v1/revocations", {"counts", "as_of"}),
    ("usage:read", "/admin/v1/usage", set()),
    ("usage:read", "/admin/v1/usage/unused-scopes", {"days"}),
]


@pytest.mark.parametrize(("scope", "path", "members"), PARTS)
async def test_a_part_answers_who_holds_its_scope_and_nobody_else(server, scope, path, members):
    """Every list has items and next."""
    answer = await call(server, await issued(server, await server.register(scope)), path=path)
    assert answer.status_code == 200
    assert answer.json().keys() >= {"items", "next"} | members
    other = next(each for each in ("keys:manage", "tokens:revoke", "usage:read") if each != scope)
    assert_problem(
        await call(server, await issued(server, await server.register(other)), path=path), 403, "insufficient_scope"
    )


async def test_keys_are_shown_and_one_is_prepared(server):
    """The ring as the command line shows it, without a private member; a standby key more after the call."""
    token = await issued(server, await server.register("keys:manage"))
    before = (await call(server, token, path="/admin/v1/keys")).json()
    assert next(key["state"] for key in before["keys"]) == "active"
    assert not any("d" in key or "pem" in str(key).lower() for key in before["keys"])
    assert (await call(server, token, "POST", "/admin/v1/keys/prepare")).status_code == 200
    after = (await call(server, token, path="/admin/v1/keys")).json()
    assert (after["generation"], len(after["keys"])) == (before["generation"] + 1, len(before["keys"]) + 1)


async def test_a_used_management_scope_does_not_count_as_unused(server):
    """The report names what a client holds and did not need."""
    made = await server.register("usage:read audit:read")
    token = await issued(server, made)
    await call(server, token, path="/admin/v1/usage")
    items = (await call(server, token, path="/admin/v1/usage/unused-scopes")).json()["items"]
    (mine,) = [item for item in items if item["client_id"] == made.client.client_id]
    assert mine["scopes"] == ["audit:read"]
