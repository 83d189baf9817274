"""The bounds of key rotation as the settings give them: one place for servers and operators."""

from auth_server.keyring.ring import KeyPolicy
from auth_server.settings import AuthSettings

LONGEST_TTL_S = 3600


def ring_policy(settings: AuthSettings) -> KeyPolicy:
    """Make the policy: caches may serve a key set a little beyond its age, clients may have a TTL of their own.

    How long a retired key stays follows the tokens that it did sign, so the shorter they live, the sooner it goes.
    """
    ttl_s = settings.access_token_ttl_s
    return KeyPolicy(
        max_age_s=settings.jwks_max_age_s,
        stale_s=settings.jwks_stale_s,
        ttl_s=ttl_s,
        longer_ttl_s=LONGEST_TTL_S,
        reserve_s=min(max(ttl_s / 8, 10.0), 120.0),
    )
