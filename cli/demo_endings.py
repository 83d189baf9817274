"""Steps of the demo about early ends: one token, a client, and what holds while nobody can be asked."""

import time
from collections.abc import Iterator

from cli.demo_ports import DemoError, status_of
from cli.demo_stage import Stage, hold
from flex_client import TokenError


def revoke(stage: Stage) -> Iterator[str]:
    """Let the client revoke one of its tokens."""
    account = stage.account
    stage.ended, other = (account.credentials().access_token() for _ in range(2))
    with stage.watched(stage.ended) as watch:
        sent_at = time.time()
        answer = stage.issuer.post(
            "/oauth2/revoke", data={"token": stage.ended}, auth=(account.client_id, account.client_secret)
        )
        refused_ms = watch.after(sent_at)
    hold(answer.status_code == 200, f"The revocation got {answer.status_code}.")
    hold(stage.statuses(other) == {200}, "Another token of the same client is refused.")
    yield f"POST /oauth2/revoke: 200, and 401 at both model servers {refused_ms:.0f} ms after it was sent"
    yield "another token of the same client goes on: 200"


def disable(stage: Stage) -> Iterator[str]:
    """Disable a second client while it calls."""
    account = stage.register("demo-leaver", "predict:grit")
    with stage.watched(account.credentials().access_token()) as watch:
        stage.instance.flex("client", "disable", account.client_id)
        refused_ms = watch.after(stage.instance.event_at("client_disabled"))
    try:
        account.credentials().access_token()
    except TokenError as error:
        hold(error.error == "invalid_client", f"The disabled client is told {error}.")
    else:
        raise DemoError("The disabled client got a token.")
    yield f"flex client disable {account.client_id}"
    yield f"401 for its token at both model servers {refused_ms:.0f} ms after it was disabled"
    yield "its request for a new one: invalid_client"


def outage(stage: Stage) -> Iterator[str]:
    """Take away everybody whom a verifier could ask."""
    instance = stage.instance
    before = stage.client.predict("grit", stage.features)
    good = stage.account.credentials().access_token()
    code = instance.stop("auth")
    hold(code == 0, f"The auth server ended with exit code {code}.")
    hold(status_of(f"{instance.issuer}/health/live") == 0, "The auth server still answers.")
    with instance.frozen_store():
        hold(not instance.store_answers(), "The store still answers.")
        hold(stage.client.predict("grit", stage.features) == before, "The score is another one now.")
        hold(stage.statuses(good) == {200}, "A good token is refused.")
        hold(stage.statuses(stage.ended) == {401}, "The revoked token scores again.")
        ready = {status_of(f"{address}/health/ready") for address in instance.model_servers}
        hold(ready == {200}, "A model server says it is not ready.")
    try:
        stage.account.credentials().access_token()
    except TokenError as error:
        hold(error.error == "unreachable", f"The client says {error}.")
    else:
        raise DemoError("There was a token without an auth server.")
    yield "a good token scores as before at both model servers, which are ready"
    yield "the token that was revoked is still refused: 401"
    yield "a caller without a token is told that the token endpoint is unreachable"
