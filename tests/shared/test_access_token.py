"""Access tokens: what is accepted, and every way in which one is refused (RFC 9068, RFC 8725)."""

import hashlib
import hmac
import json

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shared import access_token, base64url
from shared.access_token import AccessToken, StaticKeySet, TokenRefused, verify_access_token
from shared.errors import AppError
from tests.tokens import AUDIENCE, ISSUER, NOW, Issuer, compact


@pytest.fixture(scope="session")
def issuer(rsa_key):
    return Issuer(rsa_key)


@pytest.fixture(autouse=True)
def no_known_headers():
    """Let each test meet its header for the first time."""
    access_token._known_headers.clear()


@pytest.fixture
def verify(issuer):
    keys = StaticKeySet({issuer.kid: issuer.key})

    def run(raw_token, *, now=float(NOW), held=keys) -> AccessToken:
        return verify_access_token(raw_token, held, issuer=ISSUER, audience=AUDIENCE, now=now)

    return run


@pytest.fixture
def reason_of(verify):
    def run(raw_token, **changes) -> str:
        with pytest.raises(TokenRefused) as refusal:
            verify(raw_token, **changes)
        return refusal.value.reason

    return run


def test_a_good_token_gives_its_claims(verify, issuer):
    """All that later decisions need comes out, with the key that proved it."""
    token = verify(issuer.token())
    assert (token.subject, token.client_id, token.token_id) == ("client-1", "client-1", "AAECAwQFBgcICQoLDA0ODw")
    assert token.scopes == {"predict:grit", "explain:grit"}
    assert (token.issued_at, token.expires_at, token.audiences) == (NOW, NOW + 900, (AUDIENCE,))
    assert token.key == issuer.key


def test_text_and_bytes_are_the_same(verify, issuer):
    """A token may come as str; one with foreign letters is malformed, not a crash."""
    assert verify(issuer.token().decode()) == verify(issuer.token())
    with pytest.raises(TokenRefused, match="malformed"):
        verify("é.é.é")


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_both_spellings_of_the_type_are_taken(verify, issuer, typ):
    """RFC 9068 section 2.1; media types know no case."""
    assert verify(issuer.token({"typ": typ}))


