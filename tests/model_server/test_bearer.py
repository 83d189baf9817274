"""From the Authorization header to a caller, and every way to be turned away."""

import hashlib
from types import SimpleNamespace

import pytest

from model_server import bearer as bearer_module
from model_server.bearer import Bearer
from model_server.revocations import Revocations
from shared.access_token import StaticKeySet
from shared.errors import AppError
from shared.events import Event
from shared.revocations.entries import Entry, Kind, token_key
from shared.scopes import covers
from shared.telemetry import BEARER_REFUSED
from tests.model_server.accounts import networks, own_accounts
from tests.tokens import AUDIENCE, ISSUER, NOW, Issuer

ATTRIBUTES = ("calm", "empathy", "grit")


class Keys(StaticKeySet):
    """A key set that a test may change, as the background task would."""

    def drop(self, kid):
        del self._by_kid[kid]

    def put(self, kid, key):
        self._by_kid[kid] = key


@pytest.fixture(scope="session")
def issuer(rsa_key):
    return Issuer(rsa_key)


@pytest.fixture
def keys(issuer):
    return Keys({issuer.kid: issuer.key})


def a_bearer(keys, clock, refused_per_minute=1_000_000):
    return Bearer(
        keys,
        issuer=ISSUER,
        audience=AUDIENCE,
        attributes=ATTRIBUTES,
        accounts=own_accounts(clock),
        networks=networks(clock, refused_per_minute),
        clock=clock,
    )


@pytest.fixture
def bearer(keys, clock):
    return a_bearer(keys, clock)


def request(*values: bytes):
    headers = [(b"host", b"x"), *((b"authorization", value) for value in values), (b"accept", b"*/*")]
    return {"type": "http", "headers": headers, "flex.request_id": "r-1", "client": ("192.0.2.7", 5)}


def refusal(bearer, *values: bytes) -> AppError:
    with pytest.raises(AppError) as error:
        bearer.authenticate(request(*values))
    return error.value


def count_of(reason: str) -> float:
    return BEARER_REFUSED.labels(reason)._value.get()


def test_a_good_token_gives_the_caller_and_the_client_id(bearer, issuer):
    """The caller knows what it may do; the request knows who it was."""
    scope = request(b"Bearer " + issuer.token())
    caller = bearer.authenticate(scope)
    assert caller.client_id == scope["flex.client_id"] == "client-1"
    assert caller.may_predict == caller.may_explain == caller.visible == {"grit"}


@pytest.mark.parametrize("scheme", [b"bearer ", b"BEARER ", b"BeArEr "])
def test_the_scheme_knows_no_case(bearer, issuer, scheme):
    """RFC 9110 section 11.1."""
    assert bearer.authenticate(request(scheme + issuer.token()))


@pytest.mark.parametrize("values", [(), (b"Basic Y2xpZW50OnNlY3JldA==",), (b"DPoP abc",), (b"",), (b"Bearerabc",)])
def test_no_bearer_token_is_not_a_bad_one(bearer, values):
    """Nothing, or another scheme: 401 without an error code."""
    assert refusal(bearer, *values).code == "unauthenticated"


def test_two_authorization_headers_are_refused_even_if_both_are_good(bearer, issuer):
    """Servers that take the first and proxies that take the last would disagree."""
    good = b"Bearer " + issuer.token()
    error = refusal(bearer, good, good)
    assert (error.code, error.reason) == ("invalid_token", "two_headers")
    assert refusal(bearer, b"Basic x", good).code == "invalid_token"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"Bearer", "malformed"),
        (b"Bearer ", "malformed"),
        (b"Bearer  a.b.c", "malformed"),
        (b"Bearer a b", "malformed"),
        (b"Bearer a.b.c, Bearer a.b.c", "malformed"),
        (b"Bearer \xff\xfe", "malformed"),
        (b"Bearer " + b"a" * 4097, "too_long"),
        (b"Bearer " + b"a." * 2048, "malformed"),
    ],
)
def test_malformed_tokens_get_the_one_answer(bearer, value, reason):
    """The caller is told nothing precise; metric and reason are."""
    before = count_of(reason)
    error = refusal(bearer, value)
    assert (error.code, error.reason) == ("invalid_token", reason)
    assert error.detail == AppError("invalid_token").detail
    assert count_of(reason) == before + 1


