"""What the auth server needs to know, and what it refuses to start with in production."""

from dataclasses import dataclass
from pathlib import Path

from shared.settings import Settings, setting, whole

DEMO_FILE = "demo-client.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings(Settings):
    """What the auth server needs to know."""

    failed_clients_per_minute: int = setting(
        "FLEX_FAILED_CLIENTS_PER_MINUTE",
        "3000",
        "failed client authentications from one network (IPv4 /24, IPv6 /56) per minute and worker before 429",
        whole(1, 100_000_000),
    )

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
            found.append("FLEX_REDIS_URL: the embedded store is refused in production; name a Redis or Valkey.")
        if self.keys_passphrase_file is None:
            found.append("FLEX_KEYS_PASSPHRASE_FILE: private keys must be encrypted at rest in production.")
        if self.demo_file.exists():
            found.append(
                f"FLEX_VAR_DIR: {self.demo_file} is a demo client's; delete the client and the file, "
                "or use another var folder."
            )
        return found
