"""The client against the real servers and their real store."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.demo_instance import Instance
from flex_client import AsyncFlexClient, FlexClient, FlexError, Prediction, Record, RecordError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    """Auth server, model server and store on free ports."""
    with Instance(Path(__file__).parents[2] / "models") as instance:
        instance.start("auth")
        instance.start("model")
        yield instance


@pytest.fixture
def demo_file(instance) -> Path:
    """The client that the auth server made at its first start."""
    return instance.folder / "var" / "demo-client.json"


async def test_every_call_of_the_async_client_reads_what_the_server_answers(demo_file):
    """Every attribute: description, prediction, explanation; then the profile of all."""
    async with AsyncFlexClient.from_demo(demo_file) as client:
        listed = await client.attributes()
        assert len(listed) == 10
        everything = {}
        for summary in listed:
            assert set(summary.endpoints) == {"card", "predict", "batch", "explain"}
            attribute = await client.attribute(summary.id)
            features = attribute.example["features"]
            everything |= features
            prediction = await client.predict(summary.id, features, "p")
            explanation = await client.explain(summary.id, features)
            assert (prediction.id, prediction.attribute, prediction.raw) == ("p", summary.id, explanation.raw)
            assert explanation.reasons
        profile = await client.profile(everything)
        assert [each.attribute for each in profile.attributes] == [summary.id for summary in listed]


async def test_concurrent_calls_of_a_fresh_client_cause_one_token(demo_file):
    """30 tasks at once, with nothing warmed up."""
    async with AsyncFlexClient.from_demo(demo_file) as client:
        features = (await client.attribute("grit")).example["features"]
        answers = await asyncio.gather(*(client.predict("grit", features) for _ in range(30)))
    assert len(set(answers)) == 1


def test_stream_of_many_records_keeps_order_and_places_errors(demo_file):
    """20,000 records, every seventh bad: the answers are in their places."""
    with FlexClient.from_demo(demo_file) as client:
        good = dict(client.attribute("grit").example["features"])
        bad = {**good, next(iter(good)): "often"}
        records = (Record(bad if n % 7 == 0 else good, id=str(n)) for n in range(20_000))
        for n, result in enumerate(client.stream("grit", records)):
            if n % 7 == 0:
                assert isinstance(result, RecordError)
                assert result.status == 422
            else:
                assert isinstance(result, Prediction)
                assert result.id == str(n)
    assert n == 19_999


def test_batch_of_the_largest_size_is_taken_and_one_more_is_refused(demo_file):
    """1,000 records in one JSON request."""
    with FlexClient.from_demo(demo_file) as client:
        features = dict(client.attribute("trust").example["features"])
        assert len(client.predict_batch("trust", [features] * 1000)) == 1000
        with pytest.raises(FlexError) as caught:
            client.predict_batch("trust", [features] * 1001)
    assert caught.value.status in {413, 422}
    assert caught.value.request_id