def test_a_refusal_is_one_event_without_the_token(bearer, issuer, event_log):
    """The log has the reason, the request and the peer; not a byte of the token."""
    raw_token = issuer.token(aud="https://elsewhere")
    refusal(bearer, b"Bearer " + raw_token)
    (line,) = event_log.named(Event.BEARER_REFUSED)
    assert (line["reason"], line["request_id"], line["peer"]) == ("wrong_audience", "r-1", "192.0.2.7")
    assert raw_token.decode()[:20] not in event_log.text


def test_a_second_call_is_answered_from_the_memo(bearer, issuer, monkeypatch):
    """No second verification; the very same caller."""
    value = b"Bearer " + issuer.token()
    first = bearer.authenticate(request(value))
    monkeypatch.setattr(bearer_module, "verify_access_token", None)
    assert bearer.authenticate(request(value)) is first


def test_the_memo_holds_no_token_and_no_plain_digest(bearer, issuer):
    """Its keys are digests under a secret of this process."""
    raw_token = issuer.token()
    bearer.authenticate(request(b"Bearer " + raw_token))
    (digest,) = bearer._memo._newer
    assert digest != hashlib.sha256(raw_token).digest()
    assert raw_token not in repr(bearer._memo._newer).encode()


def test_a_memorized_token_expires(bearer, issuer, clock):
    """The time is looked at on every call."""
    value = b"Bearer " + issuer.token()
    bearer.authenticate(request(value))
    clock.advance(929.9)
    bearer.authenticate(request(value))
    clock.advance(0.2)
    assert refusal(bearer, value).reason == "expired"


def test_a_memorized_token_is_refused_when_the_clock_goes_back_before_it(bearer, issuer, clock):
    """Both nbf and iat count on every call too."""
    value = b"Bearer " + issuer.token(nbf=NOW)
    bearer.authenticate(request(value))
    clock.now = NOW - 31.0
    assert refusal(bearer, value).reason in {"not_yet_valid", "issued_in_the_future"}


def test_a_memorized_token_dies_with_its_key(bearer, issuer, keys):
    """A key that is gone takes its tokens along, without waiting for anything to be emptied."""
    value = b"Bearer " + issuer.token()
    bearer.authenticate(request(value))
    keys.drop(issuer.kid)
    assert refusal(bearer, value).reason == "unknown_kid"


def test_a_memorized_token_dies_when_its_kid_gets_another_key(bearer, issuer, keys, other_rsa_key):
    """The same kid is not the same key."""
    value = b"Bearer " + issuer.token()
    bearer.authenticate(request(value))
    keys.put(issuer.kid, Issuer(other_rsa_key, issuer.kid).key)
    assert refusal(bearer, value).reason == "bad_signature"


def test_forgetting_empties_the_memo(bearer, issuer):
    """What the key follower calls when the keys change."""
    bearer.authenticate(request(b"Bearer " + issuer.token()))
    assert len(bearer._memo) == 1
    bearer.forget()
    assert len(bearer._memo) == 0


def test_the_memo_is_bounded_and_keeps_what_is_used(bearer, issuer, monkeypatch):
    """Never more than its size; a token in use survives a flood of other good ones."""
    monkeypatch.setattr(bearer_module, "MEMO_SIZE", 8)
    used = b"Bearer " + issuer.token()
    first = bearer.authenticate(request(used))
    for n in range(40):
        bearer.authenticate(request(b"Bearer " + issuer.token(jti=f"t{n}")))
        assert bearer.authenticate(request(used)) is first
        assert len(bearer._memo) <= 8


def test_bad_tokens_never_enter_the_memo(bearer, issuer):
    """So that a flood of them can't push good ones out."""
    for n in range(20):
        refusal(bearer, b"Bearer " + issuer.token(aud=f"https://x{n}"))
    assert len(bearer._memo) == 0


