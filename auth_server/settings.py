"""What the auth server needs to know, and what it refuses to start with in production."""

from dataclasses import dataclass
from pathlib import Path

from shared.settings import EMBEDDED_STORE_REFUSED, Settings, optional_whole, setting, whole

DEMO_FILE = "demo-client.json"
ROTATION_IN_PRODUCTION_S = 30 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings(Settings):
    """The settings of the auth server: the common ones, what it does without its store, and when keys are rotated."""

    store_outage_hold_s: int = setting(
        "FLEX_STORE_OUTAGE_HOLD_S",
        "120",
        "how long client-credentials tokens are issued from memory while the store is away (0: not at all)",
        whole(0, 3600),
    )
    key_rotation_every_s: int | None = setting(
        "FLEX_KEY_ROTATION_S",
        "",
        "age at which the active signing key is rotated by itself; 0: never; empty: 2592000 (30 days) in production, "
        "0 in development",
        optional_whole(0, 315_360_000),
    )
    failed_clients_per_minute: int = setting(
        "FLEX_FAILED_CLIENTS_PER_MINUTE",
        "3000",
        "failed client authentications from one network (IPv4 /24, IPv6 /56) per minute and worker before 429",
        whole(1, 100_000_000),
    )

    @property
    def key_rotation_s(self) -> int:
        """Age of the active key at which a rotation is due; 0: only operators rotate."""
        if self.key_rotation_every_s is not None:
            return self.key_rotation_every_s
        return ROTATION_IN_PRODUCTION_S if self.production else 0

    @property
    def demo_file(self) -> Path:
        """Where the first start in development leaves the demo client."""
        return self.var_dir / DEMO_FILE

    @property
    def token_endpoint(self) -> str:
        """Public address of the token endpoint."""
        return f"{self.issuer}/oauth2/token"

    @property
    def jwks_stale_s(self) -> int:
        """Seconds beyond ``jwks_max_age_s`` for which a cache may still serve the JWKS while it asks for a new one."""
        return self.jwks_max_age_s // 10

    def problems(self) -> list[str]:
        """Sentences about settings that are unsafe or wrong together."""
        return [*Settings.problems(self), *self._passphrase_problems(), *self._production_problems()]

    def _passphrase_problems(self) -> list[str]:
        path = self.keys_passphrase_file
        if path is None:
            return []
        try:
            empty = not path.read_bytes().strip()
        except OSError as problem:
            return [f"FLEX_KEYS_PASSPHRASE_FILE: {path} can't be read ({problem.strerror})."]
        return [f"FLEX_KEYS_PASSPHRASE_FILE: {path} is empty."] if empty else []

    def _production_problems(self) -> list[str]:
        if not self.production:
            return []
        found = []
        if not self.redis_url:
            found.append(EMBEDDED_STORE_REFUSED)
        if self.keys_passphrase_file is None:
            found.append("FLEX_KEYS_PASSPHRASE_FILE: private keys must be encrypted at rest in production.")
        if self.demo_file.exists():
            found.append(
                f"FLEX_VAR_DIR: {self.demo_file} is a demo client's; delete the client and the file, "
                "or use another var folder."
            )
        return found
