"""The story that ``flex demo`` tells: each step does something, checks that it held, and says what was seen."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx

from cli.demo_callers import Account, Callers, part_of
from cli.demo_instance import JWKS_MAX_AGE_S, DemoError, Instance, status_of, wait_until
from cli.demo_refusals import refusals, told_in
from flex_client import Explanation, FlexClient, Prediction, RecordError, TokenError
from flex_client.token_endpoint import tls_context

N_CALLERS = 3
TAKEOVER_S = 10.0
SCOPES = ("predict:grit", "explain:grit")


def hold(fact: bool, otherwise: str) -> None:
    """Raise DemoError with a sentence unless something is so."""
    if not fact:
        raise DemoError(otherwise)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its title, and what does it. ``run`` yields lines to show; DemoError or FlexError if it fails."""

    title: str
    run: Callable[[], Iterator[str]]


class Story:
    """All steps on one instance, in order; later ones need what earlier ones made."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._account: Account | None = None
        self._http = httpx.Client(base_url=instance.resource, verify=tls_context(), trust_env=False)
        self.steps = (
            Step("Start a store, an auth server and a model server", self._start),
            Step("Create a client that may use one attribute", self._create_client),
            Step("Get an access token", self._get_token),
            Step("Score one record", self._predict),
            Step("Score a batch", self._batch),
            Step("Ask why", self._explain),
            Step("Ask for a whole profile", self._profile),
            Step("Refuse what must be refused", self._refuse),
            Step("Rotate the signing key while calls run", self._rotate),
            Step("Emergency: drop the signing key at once", self._emergency),
            Step("Stop the auth server, freeze the store: good tokens go on scoring", self._outage),
            Step("Stop cleanly", self._stop),
        )

    @property
    def account(self) -> Account:
        """The client that the story's second step made."""
        if self._account is None:
            raise DemoError("No client was created.")
        return self._account

    @cached_property
    def client(self) -> FlexClient:
        """The story's own caller."""
        return self.account.client()

    @cached_property
    def features(self) -> dict[str, Any]:
        """The attribute's own example record."""
        return dict(self.client.attribute("grit").example["features"])

    def close(self) -> None:
        """Close all connections."""
        self._http.close()
        if "client" in self.__dict__:
            self.client.close()

    def _start(self) -> Iterator[str]:
        self._instance.start("auth")
        self._instance.start("model")
        yield f"auth server {self._instance.issuer}, model server {self._instance.resource}"
        yield f"keys, store and state in {self._instance.folder}"

    def _create_client(self) -> Iterator[str]:
        made = self._instance.flex("client", "create", "--name", "demo-story", "--scope", " ".join(SCOPES))
        self._account = Account(
            self._instance.token_endpoint, made["client_id"], made["client_secret"], self._instance.resource
        )
        yield f"flex client create --scope '{' '.join(SCOPES)}' → {made['client_id']} (its secret is shown once)"

    def _get_token(self) -> Iterator[str]:
        token = self.account.credentials().access_token()
        head, claims = part_of(token, 0), part_of(token, 1)
        hold((head["alg"], head["typ"]) == ("RS256", "at+jwt"), "The token is not an RS256 access token.")
        hold(claims["aud"] in (self._instance.resource, [self._instance.resource]), "The audience is wrong.")
        yield f"header  alg {head['alg']}, typ {head['typ']}, kid {head['kid'][:16]}…"
        yield f"claims  iss {claims['iss']}, aud {claims['aud']}, scope {claims['scope']!r}"
        yield f"        lives {claims['exp'] - claims['iat']} s, {len(token)} characters, signature {token[-6:]!r}"

    def _predict(self) -> Iterator[str]:
        answer = self.client.predict("grit", self.features, "p-17")
        hold(answer.score is not None and answer.id == "p-17", "There is no score.")
        yield _told(answer)
        yield f"model version {answer.model.version}, sha256 {answer.model.sha256[:12]}…"
        yield f"not for: {', '.join(answer.not_for)}"

    def _batch(self) -> Iterator[str]:
        bad = dict.fromkeys(self.features, "a word")
        records = [self.features, bad, {}, self.features]
        results = self.client.predict_batch("grit", records)
        first, refused, empty, last = results
        hold(first == last and isinstance(first, Prediction), "Equal records got different scores.")
        hold(isinstance(refused, RecordError) and refused.status == 422, "The bad record was not refused in its place.")
        hold(isinstance(empty, Prediction) and empty.status == "insufficient_data", "An empty record got a score.")
        yield "4 records → score, error in its place, insufficient data, score; order kept"
        streamed = list(self.client.stream("grit", (self.features for _ in range(1000))))
        hold(len(streamed) == 1000 and streamed[0] == first, "The stream's scores are not the batch's.")
        yield "1,000 more as NDJSON in and out"

    def _explain(self) -> Iterator[str]:
        partly = dict(self.features)
        partly.pop(next(iter(partly)))
        answer = self.client.explain("grit", partly)
        hold(_adds_up(answer), "The contributions do not add up to the score.")
        hold(bool(answer.reasons), "There are no reasons.")
        yield from answer.reasons
        if answer.would_narrow_most is not None:
            yield answer.would_narrow_most.message

    def _profile(self) -> Iterator[str]:
        (only,) = self.client.profile(self.features).attributes
        hold(only.attribute == "grit", "The profile holds what this token may not see.")
        yield "this client: grit, the only attribute that its token may see"
        with FlexClient.from_demo(self._instance.folder / "var" / "demo-client.json") as client:
            record: dict[str, Any] = {}
            for summary in client.attributes():
                record |= client.attribute(summary.id).example["features"]
            profile = client.profile(record).attributes
        scored = [each for each in profile if isinstance(each, Prediction) and each.score is not None]
        hold(len(scored) == len(profile) > 1, "The demo client's profile has attributes without a score.")
        yield "the demo client: " + ", ".join(f"{each.attribute} {each.score:.0f}" for each in scored)

    def _refuse(self) -> Iterator[str]:
        token = self.account.credentials().access_token()
        narrow = self.account.credentials("predict:grit").access_token()
        for refusal in refusals(token, narrow, self.features):
            answer = self._post(refusal.path, refusal.raw_token, refusal.body)
            hold(answer.status_code == refusal.status, f"{refusal.why}: got {answer.status_code}.")
            yield f"{refusal.status} {refusal.why}{told_in(answer)}"

    @property
    def _body(self) -> dict[str, Any]:
        return {"features": self.features}

    def _rotate(self) -> Iterator[str]:
        before = self._signing_kid()
        with Callers(self.account, self.features, n=N_CALLERS, fresh_tokens=True) as callers:
            hold(wait_until(lambda: before in callers.kids, TAKEOVER_S), "The callers do not get going.")
            after = str(self._instance.flex("keys", "rotate")["active"])
            hold(wait_until(lambda: after in callers.kids, TAKEOVER_S), "No token of the new key was seen.")
            n_then = callers.n_calls
            wait_until(lambda: callers.n_calls >= n_then + 200, TAKEOVER_S)
        hold(not callers.failures, f"{len(callers.failures)} calls failed, the first with: {callers.failures[:1]}")
        yield f"flex keys rotate: {before[:12]}… → {after[:12]}…"
        n_tokens = sum(callers.kids.values())
        yield f"{callers.n_calls:,} calls with {n_tokens} fresh tokens of both keys meanwhile, 0 failed"

    def _emergency(self) -> Iterator[str]:
        hold(wait_until(self._standby_is_safe, TAKEOVER_S), "The standby key does not get old enough.")
        stolen = self.account.credentials().access_token()
        dropped = part_of(stolen, 0)["kid"]
        hold(self._score_status(stolen) == 200, "The token is refused before its key was dropped.")
        with Callers(self.account, self.features, n=N_CALLERS, fresh_tokens=False) as callers:
            hold(wait_until(lambda: dropped in callers.kids, TAKEOVER_S), "The callers do not get going.")
            after = str(self._instance.flex("keys", "rotate", "--emergency")["active"])
            refused = wait_until(lambda: self._score_status(stolen) == 401, JWKS_MAX_AGE_S + TAKEOVER_S)
            hold(refused, "A token of the dropped key still scores.")
            hold(wait_until(lambda: after in callers.kids, TAKEOVER_S), "The callers did not get a new token.")
        hold(not callers.failures, f"{len(callers.failures)} calls failed, the first with: {callers.failures[:1]}")
        fresh = self.account.credentials().access_token()
        hold(self._score_status(fresh) == 200, "A token of the new key is refused.")
        yield f"flex keys rotate --emergency: {dropped[:12]}… is gone, {after[:12]}… signs"
        yield "401 for the token of the dropped key once the model server had looked; 200 for a new one"
        yield f"{callers.n_calls:,} calls of the Python client meanwhile, 0 lost: one retry with a new token"

    def _outage(self) -> Iterator[str]:
        before = self.client.predict("grit", self.features)
        code = self._instance.stop("auth")
        hold(code == 0, f"The auth server ended with exit code {code}.")
        hold(status_of(f"{self._instance.issuer}/health/live") == 0, "The auth server still answers.")
        with self._instance.frozen_store():
            hold(not self._instance.store_answers(), "The store still answers.")
            hold(self.client.predict("grit", self.features) == before, "The score is another one now.")
            hold(status_of(f"{self._instance.resource}/health/ready") == 200, "The model server says it is not ready.")
        try:
            self.account.credentials().access_token()
        except TokenError as error:
            hold(error.error == "unreachable", f"The client says {error}.")
        else:
            raise DemoError("There was a token without an auth server.")
        yield "both are out of reach; the same token scores as before, and the model server is ready"
        yield "a caller without a token is told that the token endpoint is unreachable"

    def _stop(self) -> Iterator[str]:
        code = self._instance.stop("model")
        hold(code == 0, f"The model server ended with exit code {code}.")
        self._instance.remove()
        hold(not self._instance.folder.exists(), "The folder is still there.")
        yield "exit code 0, folder removed"

    def _signing_kid(self) -> str:
        keys = self._instance.flex("keys", "status")["keys"]
        return str(next(key["kid"] for key in keys if key["state"] == "active"))

    def _standby_is_safe(self) -> bool:
        """Whether verifiers hold the key that signs next, so that not even an emergency costs a call."""
        keys = self._instance.flex("keys", "status")["keys"]
        return any(key["state"] == "confirmed" for key in keys)

    def _score_status(self, token: str) -> int:
        return self._post("grit/predict", token, self._body).status_code

    def _post(self, path: str, raw_token: str | None, body: dict[str, Any]) -> httpx.Response:
        headers = {} if raw_token is None else {"Authorization": f"Bearer {raw_token}"}
        return self._http.post(f"/v1/attributes/{path}", json=body, headers=headers)


def _told(answer: Prediction) -> str:
    low, high = answer.interval80 or (0.0, 0.0)
    return (
        f"grit {answer.score:.1f} of 100 ({answer.band}, percentile {answer.percentile}); "
        f"80 of 100 such records lie between {low:.1f} and {high:.1f}"
    )


def _adds_up(answer: Explanation) -> bool:
    if answer.base_value is None or answer.raw is None:
        return False
    return abs(answer.base_value + sum(each.points for each in answer.contributions) - answer.raw) < 1e-6