def test_audience_list_float_times_and_unknown_claims_are_fine(verify, issuer):
    """What other RFC 9068 issuers write is understood."""
    token = verify(issuer.token(aud=["https://other", AUDIENCE], exp=NOW + 10.5, nbf=NOW - 1, extra={"sub": [1]}))
    assert token.audiences == ("https://other", AUDIENCE)
    assert verify(issuer.token(scope=None)).scopes == frozenset()


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"alg": "none"}, "wrong_alg"),
        ({"alg": "None"}, "wrong_alg"),
        ({"alg": "rs256"}, "wrong_alg"),
        ({"alg": "RS384"}, "wrong_alg"),
        ({"alg": "PS256"}, "wrong_alg"),
        ({"alg": "HS256"}, "wrong_alg"),
        ({"alg": "ES256"}, "wrong_alg"),
        ({"alg": ["RS256"]}, "wrong_alg"),
        ({"alg": None}, "wrong_alg"),
        ({"typ": "JWT"}, "wrong_typ"),
        ({"typ": "at+jwt "}, "wrong_typ"),
        ({"typ": "application/application/at+jwt"}, "wrong_typ"),
        ({"typ": None}, "wrong_typ"),
        ({"typ": 1}, "wrong_typ"),
        ({"kid": None}, "bad_kid"),
        ({"kid": ""}, "bad_kid"),
        ({"kid": {"a": 1}}, "bad_kid"),
        ({"kid": "kid-2"}, "unknown_kid"),
        ({"kid": "../../dev/null"}, "unknown_kid"),
        ({"crit": ["exp"]}, "forbidden_header"),
        ({"crit": []}, "forbidden_header"),
        ({"b64": True}, "forbidden_header"),
        ({"jwk": {}}, "forbidden_header"),
        ({"jku": "https://attacker"}, "forbidden_header"),
        ({"x5u": "https://attacker"}, "forbidden_header"),
        ({"x5c": ["AA"]}, "forbidden_header"),
        ({"zip": "DEF"}, "forbidden_header"),
        ({"pad": "x" * 500}, "bad_header"),
        ({"deep": [[[[[[[[[]]]]]]]]]}, "bad_header"),
    ],
)
def test_a_header_that_asks_for_anything_else_is_refused(reason_of, issuer, header, reason):
    """Each token is correctly signed; its header alone condemns it."""
    assert reason_of(issuer.token(header)) == reason


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": ISSUER + "/"}, "wrong_issuer"),
        ({"iss": ISSUER[:-1]}, "wrong_issuer"),
        ({"iss": [ISSUER]}, "wrong_issuer"),
        ({"iss": None}, "wrong_issuer"),
        ({"aud": AUDIENCE + "/"}, "wrong_audience"),
        ({"aud": AUDIENCE + " x"}, "wrong_audience"),
        ({"aud": []}, "wrong_audience"),
        ({"aud": [AUDIENCE, 1]}, "bad_claims"),
        ({"aud": {AUDIENCE: 1}}, "bad_claims"),
        ({"aud": None}, "bad_claims"),
        ({"exp": None}, "bad_claims"),
        ({"exp": str(NOW + 900)}, "bad_claims"),
        ({"exp": True}, "bad_claims"),
        ({"exp": [NOW + 900]}, "bad_claims"),
        ({"exp": -1}, "bad_claims"),
        ({"exp": 10**30}, "bad_claims"),
        ({"exp": 2**53 + 1}, "bad_claims"),
        ({"iat": None}, "bad_claims"),
        ({"iat": "now"}, "bad_claims"),
        ({"nbf": "now"}, "bad_claims"),
        ({"nbf": False}, "bad_claims"),
        ({"sub": None}, "bad_claims"),
        ({"sub": 7}, "bad_claims"),
        ({"sub": ""}, "bad_claims"),
        ({"client_id": None}, "bad_claims"),
        ({"jti": None}, "bad_claims"),
        ({"jti": ["a"]}, "bad_claims"),
        ({"scope": ["predict:grit"]}, "bad_claims"),
        ({"cnf": {"jkt": "AA"}}, "sender_constrained"),
        ({"pad": "x" * 2900}, "too_long"),
        ({"deep": [[[[[[[[[]]]]]]]]]}, "bad_payload"),
    ],
)
def test_claims_of_the_wrong_kind_are_refused(reason_of, issuer, claims, reason):
    """Equality on strings only, strict types, required claims, no bearer use of a bound token."""
    assert reason_of(issuer.token(**claims)) == reason


def test_the_issuer_may_look_into_tokens_for_anybody(issuer):
    """Without an audience everything else is checked as ever."""
    keys = StaticKeySet({issuer.kid: issuer.key})
    token = verify_access_token(issuer.token(aud=["urn:a", "urn:b"]), keys, issuer=ISSUER, audience=None, now=NOW)
    assert token.audiences == ("urn:a", "urn:b")
    with pytest.raises(TokenRefused, match="expired"):
        verify_access_token(issuer.token(exp=NOW - 30), keys, issuer=ISSUER, audience=None, now=NOW)


def test_the_header_has_its_own_limit(reason_of, verify, issuer):
    """A header of 512 bytes passes and one of 513 does not."""
    room = 512 - len(compact(issuer.header(pad="")))
    assert verify(issuer.token({"pad": "x" * room}))
    assert reason_of(issuer.token({"pad": "x" * (room + 1)})) == "bad_header"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (lambda text: b"\xef\xbb\xbf" + text, "bad_payload"),
        (lambda text: text.decode().encode("utf-16"), "bad_payload"),
        (lambda text: text[:-1] + b',"exp":9999999999}', "bad_payload"),
        (lambda text: text[:-1] + b',"e\\u0078p":9999999999}', "bad_payload"),
        (lambda text: text[:-1] + b',"act":{"sub":"a","sub":"b"}}', "bad_payload"),
        (lambda text: text[:-1] + b',"x":NaN}', "bad_payload"),
        (lambda text: text[:-1] + b',"x":1e400}', "bad_payload"),
        (lambda text: text[:-1] + b',"x":"\\ud800"}', "bad_payload"),
        (lambda text: text[:-1] + b',"x":"\xff"}', "bad_payload"),
        (lambda text: b"[" + text + b"]", "bad_payload"),
        (lambda text: b'"' + text[1:-1].replace(b'"', b"'") + b'"', "bad_payload"),
        (lambda text: text + b"{}", "bad_payload"),
        (lambda text: text.replace(b"1800000900", b"1e999"), "bad_payload"),
    ],
)
def test_payloads_that_two_readers_could_read_differently_are_refused(reason_of, issuer, payload, reason):
    """Correctly signed, but with a byte order mark, another encoding, repeated names, or numbers that are none."""
    text = compact(issuer.claims())
    assert reason_of(issuer.sign(compact(issuer.header()), payload(text))) == reason


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"none","alg":"RS256","typ":"at+jwt","kid":"kid-1"}',
        b'{"alg":"RS256","typ":"at+jwt","kid":"kid-2","kid":"kid-1"}',
        b'\xef\xbb\xbf{"alg":"RS256","typ":"at+jwt","kid":"kid-1"}',
        '{"alg":"RS256","typ":"at+jwt","kid":"kid-1"}'.encode("utf-16-le"),
        b'["RS256"]',
        b"{}}",
    ],
)
def test_headers_that_two_readers_could_read_differently_are_refused(reason_of, issuer, header):
    """Repeated names (the last one good), byte order marks, other encodings, no object."""
    assert reason_of(issuer.sign(header, compact(issuer.claims()))) == "bad_header"


