"""What the signer signs besides tokens: verifiable with the published keys, and never taken for a token."""

import jwt
import pytest

from auth_server.keyring.changes import RingChanges
from auth_server.keyring.signer import Signer, Statement
from shared.access_token import TokenRefused, verify_access_token

ISSUER = "http://issuer.test"


@pytest.fixture
def signer(folder, policy, clock) -> Signer:
    return Signer.open(folder, policy, issuer=ISSUER, clock=clock)


def token_like(now: float) -> dict[str, object]:
    """Claims that would make a perfect access token."""
    return {
        "iss": ISSUER,
        "sub": "svc",
        "aud": "http://models.test",
        "client_id": "svc",
        "iat": int(now),
        "exp": int(now) + 300,
        "jti": "abc",
        "scope": "admin",
    }


@pytest.mark.parametrize("kind", list(Statement))
def test_a_statement_is_signed_with_the_active_key(signer, clock, kind):
    """RS256, its own ``typ``, the claims as given."""
    statement = signer.sign_statement(kind, token_like(clock()))
    kid = signer.ring.active.kid
    assert jwt.get_unverified_header(statement) == {"alg": "RS256", "typ": kind.value, "kid": kid}
    public = signer.get(kid).public_key
    options = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    assert jwt.decode(statement, public, algorithms=["RS256"], options=options) == token_like(clock())


@pytest.mark.parametrize("kind", list(Statement))
def test_a_statement_is_never_an_access_token(signer, clock, kind):
    """Even with all the claims of one; the same claims signed as a token are one."""
    claims = token_like(clock())
    checks = {"issuer": ISSUER, "audience": "http://models.test", "now": clock()}
    assert verify_access_token(signer.sign(claims), signer, **checks).client_id == "svc"
    with pytest.raises(TokenRefused) as refused:
        verify_access_token(signer.sign_statement(kind, claims), signer, **checks)
    assert refused.value.reason == "wrong_typ"


def test_a_statement_follows_a_rotation(signer, folder, policy, clock):
    """At its next signature, as tokens do."""
    before = signer.ring.active.kid
    clock.advance(policy.max_age_s + policy.stale_s + policy.takeover_s + 1)
    RingChanges(folder, policy, clock).rotate(seen_active=before, reports=())
    statement = signer.sign_statement(Statement.STATUS_LIST, token_like(clock()))
    assert jwt.get_unverified_header(statement)["kid"] == signer.ring.active.kid != before


def test_a_statement_lives_no_longer_than_a_token_may(signer, policy, clock):
    """Else its key could be removed before it ends."""
    claims = token_like(clock()) | {"exp": int(clock() + policy.ttl_s + 61)}
    with pytest.raises(ValueError, match="longest life"):
        signer.sign_statement(Statement.REVOCATIONS, claims)
