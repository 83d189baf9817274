"""The encoding of a Token Status List, held against the vectors of draft-ietf-oauth-status-list-21."""

import zlib

import pytest

from auth_server.oauth.status import encode_list, list_claims, list_uri, status_claim
from shared import base64url

# Section 4.1: sixteen statuses, the bytes B9 A3.
SIXTEEN = [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]
# Appendix C.1: 2^20 entries, these set.
MILLION = [0, 1993, 25460, 159495, 495669, 554353, 645645, 723232, 854545, 934534, 1000345]
MILLION_LST = (
    "eNrt3AENwCAMAEGogklACtKQPg9LugC9k_ACvreiogEAAKkeCQAAAAAAAAAAAAAAAAAAAIBylgQAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAXG9IAAAAAAAAAPwsJAAAAAAAAAAAAAAAvhsSAAAAAAAAAAAA7KpLAAAAAAAAAAAAAAAAAAAA"
    "AJsLCQAAAAAAAAAAADjelAAAAAAAAAAAKjDMAQAAAACAZC8L2AEb"
)


def test_sixteen_statuses_become_the_bytes_of_the_draft():
    """Least significant bit first, in the ZLIB format, without padding."""
    encoded = encode_list([index for index, status in enumerate(SIXTEEN) if status], 16)
    assert encoded == "eNrbuRgAAhcBXQ"
    compressed = base64url.decode(encoded.encode())
    assert compressed.hex() == "78dadbb918000217015d"
    assert zlib.decompress(compressed).hex() == "b9a3"


def test_a_million_statuses_become_the_text_of_the_draft():
    """Appendix C.1, letter by letter."""
    assert encode_list(MILLION, 2**20) == MILLION_LST


def test_order_and_repetition_do_not_matter():
    """Each index only says that its token is invalid."""
    assert encode_list([9, 3, 3], 16) == encode_list([3, 9], 16)


@pytest.mark.parametrize("index", [16, 17, 10_000])
def test_an_index_beyond_the_list_is_an_error(index):
    """Never a longer list, which would tell how many there are."""
    with pytest.raises(IndexError):
        encode_list([index], 16)


def test_claims_name_the_list_as_tokens_do():
    """``sub`` is the ``uri`` of the tokens, and the list may be used longer than it should be kept."""
    claims = list_claims("https://issuer.test", "00aa", "eNrbuRgAAhcBXQ", 1_800_000_000.7)
    assert claims["sub"] == list_uri("https://issuer.test", "00aa") == "https://issuer.test/oauth2/status-lists/00aa"
    assert status_claim("https://issuer.test", "00aa", 7) == {"status_list": {"idx": 7, "uri": claims["sub"]}}
    assert (claims["iat"], claims["exp"], claims["ttl"]) == (1_800_000_000, 1_800_000_300, 30)
    assert claims["status_list"] == {
        "bits": 1,
        "lst": "eNrbuRgAAhcBXQ",
        "aggregation_uri": "https://issuer.test/oauth2/status-lists",
    }
