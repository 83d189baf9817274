"""The Python client: tokens that take care of themselves, and the model server's endpoints as typed calls.

Stands alone: it needs httpx and the standard library, and imports neither server. ``ClientCredentials`` is an
``httpx.Auth`` and works with any httpx client; ``FlexClient`` and ``AsyncFlexClient`` are thin layers over one.
"""

from flex_client.answers import (
    Attribute,
    AttributeSummary,
    Model,
    Prediction,
    Profile,
    Record,
    RecordError,
)
from flex_client.async_client import AsyncFlexClient
from flex_client.client import FlexClient
from flex_client.credentials import ClientCredentials
from flex_client.errors import FieldProblem, FlexError, TokenError
from flex_client.explanations import Contribution, Explanation, Narrowing

__all__ = [
    "AsyncFlexClient",
    "Attribute",
    "AttributeSummary",
    "ClientCredentials",
    "Contribution",
    "Explanation",
    "FieldProblem",
    "FlexClient",
    "FlexError",
    "Model",
    "Narrowing",
    "Prediction",
    "Profile",
    "Record",
    "RecordError",
    "TokenError",
]
