"""Settings: read once from the environment (and ``.env``), checked all together, immutable after.

Each field of the dataclass names its variable, its help and its parser; ``docs/configuration.md`` is generated from
them.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from shared.secret import Secret

MAX_ACCESS_TOKEN_TTL_S = 3600
EMBEDDED_STORE_REFUSED = "FLEX_REDIS_URL: the embedded store is refused in production; name a Redis or Valkey."
_MOST_CALLS_PER_HOUR = 100_000_000
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class SettingsError(Exception):
    """Every problem of the settings at once; ``problems`` has one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def setting(variable: str, default: str, explanation: str, parse: Callable[[str], Any] = str) -> Any:
    """Make a dataclass field that is read from ``variable``; ``parse`` raises ValueError saying what is allowed."""
    return field(
        default_factory=lambda: parse(default),
        metadata={"env": variable, "default": default, "help": explanation, "parse": parse},
    )


def whole(low: int, high: int) -> Callable[[str], int]:
    """Parser of a whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not text.strip().isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return parse


def optional_whole(low: int, high: int) -> Callable[[str], int | None]:
    """Parser of a whole number that may be left out."""
    number = whole(low, high)

    def parse(text: str) -> int | None:
        return number(text) if text else None

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Parser of one of a few words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return parse


def origin(text: str) -> str:
    """Parser of an http(s) address without user, query or fragment; a trailing slash is taken off."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be an http or https address without user, query or fragment")
    return text.rstrip("/")


def words(text: str) -> tuple[str, ...]:
    """Parser of a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def optional_path(text: str) -> Path | None:
    """Parser of a path that may be empty."""
    return Path(text) if text else None


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine itself."""
    return urlsplit(url).hostname in LOOPBACK


def _dotenv(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415 - 28 ms of start that most installations need not pay

    return {name: value for name, value in dotenv_values(file).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What both servers and the command line need to know. Times in seconds."""

    env: str = setting(
        "FLEX_ENV",
        "development",
        "`development` or `production`; production refuses unsafe settings",
        one_of("development", "production"),
    )
    auth_host: str = setting("FLEX_AUTH_HOST", "127.0.0.1", "address the auth server listens on")
    auth_port: int = setting("FLEX_AUTH_PORT", "9000", "port of the auth server", whole(1, 65535))
    model_host: str = setting("FLEX_MODEL_HOST", "127.0.0.1", "address the model server listens on")
    model_port: int = setting("FLEX_MODEL_PORT", "8000", "port of the model server", whole(1, 65535))
    issuer: str = setting(
        "FLEX_ISSUER", "http://127.0.0.1:9000", "`iss` of every token; the JWKS is found through its metadata", origin
    )
    resource: str = setting(
        "FLEX_RESOURCE", "http://127.0.0.1:8000", "`aud`: the model server's resource indicator (RFC 8707)", origin
    )
    redis_url: Secret = setting(
        "FLEX_REDIS_URL", "", "empty: an embedded Valkey under the var folder; else a Redis 7+ or Valkey URL", Secret
    )
    var_dir: Path = setting("FLEX_VAR_DIR", "var", "state of this installation", Path)
    keys_dir: Path = setting("FLEX_KEYS_DIR", "keys", "signing keys (0700)", Path)
    models_dir: Path = setting("FLEX_MODELS_DIR", "models", "model bundles", Path)
    keys_passphrase_file: Path | None = setting(
        "FLEX_KEYS_PASSPHRASE_FILE", "", "file whose content encrypts private keys at rest", optional_path
    )
    feed_key_path: Path | None = setting(
        "FLEX_FEED_KEY_FILE",
        "",
        "file with the key that authenticates the revocation feed (empty: feed.key in the var folder)",
        optional_path,
    )
    access_token_ttl_s: int = setting(
        "FLEX_ACCESS_TOKEN_TTL_S", "900", "life of an access token", whole(60, MAX_ACCESS_TOKEN_TTL_S)
    )
    jwks_max_age_s: int = setting(
        "FLEX_JWKS_MAX_AGE_S",
        "300",
        "how long verifiers may cache the JWKS; a standby key is never activated younger",
        whole(1, 86400),
    )
    jwks_max_stale_s: int = setting(
        "FLEX_JWKS_MAX_STALE_S",
        "86400",
        "how long the model server goes on with the last good key set when the issuer can't be reached",
        whole(60, 604800),
    )
    workers: int = setting("FLEX_WORKERS", "1", "processes per server", whole(1, 64))
    cors_origins: tuple[str, ...] = setting(
        "FLEX_CORS_ORIGINS", "", "exact origins that browsers may call from, comma separated", words
    )
    rate_limit_per_hour: int | None = setting(
        "FLEX_RATE_LIMIT_PER_HOUR",
        "",
        "calls per client per hour where the client sets none; empty: 100 in production, 1000000 in development",
        optional_whole(1, 1_000_000_000),
    )
    require_fresh_revocations_s: int = setting(
        "FLEX_REQUIRE_FRESH_REVOCATIONS_S",
        "900",
        "how stale the revocation feed may be before calls are refused (503); `0`: no feed and no store needed",
        whole(0, 86400),
    )
    metrics_networks: tuple[str, ...] = setting(
        "FLEX_METRICS_NETWORKS", "", "networks (CIDR) besides the loopback that may read /metrics", words
    )
    log_access: str = setting(
        "FLEX_LOG_ACCESS", "1", "`1`: one JSON line for each request; `0`: security events only", one_of("0", "1")
    )

    @property
    def feed_key_file(self) -> Path:
        """Where the feed key is; whoever starts first makes it."""
        return self.feed_key_path or self.var_dir / "feed.key"

    @property
    def production(self) -> bool:
        """Whether unsafe settings are refused."""
        return self.env == "production"

    @property
    def calls_per_hour(self) -> int:
        """How many calls a client without a limit of its own may make in an hour, at most 100,000,000."""
        if self.rate_limit_per_hour is not None:
            return min(self.rate_limit_per_hour, _MOST_CALLS_PER_HOUR)
        return 100 if self.production else 1_000_000

    def problems(self) -> list[str]:
        """Sentences about settings that are wrong together; a subclass adds its own."""
        found: list[str] = []
        if "*" in self.cors_origins and self.production:
            found.append("FLEX_CORS_ORIGINS: '*' is refused in production; name the exact origins.")
        found += [
            f"FLEX_CORS_ORIGINS: '{text[:80]}' must be scheme://host[:port] only."
            for text in self.cors_origins
            if text != "*" and urlsplit(text)._replace(scheme="", netloc="").geturl()
        ]
        if self.production and urlsplit(self.issuer).scheme != "https" and not is_loopback(self.issuer):
            found.append("FLEX_ISSUER: must be https in production (http is accepted for the loopback only).")
        return found

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read all fields from ``environ`` (default: ``.env`` of the working folder under the process environment).

        Raises SettingsError with every problem found.
        """
        if environ is None:
            environ = {**_dotenv(Path(".env")), **os.environ}
        values: dict[str, Any] = {}
        found: list[str] = []
        for spec in dataclasses.fields(cls):
            text = environ.get(spec.metadata["env"])
            if text is None:
                continue
            try:
                values[spec.name] = spec.metadata["parse"](text)
            except ValueError as problem:
                found.append(f"{spec.metadata['env']}: {problem}.")
        result = cls(**values)
        found += result.problems()
        if found:
            raise SettingsError(found)
        return result