def test_only_three_clean_parts_are_a_token(reason_of, issuer):
    """Wrong numbers of parts, empty parts, padding, foreign characters, white space and spare bits."""
    good = issuer.token()
    head, body, signature = good.split(b".")
    wrong = [
        b"",
        b".",
        b"..",
        head + b"." + body,
        head + b"." + body + b".",
        head + b".." + signature,
        b"." + body + b"." + signature,
        good + b".AA",
        good + b".AA.AA",
        good + b"=",
        good + b"==",
        good + b"\n",
        b" " + good,
        head + b"=." + body + b"." + signature,
        good.replace(b"-", b"+").replace(b"_", b"/"),
        b"*" + good,
        good[:-1] + bytes([good[-1] + 1]),  # the last character's spare bits
        b'{"payload":"' + body + b'","signatures":[]}',
    ]
    assert {reason_of(raw_token) for raw_token in wrong} <= {"malformed", "bad_header"}
    assert reason_of(b"a" * 4097) == "too_long"
    assert reason_of(b"a" * 4096) == "malformed"


def test_an_encrypted_token_is_not_a_token(reason_of):
    """Five parts (RFC 7516) are refused before anything is decoded or inflated."""
    assert reason_of(b"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AA.AA.AA.AA") == "malformed"


def test_a_signature_by_another_key_or_over_other_bytes_is_refused(reason_of, issuer, other_rsa_key):
    """Forged, cut, lengthened, moved and swapped signatures."""
    good = issuer.token()
    head, body, signature = good.split(b".")
    forged = Issuer(other_rsa_key, issuer.kid).token()
    other_body = issuer.token(scope="admin").split(b".")[1]
    raw = base64url.decode(signature)
    for wrong in (
        forged,
        head + b"." + other_body + b"." + signature,
        head + b"." + body + b"." + base64url.encode(raw[:-1]),
        head + b"." + body + b"." + base64url.encode(raw + b"\0"),
        head + b"." + body + b"." + base64url.encode(b"\0" + raw),
        head + b"." + body + b"." + base64url.encode(bytes(256)),
        head + b"." + body + b"." + base64url.encode(b"\0"),
        head + b"." + body + b"." + base64url.encode(bytes([raw[0] ^ 1]) + raw[1:]),
    ):
        assert reason_of(wrong) == "bad_signature"


def test_the_public_key_is_no_hmac_secret(reason_of, issuer):
    """Key confusion: an HMAC made with the published key, under both names of the algorithm."""
    for alg, reason in (("HS256", "wrong_alg"), ("RS256", "bad_signature")):
        signing_input = b".".join(
            base64url.encode(compact(part)) for part in (issuer.header(alg=alg), issuer.claims(scope="admin"))
        )
        mac = hmac.digest(json.dumps(issuer.jwk).encode(), signing_input, hashlib.sha256)
        assert reason_of(signing_input + b"." + base64url.encode(mac)) == reason


def test_a_key_of_another_issuer_does_not_count(reason_of, issuer, rsa_key):
    """The same key under the same kid, but published by somebody else."""
    foreign = StaticKeySet({issuer.kid: Issuer(rsa_key, issuer.kid, "http://other").key})
    assert reason_of(issuer.token(), held=foreign) == "unknown_kid"


