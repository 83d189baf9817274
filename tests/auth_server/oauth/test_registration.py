"""What may be registered, and what may not."""

import pytest

from auth_server.oauth.registration import ClientRequest, new_client_id, register
from auth_server.oauth.requests import could_be_client_id
from auth_server.stores.client_secrets import Pepper
from shared.errors import AppError

PEPPER = Pepper(b"p" * 32)
NOW = 1_800_000_000.0


def registered(**changes):
    return register(ClientRequest(**({"name": "Scoring", "scope": "predict:grit"} | changes)), PEPPER, NOW)


def test_a_registered_client_is_what_was_asked_for():
    """And its secret is nowhere but in the answer."""
    made = registered(scope=" predict:grit  explain:* predict:grit ", token_ttl_s=60, resources=("https://a.example/",))
    assert made.client.scopes == ("predict:grit", "explain:*")
    assert made.client.resources == ("https://a.example",)
    assert made.client.secrets[0].secret_hash == PEPPER.secret_hash(made.secret.reveal())
    assert made.secret.reveal() not in repr(made)
    assert repr(made.client.secrets[0].secret_hash) not in repr(made)


@pytest.mark.parametrize("name", ["Scoring Service", "ünïcode 日本", "-", "x" * 100, "a--b", "🙂"])
def test_ids_tell_the_name_and_are_never_the_same(name):
    """Lower-case, url-safe, at most 45 characters; two of one name differ."""
    first, second = new_client_id(name), new_client_id(name)
    assert first != second
    assert could_be_client_id(first)
    assert len(first) <= 45


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": ""}, "invalid_request"),
        ({"name": "   "}, "invalid_request"),
        ({"name": "x" * 101}, "invalid_request"),
        ({"name": "a\x1b[31mb"}, "invalid_request"),
        ({"scope": ""}, "invalid_scope"),
        ({"scope": "predict:GRIT"}, "invalid_scope"),
        ({"scope": "read"}, "invalid_scope"),
        ({"scope": " ".join(f"predict:{'a' * 60}{n}" for n in range(30))}, "invalid_scope"),
        ({"token_ttl_s": 59}, "invalid_request"),
        ({"token_ttl_s": 3601}, "invalid_request"),
        ({"resources": ("ftp://a.example",)}, "invalid_target"),
        ({"resources": ("a.example",)}, "invalid_target"),
        ({"resources": ("https://a.example#x",)}, "invalid_target"),
        ({"resources": ("https://user@a.example",)}, "invalid_target"),
        ({"resources": ("https://a.example/ x",)}, "invalid_target"),
        ({"resources": ("https://[x",)}, "invalid_target"),
        ({"resources": ("https://a.example/" + "x" * 200,)}, "invalid_target"),
        ({"resources": tuple(f"https://a{n}.example" for n in range(5))}, "invalid_target"),
    ],
)
def test_what_must_not_be_registered_is_refused(changes, code):
    """Each with the word of its RFC."""
    with pytest.raises(AppError) as error:
        registered(**changes)
    assert error.value.code == code
