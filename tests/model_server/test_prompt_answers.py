"""A prediction that is answered at once says what the ordinary way says, for good requests and for bad ones."""

import json

import pytest

from tests.model_server.serving import PREDICT


def bodies(api):
    """Requests of every kind of outcome: (body, scope, headers)."""
    good = api.example()
    missing = {"features": {**good["features"], "ipip_mood_swings": None}}
    return [
        (good, "predict:grit", {}),
        (missing, "predict:grit", {}),
        ({"features": {}}, "predict:grit", {}),
        ({"features": {"ipip_mood_swings": "often"}}, "predict:grit", {}),
        (b"{", "predict:grit", {}),
        (b" " * 70_000, "predict:grit", {}),
        (good, None, {}),
        (good, "explain:grit", {}),
        (good, "predict:calm", {}),
        (good, "predict:grit", {"content_type": "text/plain"}),
        (good, "predict:grit", {"content_encoding": "gzip"}),
        (good, None, {"authorization": "Bearer nonsense"}),
    ]


def comparable(answer):
    """Everything of an answer but its id, its time and what the transport adds."""
    body = json.loads(answer.content)
    body.pop("instance", None)
    left_out = {"x-request-id", "date", "connection", "content-length", "server"}
    return (
        answer.status_code,
        body,
        {k: v for k, v in answer.headers.items() if k not in left_out},
    )


@pytest.mark.parametrize("number", range(12))
async def test_both_ways_give_the_same_answer(api, served, number):
    """Over a socket in one piece (at once) and through ASGI messages (the ordinary way)."""
    body, scope, headers = bodies(api)[number]
    ordinary = await api.post(PREDICT, body, scope, **headers)
    at_once = await served.post(PREDICT, body, scope, **headers)
    assert comparable(at_once) == comparable(ordinary)
    assert at_once.headers["x-request-id"] != ordinary.headers["x-request-id"]


async def test_a_body_in_pieces_takes_the_ordinary_way(served):
    """What has not come whole can't be answered at once, and is answered all the same."""
    body = json.dumps(served.example()).encode()

    async def pieces():
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    headers = {"content-type": "application/json", **served.authorization("predict:grit")}
    answer = await served.http.post(PREDICT, content=pieces(), headers=headers)
    assert answer.status_code == 200
    assert answer.json()["attribute"] == "grit"
