"""Client authentication by hash: which secrets prove a client, and that the answer takes the same comparisons."""

import hmac
from dataclasses import replace

import pytest

from auth_server.oauth.clients import why_refused
from auth_server.records import Client, ClientSecret, proves

NOW = 1_800_000_000.0
NEW, OLD, OTHER = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
CLIENT = Client(
    client_id="test-0123456789ab",
    name="test",
    scopes=("predict:grit",),
    resources=(),
    secrets=(
        ClientSecret(secret_hash=NEW, created_at=NOW),
        ClientSecret(secret_hash=OLD, created_at=0, expires_at=NOW),
    ),
    created_at=0,
)


def test_live_secrets_prove_the_client():
    """The newest, and the older one until its very end."""
    assert proves(CLIENT, NEW, NOW)
    assert proves(CLIENT, OLD, NOW - 1)


@pytest.mark.parametrize(
    ("client", "secret_hash", "reason"),
    [
        (None, NEW, "unknown_client"),
        (CLIENT, OTHER, "wrong_secret"),
        (CLIENT, OLD, "ended_secret"),
        (replace(CLIENT, disabled_at=NOW), NEW, "disabled_client"),
        (replace(CLIENT, secrets=()), bytes(32), "wrong_secret"),
        (None, bytes(32), "unknown_client"),
    ],
)
def test_anything_else_does_not_and_the_log_knows_why(client, secret_hash, reason):
    """The reason is one fixed word."""
    assert not proves(client, secret_hash, NOW)
    assert why_refused(client, secret_hash, "client_secret_basic", NOW) == reason


@pytest.mark.parametrize(
    "client", [None, replace(CLIENT, secrets=()), replace(CLIENT, secrets=CLIENT.secrets[:1]), CLIENT]
)
@pytest.mark.parametrize("secret_hash", [NEW, OTHER])
def test_the_number_of_comparisons_tells_nothing(client, secret_hash, monkeypatch):
    """Two, always: for no client, for none, one or two secrets, whichever matches."""
    compared = []
    compare = hmac.compare_digest

    def counted(one, other):
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    proves(client, secret_hash, NOW)
    assert compared == [(32, 32)] * 2
