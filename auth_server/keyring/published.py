"""The published key set as it goes out: ready bytes, computed once a generation."""

import hashlib
from dataclasses import dataclass

import msgspec

from auth_server.keyring import material
from auth_server.keyring.ring import KeyRing
from shared import base64url


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """The JWKS (RFC 7517) as it goes out: body, strong ETag with its quotes, and the ring's generation."""

    body: bytes
    etag: str
    generation: int


class _JwkSet(msgspec.Struct, frozen=True):
    keys: list[material.PublicJwk]


def published_keys(ring: KeyRing) -> PublishedKeys:
    """Encode the JWKS of a ring, oldest key first: it does not show which key signs."""
    body = msgspec.json.encode(_JwkSet([material.public_jwk(key) for key in ring.published]))
    return PublishedKeys(body, f'"{base64url.encode(hashlib.sha256(body).digest()[:18]).decode()}"', ring.generation)
