"""Settings of the model server: the common ones, and how much work it takes on at once."""

from dataclasses import dataclass
from pathlib import Path

from shared.settings import Settings, setting, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings(Settings):
    """What the model server needs to know.

    What production refuses and touches this server (an http issuer, wildcard CORS) is checked by the common settings.
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
