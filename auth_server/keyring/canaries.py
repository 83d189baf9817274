"""What a canary says: a token by which a verifier proves that it holds a key, and with which nothing can be opened."""

import os

from shared.verifiers import CANARY_AUDIENCE

CANARY_LIFE_S = 900
_NAME = "canary"


def canary_claims(issuer: str, now: int) -> dict[str, object]:
    """The claims of one canary (RFC 9068 section 2.2); its audience is no resource. ``now`` in UTC seconds."""
    return {
        "iss": issuer,
        "sub": _NAME,
        "aud": CANARY_AUDIENCE,
        "client_id": _NAME,
        "iat": now,
        "exp": now + CANARY_LIFE_S,
        "jti": os.urandom(16).hex(),
        "scope": _NAME,
    }
