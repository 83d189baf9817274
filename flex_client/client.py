"""The sync client."""

import ssl
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self, TypeVar

import httpx

from flex_client import calls
from flex_client.answers import (
    Attribute,
    AttributeSummary,
    Features,
    Prediction,
    Profile,
    Record,
    RecordError,
)
from flex_client.calls import Call
from flex_client.credentials import ClientCredentials
from flex_client.demo_file import DemoFile
from flex_client.explanations import Explanation
from flex_client.replies import no_answer
from flex_client.token_endpoint import tls_context, trusts_environ

T = TypeVar("T")


class FlexClient:
    """A model server's endpoints as calls, over one pool of reused connections. Threads may share it.

    ``auth`` is usually a ``ClientCredentials``. ``timeout`` in seconds bounds each phase of a call. Every call raises
    FlexError (TokenError if no token could be had); ValueError for a feature that is NaN or infinite.
    Close it after use, or use it in a ``with`` block.
    """

    def __init__(
        self,
        base_url: str,
        auth: httpx.Auth | None,
        *,
        timeout: float = 5.0,
        transport: httpx.BaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.base_url,
            auth=auth,
            timeout=timeout,
            transport=transport,
            verify=tls or tls_context(),
            trust_env=trusts_environ(self.base_url),
        )

    @classmethod
    def from_demo(cls, path: str | Path = "var/demo-client.json", base_url: str | None = None) -> Self:
        """Use the demo client that a development server made; ``base_url`` defaults to the resource it names.

        Raises OSError, or ValueError if the file is not such a one.
        """
        base_url = base_url or DemoFile.read(path).resource
        if base_url is None:
            raise ValueError(f"{path} names no resource; say where the model server is")
        return cls(base_url, ClientCredentials.from_file(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def attributes(self) -> list[AttributeSummary]:
        """List the attributes that the token may use."""
        return self._make(calls.attributes())

    def attribute(self, attribute_id: str) -> Attribute:
        """Describe one attribute: card, schema, example."""
        return self._make(calls.attribute(attribute_id))

    def predict(self, attribute_id: str, features: Features, record_id: str | None = None) -> Prediction:
        """Score one record."""
        return self._make(calls.predict(attribute_id, features, record_id))

    def predict_batch(self, attribute_id: str, records: Sequence[Features | Record]) -> list[Prediction | RecordError]:
        """Score 1 to 1,000 records in one request; a bad record gives a RecordError in its place."""
        return self._make(calls.predict_batch(attribute_id, records))

    def stream(self, attribute_id: str, records: Iterable[Features | Record]) -> Iterator[Prediction | RecordError]:
        """Score any number of records with bounded memory; results come in order while ``records`` is consumed."""
        for call in calls.stream(attribute_id, records):
            yield from self._make(call)

    def explain(self, attribute_id: str, features: Features, record_id: str | None = None) -> Explanation:
        """Explain one record's score."""
        return self._make(calls.explain(attribute_id, features, record_id))

    def profile(self, features: Features, record_id: str | None = None) -> Profile:
        """Score one record on every attribute that the token allows."""
        return self._make(calls.profile(features, record_id))

    def _make(self, call: Call[T]) -> T:
        try:
            response = self._http.request(call.method, call.path, content=call.body, headers=call.headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise no_answer(error, self.base_url) from error
        return call.read(response)
