"""A token request as it arrives, read strictly: RFC 6749 sections 2.3.1, 3.2 and appendix B.

Nothing here is verified yet; everything is bounded and well-formed. The secret exists only inside :class:`Secret`.
"""

import base64
import binascii
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from authlib.oauth2.rfc6749 import OAuth2Request
from authlib.oauth2.rfc6749.requests import OAuth2Payload

from auth_server.records import SECRET_BASIC, SECRET_POST, Client
from shared.errors import AppError
from shared.secret import Secret

MAX_BODY_BYTES = 16 * 1024
MAX_PARAMETERS = 32
MAX_CREDENTIAL_LENGTH = 512
FORM = b"application/x-www-form-urlencoded"
_REPEATABLE = "resource"  # RFC 8707 section 2
_OURS = frozenset(
    {
        "grant_type",
        "client_id",
        "client_secret",
        "client_assertion",
        "scope",
        "resource",
        "authorization_details",
        "token",
        "token_type_hint",
    }
)
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CLIENT_ID = re.compile(r"[a-z0-9][a-z0-9-]{7,63}\Z")
# Authlib's constructor, run once for all requests: it judges the transport each time (4 µs), which here the settings
# have done at start, whatever proxy is in front.
_BLANK = vars(OAuth2Request("POST", "https://token-endpoint.invalid/"))


class Credentials(msgspec.Struct, frozen=True):
    """What a client presents about itself. ``method``: an RFC 7591 authentication method, or empty if there is none."""

    method: str
    client_id: str
    secret: Secret


NO_CREDENTIALS = Credentials("", "", Secret(""))


class TokenForm(msgspec.Struct, frozen=True):
    """The parameters of the body: each at most once, none empty, but ``resources`` any number."""

    parameters: Mapping[str, str]
    resources: tuple[str, ...]


# Holds up to 256 bodies of up to 512 bytes, as read, that carry no secret: a service sends the same one each time, and
# reading it costs 9 µs of 75. Emptied when full.
_forms: dict[bytes, TokenForm] = {}
_MAX_FORMS, _LONGEST_KEPT = 256, 512
_NOT_SECRET = frozenset({"grant_type", "client_id", "scope"})


class FormPayload(OAuth2Payload):
    """The parameters as Authlib reads them."""

    def __init__(self, form: TokenForm) -> None:
        self._form = form

    @property
    def data(self) -> Mapping[str, str]:
        """The parameters, each once."""
        return self._form.parameters

    @property
    def datalist(self) -> defaultdict[str, list[str]]:
        """The parameters as lists."""
        lists = {name: [value] for name, value in self._form.parameters.items()}
        return defaultdict(list, lists | {_REPEATABLE: list(self._form.resources)})


class Presented(msgspec.Struct, frozen=True):
    """A request as it was read, its secret already replaced by the keyed hash (32 zero bytes: none came)."""

    form: TokenForm
    method: str
    client_id: str
    secret_hash: bytes


class TokenRequest(OAuth2Request):
    """What Authlib's synchronous code decides on: the form, and a snapshot of what the store knew.

    ``snapshot`` is the client that the request names (None: there is none), ``now`` the UTC second of the decision.
    The Authorization header never comes near Authlib.
    """

    payload: Any
    client: Any

    def __init__(self, presented: Presented, snapshot: Client | None, now: float) -> None:
        self.__dict__.update(_BLANK)
        self.payload = FormPayload(presented.form)
        self.resources = presented.form.resources
        self.method_presented = presented.method
        self.secret_hash = presented.secret_hash
        self.snapshot = snapshot
        self.now = now
        self.scopes: tuple[str, ...] = ()


def could_be_client_id(text: str) -> bool:
    """Whether text has the form of our client ids; anything else is not looked up and not logged."""
    return _CLIENT_ID.match(text) is not None


def read_form(content_type: bytes | None, query: bytes, body: bytes) -> TokenForm:
    """Read the parameters of a token request. Raises AppError invalid_request."""
    _check_content_type(content_type)
    if query:
        _check_query(query)
    form = _forms.get(body)
    if form is None:
        form = _parse(body)
        if len(body) <= _LONGEST_KEPT and _NOT_SECRET.issuperset(form.parameters):
            if len(_forms) >= _MAX_FORMS:
                _forms.clear()
            _forms[body] = form
    return form


