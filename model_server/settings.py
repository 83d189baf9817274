"""Settings of the model server: the common ones, and how much work it takes on at once."""

from dataclasses import dataclass
from pathlib import Path

from shared.settings import Settings, setting, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings(Settings):
    """What the model server needs to know.

    What production refuses for both servers (an http issuer, wildcard CORS) is checked by the common settings.
    """

    batch_threads: int = setting(
        "FLEX_BATCH_THREADS", "1", "threads for batches, profiles and explanations, per worker", whole(1, 8)
    )
    batch_queue: int = setting(
        "FLEX_BATCH_QUEUE", "64", "batches, profiles and explanations that may wait before 503", whole(1, 10_000)
    )

    @property
    def key_set_file(self) -> Path:
        """Where the issuer's last good key set is kept for a restart while the issuer is away."""
        return self.var_dir / "model" / "key_set.json"

    @property
    def revocations_file(self) -> Path:
        """Where the last known revocations are kept for a restart while the store is away; all workers share it."""
        return self.var_dir / "model" / "revocations"

    def problems(self) -> list[str]:
        """Sentences about settings that are unsafe or wrong together."""
        found = Settings.problems(self)
        if self.production and self.require_fresh_revocations_s and not self.redis_url:
            found.append(
                "FLEX_REDIS_URL: the embedded store is refused in production; name the store of the auth server, or "
                "set FLEX_REQUIRE_FRESH_REVOCATIONS_S=0 for an issuer without a revocation feed."
            )
        return found
