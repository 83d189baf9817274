"""The floor does what it claims, so that comparing with it is fair."""

import json
import struct
import time
from pathlib import Path

import httpx
import pytest

from bench import traffic
from bench.floor import FloorPlan, make_app

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def attribute() -> traffic.Attribute:
    """First shipped model."""
    return traffic.attributes(MODELS)[0]


def client(attribute: traffic.Attribute, tokens: dict[str, float]) -> httpx.AsyncClient:
    """HTTP client of a floor that knows ``tokens``."""
    names = [column.name for column in attribute.columns]
    app = make_app(FloorPlan(attribute.id, str(attribute.folder / "model.txt"), names, tokens))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://floor")


async def test_floor_scores_golden_rows_bit_equal(attribute):
    """It runs the same engine, not a stub."""
    async with client(attribute, {"good": time.time() + 60}) as http:
        for line in (attribute.folder / "golden.jsonl").read_text().splitlines()[:5]:
            row = json.loads(line)
            features = {name: value for name, value in row["features"].items() if value is not None}
            answer = await http.post("/", json={"features": features}, headers={"authorization": "Bearer good"})
            assert struct.pack("d", answer.json()["raw"]) == struct.pack("d", row["raw"])


@pytest.mark.parametrize("token", ["unknown", "old", ""])
async def test_floor_refuses_unknown_and_expired_tokens(attribute, token):
    """The memo checks expiry on every hit."""
    async with client(attribute, {"good": time.time() + 60, "old": time.time() - 1}) as http:
        answer = await http.post("/", json={"features": {}}, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401
