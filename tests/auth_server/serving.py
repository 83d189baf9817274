"""A whole auth server in process, and ways to call it. Used by tests only."""

import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from auth_server.app import running
from auth_server.oauth.registration import ClientRequest, Registration, register
from auth_server.settings import AuthSettings
from auth_server.stores.client_secrets import load_pepper
from auth_server.stores.clients import Clients
from shared.secret import Secret
from shared.store import connect

TOKEN = "/oauth2/token"
FORM = {"content-type": "application/x-www-form-urlencoded"}


def basic(client_id, secret):
    """An Authorization header."""
    text = secret.reveal() if isinstance(secret, Secret) else secret
    return "Basic " + base64.b64encode(f"{client_id}:{text}".encode()).decode()


@dataclass
class Server:
    """A running server and a way to call it."""

    http: httpx.AsyncClient
    settings: AuthSettings
    clients: Clients

    async def register(self, scope="predict:grit explain:grit", **options) -> Registration:
        """Register a client as the command line does."""
        pepper = load_pepper(self.settings.keys_dir)
        made = register(ClientRequest(name="test", scope=scope, **options), pepper, 1_800_000_000.0)
        await self.clients.create(made.client)
        return made

    async def token(self, made: Registration, **form) -> httpx.Response:
        """Ask for a token with HTTP Basic."""
        headers = {"authorization": basic(made.client.client_id, made.secret)}
        return await self.http.post(TOKEN, data={"grant_type": "client_credentials", **form}, headers=headers)

    async def admin(self, scope, method, path, **request) -> httpx.Response:
        """Call the admin API with a token of a new client that has the scope."""
        made = await self.register(scope)
        token = (await self.token(made)).json()["access_token"]
        return await self.http.request(method, path, headers={"authorization": f"Bearer {token}"}, **request)


@contextlib.asynccontextmanager
async def serving(settings, clock, *, monotonic=time.monotonic, **transport) -> AsyncIterator[Server]:
    """Run a server for the body of an ``async with``."""
    async with running(settings, clock=clock, monotonic=monotonic) as app:
        store = connect(settings)
        wire = httpx.ASGITransport(app, raise_app_exceptions=False, **transport)
        async with httpx.AsyncClient(transport=wire, base_url="http://auth") as http:
            yield Server(http, settings, Clients(store))
        await store.aclose()


def demo(settings) -> dict[str, str]:
    """The demo client as a newcomer reads it."""
    return json.loads(settings.demo_file.read_text())
