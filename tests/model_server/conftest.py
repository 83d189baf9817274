"""Fixtures for tests of the whole model server: shipped models, a static key set, a real application or socket."""

from pathlib import Path

import httpx
import pytest

from model_server.app import build_app
from model_server.attribute import open_all
from model_server.settings import ModelSettings
from shared.access_token import StaticKeySet
from shared.embedded_store import EmbeddedStore
from tests.model_server.feed_site import FeedSite
from tests.model_server.serving import Api, lifespan, serving
from tests.tokens import AUDIENCE, Issuer

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="session")
def attributes():
    """The shipped models, opened once."""
    return open_all(MODELS).opened


@pytest.fixture(scope="session")
def issuer(rsa_key):
    return Issuer(rsa_key)


@pytest.fixture
def settings(tmp_path):
    return ModelSettings(var_dir=tmp_path, resource=AUDIENCE)


@pytest.fixture(scope="session")
def feed_store(tmp_path_factory):
    """One store server for all tests that do not kill it."""
    with EmbeddedStore(tmp_path_factory.mktemp("feed")) as store:
        yield store


@pytest.fixture
async def feed_site(feed_store, settings, clock):
    """An installation with an empty store and a new feed key."""
    site = FeedSite(settings, feed_store.socket_path, clock)
    await site.client.flushall()
    yield site
    await site.client.aclose()


@pytest.fixture
def app(settings, attributes, issuer, clock):
    return build_app(settings, attributes, StaticKeySet({issuer.kid: issuer.key}), clock=clock)


@pytest.fixture
async def api(app, issuer, attributes):
    """The application without a network between."""
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 5))
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url=AUDIENCE) as http:
        yield Api(http, issuer, attributes)


@pytest.fixture
async def served(app, issuer, attributes):
    """The application behind uvicorn and our protocol on a free port."""
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=20) as http:
        yield Api(http, issuer, attributes)
