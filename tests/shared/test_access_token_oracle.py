"""PyJWT as the oracle: what we accept it accepts with the same claims, and what it refuses we refuse."""

import json

import jwt
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared.access_token import StaticKeySet, TokenRefused, verify_access_token
from tests.tokens import AUDIENCE, ISSUER, NOW, Issuer

REQUIRED = ["iss", "sub", "aud", "client_id", "exp", "iat", "jti"]


@pytest.fixture(scope="session")
def issuer(rsa_key):
    return Issuer(rsa_key)


def ours(issuer, token):
    """Our verdict: the verified token, or None."""
    try:
        accepted = verify_access_token(
            token, StaticKeySet({issuer.kid: issuer.key}), issuer=ISSUER, audience=AUDIENCE, now=NOW
        )
    except TokenRefused:
        return None
    return accepted


def theirs(issuer, token, now):
    """PyJWT's verdict on the same token at the same moment."""
    try:
        options = {"require": REQUIRED, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        claims = jwt.decode(
            token,
            issuer.private_key.public_key(),
            algorithms=["RS256"],
            issuer=ISSUER,
            audience=AUDIENCE,
            options=options,
        )
    except jwt.PyJWTError:
        return None
    leeway = 30
    in_time = claims["exp"] + leeway > now and claims["iat"] - leeway <= now
    return claims if in_time else None


def test_a_token_of_pyjwt_is_accepted(issuer):
    """Another maker's well-formed RFC 9068 token is good here."""
    headers = {"typ": "at+jwt", "kid": issuer.kid}
    token = jwt.encode(issuer.claims(), issuer.private_key, algorithm="RS256", headers=headers)
    assert ours(issuer, token) is not None


CHANGES = st.dictionaries(
    st.sampled_from(["iss", "aud", "exp", "iat", "nbf", "sub", "client_id", "jti", "scope"]),
    st.one_of(
        st.none(),
        st.integers(NOW - 2_000, NOW + 2_000),
        st.sampled_from([ISSUER, AUDIENCE, "", "other", [AUDIENCE], ["other"], [AUDIENCE, "other"], True, {}]),
    ),
    max_size=3,
)


@given(changes=CHANGES)
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_pyjwt_refuses_is_refused(issuer, changes):
    """We may be stricter than the library, never laxer."""
    claims = {name: value for name, value in (issuer.claims() | changes).items() if value is not None}
    headers = {"typ": "at+jwt", "kid": issuer.kid}
    token = jwt.api_jws.encode(json.dumps(claims).encode(), issuer.private_key, algorithm="RS256", headers=headers)
    if ours(issuer, token) is not None:
        assert theirs(issuer, token, NOW) is not None


@given(position=st.integers(0, 800), replacement=st.sampled_from("AaZz09-_=.+/ \n"))
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_character_is_never_accepted(issuer, position, replacement):
    """One character anywhere: both refuse, or the token is the same."""
    token = jwt.encode(
        issuer.claims(), issuer.private_key, algorithm="RS256", headers={"typ": "at+jwt", "kid": issuer.kid}
    )
    position %= len(token)
    changed = token[:position] + replacement + token[position + 1 :]
    assert changed == token or ours(issuer, changed) is None
