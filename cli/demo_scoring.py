"""Steps of the demo from the first start to the first refusals, and its end."""

from collections.abc import Iterator
from typing import Any

from cli.demo_callers import part_of
from cli.demo_refusals import refusals, told_in
from cli.demo_stage import Stage, hold
from flex_client import Explanation, FlexClient, Prediction, RecordError

SCOPES = "predict:grit explain:grit"


def start(stage: Stage) -> Iterator[str]:
    """Start all parts."""
    instance = stage.instance
    for part in ("auth", "model", "model-2"):
        instance.start(part)
    yield f"auth server {instance.issuer}, model servers {' and '.join(instance.model_servers)}"
    yield f"keys, store and state in {instance.folder}"


def create_client(stage: Stage) -> Iterator[str]:
    """Register the story's client."""
    made = stage.register("demo-story", SCOPES)
    yield f"flex client create --scope '{SCOPES}' → {made.client_id} (its secret is shown once)"


def get_token(stage: Stage) -> Iterator[str]:
    """Get a token and look into it."""
    token = stage.account.credentials().access_token()
    head, claims = part_of(token, 0), part_of(token, 1)
    hold((head["alg"], head["typ"]) == ("RS256", "at+jwt"), "The token is not an RS256 access token.")
    hold(claims["aud"] in (stage.instance.resource, [stage.instance.resource]), "The audience is wrong.")
    yield f"header  alg {head['alg']}, typ {head['typ']}, kid {head['kid'][:16]}…"
    yield f"claims  iss {claims['iss']}, aud {claims['aud']}, scope {claims['scope']!r}"
    yield f"        lives {claims['exp'] - claims['iat']} s, {len(token)} characters, signature {token[-6:]!r}"


def predict(stage: Stage) -> Iterator[str]:
    """Score the example record."""
    answer = stage.client.predict("grit", stage.features, "p-17")
    hold(answer.score is not None and answer.id == "p-17", "There is no score.")
    yield _told(answer)
    yield f"model version {answer.model.version}, sha256 {answer.model.sha256[:12]}…"
    yield f"not for: {', '.join(answer.not_for)}"


def batch(stage: Stage) -> Iterator[str]:
    """Score several records, as JSON and as NDJSON."""
    bad = dict.fromkeys(stage.features, "a word")
    first, refused, empty, last = stage.client.predict_batch("grit", [stage.features, bad, {}, stage.features])
    hold(first == last and isinstance(first, Prediction), "Equal records got different scores.")
    hold(isinstance(refused, RecordError) and refused.status == 422, "The bad record was not refused in its place.")
    hold(isinstance(empty, Prediction) and empty.status == "insufficient_data", "An empty record got a score.")
    yield "4 records → score, error in its place, insufficient data, score; order kept"
    streamed = list(stage.client.stream("grit", (stage.features for _ in range(1000))))
    hold(len(streamed) == 1000 and streamed[0] == first, "The stream's scores are not the batch's.")
    yield "1,000 more as NDJSON in and out"


def explain(stage: Stage) -> Iterator[str]:
    """Explain the score of a record in which one answer is missing."""
    partly = dict(stage.features)
    partly.pop(next(iter(partly)))
    answer = stage.client.explain("grit", partly)
    hold(_adds_up(answer), "The contributions do not add up to the score.")
    hold(bool(answer.reasons), "There are no reasons.")
    yield from answer.reasons
    if answer.would_narrow_most is not None:
        yield answer.would_narrow_most.message


def profile(stage: Stage) -> Iterator[str]:
    """Score one record by everything that a token allows."""
    (only,) = stage.client.profile(stage.features).attributes
    hold(only.attribute == "grit", "The profile holds what this token may not see.")
    yield "this client: grit, the only attribute that its token may see"
    with FlexClient.from_demo(stage.instance.folder / "var" / "demo-client.json") as client:
        record: dict[str, Any] = {}
        for summary in client.attributes():
            record |= client.attribute(summary.id).example["features"]
        answers = client.profile(record).attributes
    scored = [each for each in answers if isinstance(each, Prediction) and each.score is not None]
    hold(len(scored) == len(answers) > 1, "The demo client's profile has attributes without a score.")
    yield "the demo client: " + ", ".join(f"{each.attribute} {each.score:.0f}" for each in scored)


def refuse(stage: Stage) -> Iterator[str]:
    """Make calls that must be refused."""
    token = stage.account.credentials().access_token()
    narrow = stage.account.credentials("predict:grit").access_token()
    for refusal in refusals(token, narrow, stage.features):
        answer = stage.post(refusal.path, refusal.raw_token, refusal.body)
        hold(answer.status_code == refusal.status, f"{refusal.why}: got {answer.status_code}.")
        yield f"{refusal.status} {refusal.why}{told_in(answer)}"


def stop(stage: Stage) -> Iterator[str]:
    """Stop what still runs."""
    instance = stage.instance
    for part in ("model-2", "model"):
        code = instance.stop(part)
        hold(code == 0, f"The model server ended with exit code {code}.")
    instance.remove()
    hold(not instance.folder.exists(), "The folder is still there.")
    yield "exit code 0, folder removed"


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
