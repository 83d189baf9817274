"""Settings of the model server: the common ones, and how much work it takes on at once."""

import re
from dataclasses import dataclass
from pathlib import Path

from shared.rate_limit.gcra import MAX_COUNT
from shared.settings import EMBEDDED_STORE_REFUSED, Settings, setting, whole, words

_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


def limits_by_attribute(text: str) -> tuple[tuple[str, int], ...]:
    """Parser of ``attribute=calls`` pairs, comma separated."""
    pairs = [part.partition("=") for part in words(text)]
    limits = {name.strip(): count.strip() for name, _, count in pairs}
    if len(limits) != len(pairs) or not all(map(_ATTRIBUTE.match, limits)):
        raise ValueError("must be attribute=calls pairs, comma separated, each attribute once")
    number = whole(1, MAX_COUNT)
    return tuple((name, number(count)) for name, count in limits.items())


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

    attribute_limits: tuple[tuple[str, int], ...] = setting(
        "FLEX_ATTRIBUTE_LIMITS_PER_HOUR",
        "",
        "calls of one client to one attribute per hour, such as `grit=50,calm=20`; others have no limit of their own",
        limits_by_attribute,
    )
    explanation_weight: int = setting(
        "FLEX_EXPLANATION_WEIGHT", "10", "how many calls and rows an explanation counts for", whole(1, 1000)
    )
    refused_per_minute: int = setting(
        "FLEX_REFUSED_PER_MINUTE",
        "120000",
        "refused tokens from one network (IPv4 /24, IPv6 /56) per minute and worker, two seconds' worth at once; "
        "beyond that its new tokens get 429",
        whole(1, 100_000_000),
    )

    @property
    def has_store(self) -> bool:
        """Whether limits are shared over a store: only an installation that needs no revocations may have none."""
        return bool(self.redis_url) or self.require_fresh_revocations_s > 0

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
            found.append(EMBEDDED_STORE_REFUSED)
        return found
