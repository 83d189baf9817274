"""The floods' tokens are refused for the very reason that each flood is about."""

import pytest

from bench.floods.bad_tokens import KINDS
from shared.access_token import MAX_TOKEN_BYTES, StaticKeySet, TokenRefused, verify_access_token
from tests.tokens import AUDIENCE, ISSUER, NOW


@pytest.mark.parametrize(
    ("kind", "reason"), [("unknown kids", "unknown_kid"), ("bad signatures", "bad_signature"), ("too long", "too_long")]
)
def test_each_kind_is_refused_for_its_reason(issuer, kind, reason):
    """And the token that it was made from is good."""
    good = issuer.token().decode()
    keys = StaticKeySet({issuer.kid: issuer.key})
    verify_access_token(good, keys, issuer=ISSUER, audience=AUDIENCE, now=NOW)
    with pytest.raises(TokenRefused) as refused:
        verify_access_token(KINDS[kind](good), keys, issuer=ISSUER, audience=AUDIENCE, now=NOW)
    assert refused.value.reason == reason


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_are_the_same(issuer, kind):
    """A memo of refused tokens would not help."""
    good = issuer.token().decode()
    assert len({KINDS[kind](good) for _ in range(50)}) == 50


def test_only_the_long_ones_are_long(issuer):
    """The others go all the way through the pre-parser."""
    good = issuer.token().decode()
    lengths = {kind: len(make(good)) for kind, make in KINDS.items()}
    assert [kind for kind, length in lengths.items() if length > MAX_TOKEN_BYTES] == ["too long"]