def test_no_usable_key_set_is_503_and_not_401(issuer, clock):
    """The token may be fine; it is we who can't tell. So it is for memorized tokens."""

    class Held:
        empty = False

        def get(self, _kid):
            if self.empty:
                raise AppError("keys_unavailable")
            return issuer.key

    held = Held()
    bearer = a_bearer(held, clock)
    seen, unseen = b"Bearer " + issuer.token(), b"Bearer " + issuer.token(jti="other")
    bearer.authenticate(request(seen))
    held.empty = True
    for value in (seen, unseen):
        error = refusal(bearer, value)
        assert (error.code, error.status) == ("keys_unavailable", 503)
        assert error.retry_after_s


@pytest.mark.parametrize(
    "scopes",
    [
        "",
        "predict:grit",
        "explain:calm predict:grit",
        "predict:*",
        "explain:*",
        "admin",
        "models:manage",
        "predict:gone",
    ],
)
def test_the_callers_facts_are_those_of_the_shared_scope_rules(bearer, issuer, scopes):
    """Worked out in one pass, but never differently from ``shared.scopes.covers``."""
    caller = bearer.authenticate(request(b"Bearer " + issuer.token(scope=scopes)))
    granted = scopes.split()
    assert caller.may_predict == {name for name in ATTRIBUTES if covers(granted, f"predict:{name}")}
    assert caller.may_explain == {name for name in ATTRIBUTES if covers(granted, f"explain:{name}")}
    assert caller.visible == caller.may_predict | caller.may_explain


def code_of(check, *args) -> str:
    try:
        check(*args)
    except AppError as error:
        return f"{error.code} {' '.join(error.scopes)}".strip()
    return "allowed"


def test_what_may_not_be_seen_does_not_exist(bearer, issuer, event_log):
    """Invisible and unknown: 404 for both; visible but not allowed: 403 naming the scope, with an event."""
    caller = bearer.authenticate(request(b"Bearer " + issuer.token(scope="predict:grit explain:calm")))
    assert code_of(caller.require_predict, "grit") == "allowed"
    assert code_of(caller.require_explain, "grit") == "insufficient_scope explain:grit"
    assert code_of(caller.require_predict, "calm") == "insufficient_scope predict:calm"
    assert code_of(caller.require_predict, "empathy") == "not_found"
    assert code_of(caller.require_explain, "no_such") == "not_found"
    assert code_of(caller.require_visible, "calm") == "allowed"
    assert code_of(caller.require_visible, "empathy") == "not_found"
    assert [line["needed"] for line in event_log.named(Event.SCOPE_REFUSED)] == ["explain:grit", "predict:calm"]


def test_a_profile_needs_some_prediction(bearer, issuer):
    """A token that may predict nothing is told what it would need."""
    caller = bearer.authenticate(request(b"Bearer " + issuer.token(scope="explain:*")))
    assert code_of(caller.require_any_predict) == "insufficient_scope predict:*"


def test_a_memorized_token_is_asked_about_every_time(keys, issuer, clock, tmp_path):
    """Revoked after it was seen: refused at once, with the memo as it was; another one of the client lives."""
    revocations = Revocations(limit_s=900, snapshot=tmp_path / "none", clock=clock)
    revocations._follower = SimpleNamespace(as_of_ms=NOW * 1000)
    bearer = Bearer(
        keys,
        issuer=ISSUER,
        audience=AUDIENCE,
        attributes=ATTRIBUTES,
        accounts=own_accounts(clock),
        networks=networks(clock),
        clock=clock,
        revocations=revocations,
    )
    first, second = (b"Bearer " + issuer.token(jti=jti) for jti in ("one", "two"))
    assert bearer.authenticate(request(first))
    revocations.revoked.apply(Entry(Kind.TOKEN, 1, b"", NOW * 1000, (NOW + 900) * 1000, token_key("one"), b""))
    assert (refusal(bearer, first).code, refusal(bearer, first).reason) == ("invalid_token", "token_revoked")
    assert bearer.authenticate(request(second))
    assert len(bearer._memo) == 2
