"""The data model on one page: what the auth server knows about whom. Times are UTC seconds."""

import hmac
from dataclasses import dataclass

from shared.rate_limit.budgets import Budget

CLIENT_CREDENTIALS = "client_credentials"
SECRET_BASIC = "client_secret_basic"  # noqa: S105
SECRET_POST = "client_secret_post"  # noqa: S105
MAX_LIVE_SECRETS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecret:
    """One secret of a client as a keyed SHA-256, 32 bytes; the secret itself is nowhere. No ``expires_at``: no end."""

    secret_hash: bytes
    created_at: float
    expires_at: float | None = None

    def live(self, now: float) -> bool:
        """Whether the secret may still be used."""
        return self.expires_at is None or now < self.expires_at

    def __repr__(self) -> str:
        return f"ClientSecret(created_at={self.created_at}, expires_at={self.expires_at})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A registered client (RFC 6749 section 2).

    ``secrets``: newest first, at most two, those past their end included. ``resources``: the resource indicators
    (RFC 8707) it may ask for; the first is its default, none means the installation's. ``token_ttl_s`` None: the
    installation's. ``demo``: made by the first start in development; refused in production.
    ``status_list``: its tokens say where verifiers of other makers find whether they were revoked. ``calls_per_hour``
    None: the installation's limit. ``budgets``: rows that all its tokens together may use (RFC 9396); none means any.
    """

    client_id: str
    name: str
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    secrets: tuple[ClientSecret, ...]
    created_at: float
    grant_types: tuple[str, ...] = (CLIENT_CREDENTIALS,)
    auth_methods: tuple[str, ...] = (SECRET_BASIC, SECRET_POST)
    token_ttl_s: int | None = None
    disabled_at: float | None = None
    demo: bool = False
    status_list: bool = False
    calls_per_hour: int | None = None
    budgets: tuple[Budget, ...] = ()

    @property
    def disabled(self) -> bool:
        """Whether it gets no tokens at present."""
        return self.disabled_at is not None

    def live_secrets(self, now: float) -> tuple[ClientSecret, ...]:
        """The secrets that may be used at ``now``, newest first."""
        return tuple(secret for secret in self.secrets if secret.live(now))


_NOBODY = bytes(32)  # what the hash is compared with where there is no secret; no HMAC is ever all zeros


def proves(client: Client | None, secret_hash: bytes, now: float) -> bool:
    """Whether ``secret_hash`` belongs to a secret of ``client`` that is live at ``now``, and the client is enabled.

    Takes the same time whether the client exists, is disabled, has one secret or two, and whichever matches.
    """
    secrets = client.secrets if client is not None else ()
    proven = False
    for number in range(MAX_LIVE_SECRETS):
        held = secrets[number] if number < len(secrets) else None
        equal = hmac.compare_digest(secret_hash, held.secret_hash if held is not None else _NOBODY)
        proven |= equal and held is not None and held.live(now)
    return proven and client is not None and not client.disabled
