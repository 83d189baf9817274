"""What the run asks of the auth server: tokens that will be thrown away, and their end."""

import base64
from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec

from bench.instance import Credentials
from bench.soak.site import RESOURCE, Site
from bench.soak.wire import Answer, CallBroken, Pool
from bench.traffic import http_request, token_request

_FORM = "application/x-www-form-urlencoded"


class Refused(Exception):  # noqa: N818 - it says what happened
    """The auth server did not do what was asked; the text says what it answered, ``status`` is 0 for no answer."""

    def __init__(self, text: str, status: int = 0) -> None:
        self.status = status
        super().__init__(text)

    @property
    def passing(self) -> bool:
        """Whether the same may well be done a little later."""
        return self.status in {0, 429, 503}


class Issuer:
    """Asks over connections of its own; ``manager`` may revoke anything."""

    def __init__(self, site: Site, manager: Credentials) -> None:
        self._pool = Pool(site.auth_port)
        self._site = site
        self._manager = manager

    async def token(self, client: Credentials, scope: str, *, resource: str = RESOURCE) -> str:
        """Get a token. Raises Refused."""
        request = token_request(client.client_id, client.client_secret, scope, resource)
        answer = await self._ask(request, 200)
        return str(msgspec.json.decode(answer.body)["access_token"])

    async def revoke_token(self, client: Credentials, token: str) -> None:
        """End one token, as its own client (RFC 7009). Raises Refused."""
        pair = base64.b64encode(f"{client.client_id}:{client.client_secret}".encode()).decode()
        headers = {"authorization": f"Basic {pair}", "content-type": _FORM}
        await self._ask(http_request("POST", "/oauth2/revoke", headers, urlencode({"token": token}).encode()), 200)

    async def revoke(self, kind: str, value: str) -> None:
        """End everything of a client, subject or grant that was issued until now. Raises Refused."""
        token = await self.token(self._manager, "tokens:revoke", resource=self._site.issuer)
        await self._admin("POST", "/admin/v1/revocations", token, {"kind": kind, "value": value})

    async def _admin(self, method: str, path: str, token: str, document: Mapping[str, object]) -> Answer:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return await self._ask(http_request(method, path, headers, msgspec.json.encode(document)), 200, 201, 202, 204)

    async def _ask(self, request: bytes, *good: int) -> Answer:
        try:
            answer = await self._pool.ask(request)
        except CallBroken as problem:
            raise Refused(str(problem)) from None
        if answer.status not in good:
            raise Refused(f"status {answer.status}: {answer.body[:160].decode(errors='replace')}", answer.status)
        return answer

    def close(self) -> None:
        """End its connections."""
        self._pool.close()
