"""What the steps of ``flex demo`` share: the instance, its client, connections, and watching a token being refused."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx

from cli.demo_callers import Account
from cli.demo_instance import Instance
from cli.demo_ports import DemoError
from flex_client import FlexClient
from flex_client.token_endpoint import tls_context

PATIENCE_S = 10.0
PROMISED_S = 1.0
_LOOK_EVERY_S = 0.002


def hold(fact: bool, otherwise: str) -> None:
    """Raise DemoError with a sentence unless something is so."""
    if not fact:
        raise DemoError(otherwise)


class Stage:
    """Where the story plays. ``account``: its first client; ``ended``: a token that was revoked, shown again later."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.ended = ""
        self._account: Account | None = None
        self._tls = tls_context()
        self._http = [self._connection(address) for address in instance.model_servers]
        self.issuer = self._connection(instance.issuer)

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

    @property
    def body(self) -> dict[str, Any]:
        """The same as a request."""
        return {"features": self.features}

    def register(self, name: str, scope: str) -> Account:
        """Create a client; the first is the story's own. Raises DemoError."""
        made = self.instance.flex("client", "create", "--name", name, "--scope", scope)
        account = Account(
            self.instance.token_endpoint, made["client_id"], made["client_secret"], self.instance.resource
        )
        self._account = self._account or account
        return account

    def post(self, path: str, raw_token: str | None, body: dict[str, Any], *, server: int = 0) -> httpx.Response:
        """Call one model server (0 or 1); ``path`` is below ``/v1/attributes``."""
        headers = {} if raw_token is None else {"Authorization": f"Bearer {raw_token}"}
        return self._http[server].post(f"/v1/attributes/{path}", json=body, headers=headers)

    def statuses(self, raw_token: str) -> set[int]:
        """Score with a token at both model servers and give what they answer: one number where they agree."""
        return {self.post("grit/predict", raw_token, self.body, server=server).status_code for server in (0, 1)}

    @contextmanager
    def watched(self, raw_token: str) -> Iterator["Watch"]:
        """Score with a token at both model servers again and again, to see when each refuses it."""
        hold(self.statuses(raw_token) == {200}, "The token is refused before it was revoked.")
        watch = Watch([self._asker(raw_token, server) for server in (0, 1)])
        try:
            yield watch
        finally:
            watch.close()

    def _asker(self, raw_token: str, server: int) -> Callable[[], int]:
        body = self.body
        return lambda: self.post("grit/predict", raw_token, body, server=server).status_code

    def close(self) -> None:
        """Close all connections."""
        for http in (*self._http, self.issuer):
            http.close()
        if "client" in self.__dict__:
            self.client.close()

    def _connection(self, address: str) -> httpx.Client:
        return httpx.Client(base_url=address, verify=self._tls, trust_env=False)


class Watch:
    """One thread for each asker asks until the answer is 401; anything else than 200 before that is a failure."""

    def __init__(self, askers: Sequence[Callable[[], int]]) -> None:
        self._refused_at: list[float] = []
        self._wrong: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(asker,), daemon=True) for asker in askers]
        for thread in self._threads:
            thread.start()

    def after(self, started: float) -> float:
        """Wait until all have refused and give how many ms after ``started`` (UTC seconds) the last did.

        Raises DemoError if that is more than a second, which is what is promised.
        """
        for thread in self._threads:
            thread.join(PATIENCE_S)
        hold(not self._wrong, f"A model server answered: {', '.join(self._wrong)}.")
        hold(len(self._refused_at) == len(self._threads), "A model server still takes the token.")
        seconds = max(self._refused_at) - started
        hold(seconds < PROMISED_S, f"A model server took the token for {seconds:.1f} s.")
        return 1000 * seconds

    def close(self) -> None:
        """End the threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, asker: Callable[[], int]) -> None:
        while not self._stop.is_set():
            try:
                status = asker()
            except httpx.HTTPError as error:
                self._wrong.append(type(error).__name__)
                return
            if status == 401:
                self._refused_at.append(time.time())
                return
            if status != 200:
                self._wrong.append(str(status))
                return
            self._stop.wait(_LOOK_EVERY_S)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its title, and what does it. ``run`` yields lines to show; DemoError or FlexError if it fails."""

    title: str
    run: Callable[[Stage], Iterator[str]]
