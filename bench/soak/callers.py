"""Good callers: a fixed rate of calls to every host, whatever happens, with tokens that are renewed as clients do.

Open loop: a call is due when it is due, so an answer that is late also delays no other call, and its whole wait counts.
"""

import asyncio
import itertools
from collections.abc import Sequence

import httpx

from bench.soak.site import RESOURCE, Site
from bench.soak.timeline import Timeline
from bench.soak.wire import CallBroken, Pool
from bench.traffic import Row, json_request, record
from flex_client import ClientCredentials, TokenError

ATTRIBUTE = "grit"
PATH = f"/v1/attributes/{ATTRIBUTE}/predict"
SCOPE = f"predict:{ATTRIBUTE}"
CONNECTIONS = 16
_MAX_LATE_S = 60.0


class GoodCallers:
    """Calls with the tokens of some clients in turn; every answer must be 200."""

    def __init__(
        self, site: Site, timeline: Timeline, clients: Sequence[ClientCredentials], rows: Sequence[Row], rate: float
    ) -> None:
        self._timeline = timeline
        self._rate = rate
        self._pools = {host: Pool(port) for host, port in site.model_ports.items()}
        self._clients = itertools.cycle(clients)
        self._records = itertools.cycle([record(number, row) for number, row in enumerate(rows)])
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Call until told to stop, and until the last call is answered."""
        await asyncio.gather(*(pool.fill(CONNECTIONS) for pool in self._pools.values()))
        try:
            await asyncio.gather(*(self._call_host(host, stop) for host in self._pools))
            if self._calls:
                await asyncio.wait(self._calls, timeout=_MAX_LATE_S)
        finally:
            for pool in self._pools.values():
                pool.close()

    async def _call_host(self, host: str, stop: asyncio.Event) -> None:
        began = self._timeline.now()
        for number in itertools.count():
            due = began + number / self._rate
            await asyncio.sleep(max(0.0, due - self._timeline.now()))
            if stop.is_set():
                return
            call = asyncio.create_task(self._call(host, due))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _call(self, host: str, due: float) -> None:
        client = next(self._clients)
        try:
            token = await client.access_token_async()
            status = await self._ask(host, token)
            retried = status == 401 and self._timeline.retry_expected(self._timeline.now())
            if retried:
                status = await self._ask(host, await token_after_401(client, token))
        except (TokenError, CallBroken) as problem:
            self._timeline.failed(host, f"{type(problem).__name__}: {problem}"[:200])
            return
        if status == 200:
            self._timeline.good(host, due, retried=retried)
        else:
            self._timeline.failed(host, f"status {status}{' after a retry' if retried else ''}")

    async def _ask(self, host: str, token: str) -> int:
        answer = await self._pools[host].ask(json_request(PATH, token, next(self._records)))
        return answer.status


async def token_after_401(client: ClientCredentials, refused: str) -> str:
    """The token with which the client would try a second time. Raises TokenError if it would not."""
    request = httpx.Request("POST", f"{RESOURCE}{PATH}", content=b"{}")
    flow = client.async_auth_flow(request)
    try:
        sent = await anext(flow)
        if sent.headers["authorization"] == f"Bearer {refused}":
            sent = await flow.asend(httpx.Response(401, request=request))
        return str(sent.headers["authorization"].removeprefix("Bearer "))
    except StopAsyncIteration:
        raise TokenError("unreachable", "there is no newer token to be had") from None
    finally:
        await flow.aclose()
