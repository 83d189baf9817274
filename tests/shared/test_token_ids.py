"""Token ids: RFC 9562's form, the millisecond comes back, and nothing else is taken for one."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.token_ids import RANDOM_BYTES, issued_ms, token_id

MS = st.integers(0, 2**48 - 1)
CHANCE = st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES)


@given(MS, CHANCE)
def test_an_id_is_a_uuid_of_version_7_that_says_its_millisecond(ms, random):
    """As the standard library reads it."""
    made = uuid.UUID(token_id(ms, random))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == ms
    assert issued_ms(token_id(ms, random)) == ms


@given(MS, CHANCE, st.integers(0, 79))
def test_74_random_bits_are_kept(ms, random, bit):
    """Each but six of the 80 changes the id."""
    other = (int.from_bytes(random, "big") ^ 1 << bit).to_bytes(RANDOM_BYTES, "big")
    assert (token_id(ms, random) != token_id(ms, other)) == (bit < 62 or 64 <= bit < 76)


def test_the_example_of_the_rfc():
    """RFC 9562 appendix A.6: 2022-02-22 19:22:22 UTC."""
    assert issued_ms("017f22e279b07cc398c4dc0c0c07398f") == 1_645_557_742_000


@pytest.mark.parametrize(
    "jti",
    [
        "",
        "0" * 32,
        "017F22E279B07CC398C4DC0C0C07398F",
        "017f22e279b07cc3c8c4dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        "017f22e279b07cc398c4dc0c0c07398f0",
        "017f22e279b07cc398c4dc0c0c07398_",
        "\u0660" * 12 + "7" + "0" * 3 + "8" + "0" * 15,
    ],
)
def test_other_ids_say_nothing(jti):
    """No version, no variant, upper case, dashes, another length, digits of another script."""
    assert issued_ms(jti) is None