def _parse(body: bytes) -> TokenForm:
    parameters: dict[str, str] = {}
    resources: list[str] = []
    for name, value in _pairs(body):
        if not value:  # RFC 6749 section 3.2: a parameter without a value is treated as omitted
            continue
        if name == _REPEATABLE:
            resources.append(value)
        elif name in parameters:
            raise AppError("invalid_request", "A parameter is sent more than once.", reason="repeated_parameter")
        else:
            parameters[name] = value
    return TokenForm(parameters, tuple(dict.fromkeys(resources)))


def read_credentials(authorizations: list[bytes], form: TokenForm) -> Credentials:
    """Find the one way in which a request authenticates its client.

    Raises AppError invalid_request for more than one (RFC 6749 section 2.3), invalid_client for one that can't be
    read or is not known here.
    """
    client_id = form.parameters.get("client_id", "")
    secret = form.parameters.get("client_secret", "")
    if len(authorizations) > 1 or (authorizations and (secret or "client_assertion" in form.parameters)):
        raise AppError("invalid_request", "Use one client authentication method.", reason="two_methods")
    if authorizations:
        credentials = _read_basic(authorizations[0])
        if client_id and client_id != credentials.client_id:
            raise AppError("invalid_request", "client_id differs from the Authorization header.", reason="two_ids")
        return credentials
    if "client_assertion" in form.parameters:
        raise AppError("invalid_client", reason="unknown_method")
    if not client_id or not secret:
        return NO_CREDENTIALS
    return _bounded(SECRET_POST, client_id, secret)


def _check_content_type(content_type: bytes | None) -> None:
    if content_type == FORM:
        return
    kind, _, parameter = (content_type or b"").lower().partition(b";")
    if kind.strip() != FORM or parameter.strip() not in {b"", b"charset=utf-8", b'charset="utf-8"'}:
        raise AppError(
            "invalid_request", "Send application/x-www-form-urlencoded in UTF-8.", reason="unsupported_media_type"
        )


def _check_query(query: bytes) -> None:
    # RFC 6749 section 2.3.1: credentials must not be in the URI, where logs and histories keep them.
    names = {pair.partition("=")[0] for pair in query.decode("latin-1").split("&")}
    if any(unquote_plus(name) in _OURS for name in names):
        raise AppError("invalid_request", "Send parameters in the body, never in the URI.", reason="query_parameters")


def _pairs(body: bytes) -> Iterable[tuple[str, str]]:
    if not body:
        return []
    try:
        pairs = body.decode().split("&")
        if len(pairs) > MAX_PARAMETERS:
            raise AppError("invalid_request", f"At most {MAX_PARAMETERS} parameters.", reason="too_many_parameters")
        return [_pair(pair) for pair in pairs]
    except ValueError:
        raise AppError("invalid_request", "The body is not a UTF-8 form.", reason="malformed_form") from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError("a pair without a name or an equals sign")
    return _unescape(name), _unescape(value)


def _unescape(text: str) -> str:
    """Undo appendix B's encoding. Raises ValueError for a broken escape or bytes that are not UTF-8."""
    if "%" not in text and "+" not in text:
        return text
    if _BROKEN_ESCAPE.search(text):
        raise ValueError("a broken escape")
    return unquote_plus(text, errors="strict")


def _read_basic(authorization: bytes) -> Credentials:
    """Read HTTP Basic with the encoding inside that RFC 6749 section 2.3.1 asks for."""
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        raise AppError("invalid_client", reason="unknown_method")
    try:
        client_id, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        client_id, secret = _unescape(client_id), _unescape(secret)
    except (binascii.Error, ValueError):
        raise AppError("invalid_client", reason="malformed_basic") from None
    if not colon or not client_id or not secret:
        raise AppError("invalid_client", reason="malformed_basic")
    return _bounded(SECRET_BASIC, client_id, secret)


def _bounded(method: str, client_id: str, secret: str) -> Credentials:
    if len(client_id) > MAX_CREDENTIAL_LENGTH or len(secret) > MAX_CREDENTIAL_LENGTH:
        raise AppError("invalid_client", reason="oversized_credentials")
    return Credentials(method, client_id, Secret(secret))