def test_times_have_thirty_seconds_of_leeway(verify, reason_of, issuer):
    """Just inside passes, just outside is refused, for exp, nbf and iat."""
    token = issuer.token(nbf=NOW)
    assert verify(token, now=NOW + 929.9)
    assert reason_of(token, now=NOW + 930.0) == "expired"
    assert verify(token, now=NOW - 30.0)
    assert reason_of(issuer.token(iat=NOW - 100, nbf=NOW), now=NOW - 30.1) == "not_yet_valid"
    assert reason_of(issuer.token(nbf=None), now=NOW - 30.1) == "issued_in_the_future"


def test_claims_are_checked_after_the_signature(reason_of, issuer, other_rsa_key):
    """An expired forgery is a forgery: nobody learns a claim's fate without the key."""
    forged = Issuer(other_rsa_key, issuer.kid).token(exp=1, iat=1, aud="x", sub=None)
    assert reason_of(forged) == "bad_signature"


def test_a_known_header_saves_no_check(verify, reason_of, issuer, other_rsa_key):
    """After a good token the same header text is known; a forgery under it is still refused, and a key may vanish."""
    assert verify(issuer.token())
    assert access_token._known_headers
    assert reason_of(Issuer(other_rsa_key, issuer.kid).token()) == "bad_signature"
    assert reason_of(issuer.token(), held=StaticKeySet({})) == "unknown_kid"


def test_bad_tokens_leave_no_known_header_and_the_memory_is_bounded(verify, reason_of, issuer):
    """Only headers of good tokens are remembered, at most 64 of them."""
    reason_of(issuer.token({"kid": "kid-9"}))
    assert not access_token._known_headers
    for n in range(100):
        verify(issuer.token({"pad": str(n)}))
    assert 0 < len(access_token._known_headers) <= 64


def test_a_key_set_that_holds_nothing_is_not_the_tokens_fault(issuer):
    """Its AppError passes through, so that the answer is 503 and not 401."""

    class Empty:
        def get(self, _kid):
            raise AppError("keys_unavailable")

    with pytest.raises(AppError) as problem:
        verify_access_token(issuer.token(), Empty(), issuer=ISSUER, audience=AUDIENCE, now=NOW)
    assert problem.value.status == 503


def test_refusals_repeat_nothing_of_the_token(issuer):
    """Neither the error nor its text holds a byte that came in."""
    raw_token = issuer.token(sub=7)
    with pytest.raises(TokenRefused) as refusal:
        verify_access_token(
            raw_token, StaticKeySet({issuer.kid: issuer.key}), issuer=ISSUER, audience=AUDIENCE, now=NOW
        )
    assert str(refusal.value) == "bad_claims"
    assert refusal.value.__suppress_context__


@pytest.fixture(scope="session")
def good_token(issuer):
    return issuer.token()


EDITS = st.tuples(st.integers(0, 800), st.integers(0, 3), st.binary(max_size=3))


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.lists(EDITS, min_size=1, max_size=3))
def test_an_edited_token_is_refused_and_nothing_else_ever_happens(issuer, good_token, edits):
    """Bytes put in, taken out or replaced anywhere: TokenRefused, no other exception, no acceptance."""
    raw_token = good_token
    for start, n_removed, put_in in edits:
        raw_token = raw_token[:start] + put_in + raw_token[start + n_removed :]
    keys = StaticKeySet({issuer.kid: issuer.key})
    if raw_token == good_token:
        return
    with pytest.raises(TokenRefused):
        verify_access_token(raw_token, keys, issuer=ISSUER, audience=AUDIENCE, now=NOW)


MEMBERS = st.sampled_from(["iss", "aud", "exp", "iat", "nbf", "sub", "client_id", "jti", "scope", "cnf", "act"])
ODD = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(MEMBERS, ODD | st.lists(ODD, max_size=2) | st.dictionaries(st.text(max_size=2), ODD, max_size=2))
)
def test_odd_claims_never_raise_anything_else(odd):
    """Whatever an issuer signs: accepted with typed claims, or TokenRefused."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "exp": NOW + 9,
        "iat": NOW,
        "sub": "s",
        "client_id": "c",
        "jti": "j",
    } | odd
    try:
        token = access_token._read_claims(json.loads(json.dumps(claims)), None, AUDIENCE)
        token.check_time(NOW)
    except TokenRefused:
        return
    assert all(isinstance(text, str) and text for text in (token.subject, token.client_id, token.token_id))
    assert 0 <= token.expires_at <= 2**53
    assert "cnf" not in odd
