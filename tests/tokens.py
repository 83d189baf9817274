"""Make access tokens and key sets as an issuer would, and as an attacker would. Used by tests only."""

import json
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from shared import base64url
from shared.key_sets import VerificationKey, verification_key

ISSUER = "http://127.0.0.1:9000"
AUDIENCE = "http://127.0.0.1:8000"
NOW = 1_800_000_000
"""The moment at which the shared settable clock starts."""


def compact(value: object) -> bytes:
    """JSON as an issuer writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Issuer:
    """A private key with its kid; signs whatever it is told to."""

    private_key: RSAPrivateKey
    kid: str = "kid-1"
    issuer: str = ISSUER

    @property
    def key(self) -> VerificationKey:
        return verification_key(self.private_key.public_key(), kid=self.kid, issuer=self.issuer)

    @property
    def jwk(self) -> dict[str, Any]:
        numbers = self.private_key.public_key().public_numbers()
        return {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.kid,
            "n": base64url.encode(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")).decode(),
            "e": base64url.encode(numbers.e.to_bytes(3, "big")).decode(),
        }

    def header(self, **changes: Any) -> dict[str, Any]:
        return without_none({"alg": "RS256", "typ": "at+jwt", "kid": self.kid} | changes)

    def claims(self, **changes: Any) -> dict[str, Any]:
        usual = {
            "iss": self.issuer,
            "sub": "client-1",
            "aud": AUDIENCE,
            "client_id": "client-1",
            "exp": NOW + 900,
            "iat": NOW,
            "jti": "AAECAwQFBgcICQoLDA0ODw",
            "scope": "predict:grit explain:grit",
        }
        return without_none(usual | changes)

    def sign(self, header: bytes, payload: bytes) -> bytes:
        signing_input = base64url.encode(header) + b"." + base64url.encode(payload)
        signature = self.private_key.sign(signing_input, PKCS1v15(), SHA256())
        return signing_input + b"." + base64url.encode(signature)

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> bytes:
        """A good token, with members and claims changed, added, or (None) left out."""
        return self.sign(compact(self.header(**(header or {}))), compact(self.claims(**claims)))

    def authorization(self, **claims: Any) -> dict[str, str]:
        return {"authorization": "Bearer " + self.token(**claims).decode()}


def without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
