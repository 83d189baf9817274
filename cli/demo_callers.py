"""Callers that go on calling while the demo changes the keys under them."""

import threading
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from msgspec.json import decode

from flex_client import ClientCredentials, FlexClient, FlexError

CALLS_PER_TOKEN = 20
PAUSE_S = 0.002


@dataclass(frozen=True, slots=True)
class Account:
    """With which client to call where."""

    token_endpoint: str
    client_id: str
    client_secret: str = field(repr=False)
    resource: str

    def credentials(self, scope: str | None = None) -> ClientCredentials:
        """Fresh credentials, which hold no token yet."""
        return ClientCredentials(
            self.token_endpoint, self.client_id, self.client_secret, scope=scope, resource=self.resource
        )

    def client(self, scope: str | None = None) -> FlexClient:
        """A client with fresh credentials."""
        return FlexClient(self.resource, self.credentials(scope))


def part_of(token: str, index: int) -> dict[str, Any]:
    """Decode a part of a JWT, to be shown; nothing is verified here."""
    text = token.split(".")[index]
    part: dict[str, Any] = decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return part


class Callers:
    """``n`` threads that score one record again and again, while the ``with`` block lasts.

    With ``fresh_tokens`` each takes new credentials every 20 calls; without, each keeps its own and lives by the
    client's refresh and retry. ``kids`` counts tokens by signing key.
    """

    def __init__(self, account: Account, features: Mapping[str, Any], *, n: int, fresh_tokens: bool) -> None:
        self.n_calls = 0
        self.failures: list[str] = []
        self.kids: dict[str, int] = {}
        self._account = account
        self._features = features
        self._fresh = fresh_tokens
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(n)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            credentials = self._account.credentials()
            with FlexClient(self._account.resource, credentials) as client:
                n_calls = 0
                while not self._stop.is_set() and not (self._fresh and n_calls == CALLS_PER_TOKEN):
                    self._call(client)
                    self._note_token(credentials, first=n_calls == 0)
                    n_calls += 1
                    self._stop.wait(PAUSE_S)

    def _call(self, client: FlexClient) -> None:
        try:
            client.predict("grit", self._features)
        except FlexError as error:
            with self._lock:
                self.failures.append(str(error))
        with self._lock:
            self.n_calls += 1

    def _note_token(self, credentials: ClientCredentials, *, first: bool) -> None:
        """Count the key of each token once."""
        try:
            kid = part_of(credentials.access_token(), 0)["kid"]
        except FlexError:
            return
        with self._lock:
            if first or kid not in self.kids:
                self.kids[kid] = self.kids.get(kid, 0) + 1
