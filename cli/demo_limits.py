"""Steps of the demo about limits: a budget in a token, and the usage that the model servers report."""

import json
from collections.abc import Iterator
from typing import Any

from cli.demo_instance import wait_until
from cli.demo_stage import Stage, hold

N_ROWS = 3
USAGE_WITHIN_S = 15.0
_SHOWN = ("calls", "rows", "explanations", "limited", "denied", "invalid", "failed")


def budget(stage: Stage) -> Iterator[str]:
    """Ask for a token that carries a budget of three rows, and spend one row too many."""
    account = stage.account
    details = [{"type": "model_call", "attributes": ["grit"], "rows": N_ROWS, "period": "hour"}]
    form = {"grant_type": "client_credentials", "authorization_details": json.dumps(details)}
    answer = stage.issuer.post("/oauth2/token", data=form, auth=(account.client_id, account.client_secret))
    hold(answer.status_code == 200, f"The token endpoint answered {answer.text}")
    token = answer.json()["access_token"]
    yield f"authorization_details={json.dumps(details)}"
    for row in range(1, N_ROWS + 1):
        spent = stage.post("grit/predict", token, stage.body, server=row % 2)
        hold(spent.status_code == 200, f"Row {row} got {spent.status_code}.")
        yield f"row {row}: 200, RateLimit: {spent.headers['RateLimit']}"
    for server in (0, 1):
        refused = stage.post("grit/predict", token, stage.body, server=server)
        hold(refused.status_code == 429, f"Row {N_ROWS + 1} got {refused.status_code}.")
        hold(refused.headers["Retry-After"].isdecimal(), "The refusal does not say when to come back.")
    yield f"row {N_ROWS + 1}: 429 at both model servers, Retry-After: {refused.headers['Retry-After']}"
    yield f"RateLimit-Policy: {refused.headers['RateLimit-Policy']}"


def usage(stage: Stage) -> Iterator[str]:
    """Wait until the model servers have reported the calls that were over the budget, and show all of them."""
    seen: list[dict[str, Any]] = []

    def reported() -> bool:
        seen[:] = stage.instance.flex("usage", "--client", stage.account.client_id)["items"]
        return any(each["attribute"] == "grit" and each["limited"] for each in seen)

    hold(wait_until(reported, USAGE_WITHIN_S), "The model servers do not report what was used.")
    yield f"flex usage --client {stage.account.client_id}; model servers report every 10 s"
    for each in seen:
        yield f"{each['attribute']}: " + ", ".join(f"{each[name]:,} {name}" for name in _SHOWN)
    n_limited = sum(each["limited"] for each in seen)
    hold(n_limited == 2, f"{n_limited} calls were counted as over a limit, not 2.")
